"""Files of Sends: what each line means, and that every bad line is named."""

from __future__ import annotations

import io
from typing import Any

import pytest

from fanfold_producer.files import (
    FileRefused,
    Format,
    Part,
    at_line,
    derive_fan_out_id,
    format_of,
    open_input,
    part_id,
    read_lines,
    read_parts,
)
from fanfold_schemas import SchemaError, Send


def _parts(text: str | bytes, fmt: Format = "jsonl", node: str | None = None, split: int | None = None) -> list[Part]:
    data = text.encode() if isinstance(text, str) else text
    return list(read_parts("input", read_lines(io.BytesIO(data), fmt, node), split=split))


def _problems(text: str | bytes, fmt: Format = "jsonl", node: str | None = None) -> tuple[str, ...]:
    with pytest.raises(FileRefused) as caught:
        _parts(text, fmt, node)
    return caught.value.problems


def _derived(data: bytes = b"1\n", **changes: Any) -> str:
    arguments: dict[str, Any] = {"fmt": "jsonl", "thread_id": "t", "node": None, "fold": None, "base": {}, **changes}
    return derive_fan_out_id(io.BytesIO(data), **arguments)


def test_json_lines_name_node_arg_and_task_id() -> None:
    (part,) = _parts('{"node":"a","arg":{"x":[1]}}\n\n  \r\n{"node":"b"}\n{"node":"c","arg":2,"task_id":"mine"}')
    assert part.sends == [Send("a", {"x": [1]}), Send("b"), Send("c", 2, "mine")]
    assert part.lines == [1, 4, 5]


def test_with_a_node_every_json_value_is_an_arg() -> None:
    (part,) = _parts('1\n"x"\n[2]\n{"node":"b"}\nnull\n', node="a")
    assert part.sends == [Send("a", 1), Send("a", "x"), Send("a", [2]), Send("a", {"node": "b"}), Send("a", None)]


def test_csv_rows_are_maps_by_the_header_and_keep_their_line_numbers() -> None:
    (part,) = _parts('name,size\na,1\n"b\nc",2\n\nd,3\n', "csv", "n")
    assert part.sends == [
        Send("n", {"name": "a", "size": "1"}),
        Send("n", {"name": "b\nc", "size": "2"}),
        Send("n", {"name": "d", "size": "3"}),
    ]
    assert part.lines == [2, 3, 6]


@pytest.mark.parametrize(("fmt", "text"), [("jsonl", '\ufeff"x"\n'), ("csv", "\ufeffa\nx\n")])
def test_a_byte_order_mark_is_skipped(fmt: Format, text: str) -> None:
    (part,) = _parts(text, fmt, "n")
    assert part.sends[0].arg in ("x", {"a": "x"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "no JSON"),
        ('{"node":"a"', "no JSON"),
        ('{"node":"a"} x', "no JSON"),
        ("NaN", "no JSON"),
        ("1", "--node"),
        ('{"arg":1}', "--node"),
        ('{"node":"a","args":1}', "unknown field 'args'"),
        ('{"node":"a b"}', "node"),
        ('{"node":7}', "node"),
        ('{"node":"a","task_id":""}', "task_id"),
        ("[" * 5000, "no JSON|nested"),
    ],
)
def test_a_bad_json_line_is_named_with_its_number(line: str, says: str) -> None:
    (problem,) = _problems('{"node":"a"}\n\n' + line + "\n")
    assert problem.startswith("line 3: ")
    assert any(part in problem for part in says.split("|")), problem


def test_bytes_that_are_no_utf8_are_named_with_their_line() -> None:
    assert _problems(b'1\n"\xff"\n', node="a")[0].startswith("line 2: ")
    assert _problems(b"a\nx\n\xff\n", "csv", "a")[0].startswith("line ")


def test_a_line_beyond_all_bounds_is_refused_without_being_read() -> None:
    assert "longer than" in _problems(b"1\n" + b" " * (8 * 1024 * 1024 + 2), node="a")[0]


@pytest.mark.parametrize(
    ("text", "number"),
    [("a,b\n1\n", 2), ("a,b\n1,2\n1,2,3\n", 3), ("a,a\n1,2\n", 1), ("a,\n1,2\n", 1), ('a,b\n1,2\n"x\n', 3)],
)
def test_a_bad_csv_row_is_named_with_its_number(text: str, number: int) -> None:
    (problem,) = _problems(text, "csv", "n")
    assert problem.startswith(f"line {number}: ")


def test_all_bad_lines_are_told_at_once_up_to_ten() -> None:
    assert len(_problems("x\n1\nx\n", node="a")) == 2
    with pytest.raises(FileRefused, match="and more after that") as caught:
        _parts("x\n" * 50, node="a")
    assert len(caught.value.problems) == 10


@pytest.mark.parametrize(("text", "fmt"), [("", "jsonl"), ("\n \n", "jsonl"), ("", "csv"), ("a,b\n", "csv")])
def test_a_file_without_a_task_is_refused(text: str, fmt: Format) -> None:
    assert "no task" in _problems(text, fmt, "n")[0]


def test_csv_without_a_node_is_refused() -> None:
    with pytest.raises(ValueError, match="--node"):
        _parts("a\n1\n", "csv")


def test_more_lines_than_a_fan_out_takes_need_split_and_the_error_says_so() -> None:
    text = "1\n" * 100_001
    assert "line 100001" in _problems(text, node="a")[0]
    assert "--split" in _problems(text, node="a")[0]
    assert [len(part.sends) for part in _parts(text, node="a", split=100_000)] == [100_000, 1]


def test_split_parts_keep_order_and_line_numbers() -> None:
    parts = _parts("1\n\n2\n3\n4\n5\n", node="a", split=2)
    assert [[send.arg for send in part.sends] for part in parts] == [[1, 2], [3, 4], [5]]
    assert [part.lines for part in parts] == [[1, 3], [4, 5], [6]]


def test_a_refused_item_is_named_by_its_line() -> None:
    part = Part([1, 5, 9], [Send("a")] * 3)
    error = at_line("input", part, SchemaError("E_SCHEMA", "$.sends[2].task_id", "'x' is the id of $.sends[1] already"))
    assert isinstance(error, FileRefused)
    assert error.problems == ("line 9: task_id: 'x' is the id of line 5 already (E_SCHEMA)",)
    whole = SchemaError("E_LIMIT", "$.quorum", "too many")
    assert at_line("input", part, whole) is whole


def test_the_derived_id_is_stable_and_changes_with_everything_that_makes_other_work() -> None:
    assert _derived() == _derived()
    others = [
        _derived(b"2\n"),
        _derived(fmt="csv"),
        _derived(thread_id="u"),
        _derived(node="n"),
        _derived(fold="n"),
        _derived(base={"main": 1}),
    ]
    assert len({_derived(), *others}) == 7
    assert part_id("f", None, 0) == "f"
    assert len({part_id("f", width, number) for width in (1, 2) for number in (0, 1)}) == 4


def test_standard_input_can_be_read_more_than_once() -> None:
    with open_input("-", io.BytesIO(b"1\n2\n")) as file:
        first = [line.send for line in read_lines(file, "jsonl", "a")]
        assert [line.send for line in read_lines(file, "jsonl", "a")] == first == [Send("a", 1), Send("a", 2)]
        csv = [line.send for line in read_lines(file, "csv", "a")]
        assert [line.send for line in read_lines(file, "csv", "a")] == csv == [Send("a", {"1": "2"})]


@pytest.mark.parametrize(("path", "fmt"), [("a.csv", "csv"), ("A.CSV", "csv"), ("a.jsonl", "jsonl"), ("-", "jsonl")])
def test_the_format_follows_the_suffix(path: str, fmt: Format) -> None:
    assert format_of(path) == fmt
