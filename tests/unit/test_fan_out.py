"""From Sends to records: what is written, and what is refused before anything is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fanfold_producer.fan_out import BuiltFanOut, build_fan_out, deadline_to_ms
from fanfold_schemas import SchemaError, Send, VectorClock, decode_task, derive_task_id, header_text
from fanfold_schemas.limits import FAN_OUT_SIZE_MAX, RECORD_BYTES_MAX

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _build(sends: Any, **changes: Any) -> BuiltFanOut:
    return build_fan_out(**{"thread_id": "t", "sends": sends, "topic": "tasks", "fan_out_id": "f", **changes})


class _LangGraphShaped:
    def __init__(self, node: str, arg: Any) -> None:
        self.node = node
        self.arg = arg


def test_every_send_becomes_one_record_keyed_by_its_task_id_in_index_order() -> None:
    built = _build([("a", 1), ("b", {"x": [2]})], fold="sum", base={"main": 3}, quorum=1, deadline_ms=5)
    assert built.task_ids == (derive_task_id("f", 0), derive_task_id("f", 1))
    assert [record.key for record in built.records] == [task_id.encode() for task_id in built.task_ids]
    task = decode_task(built.records[1].value)
    assert (task.index, task.node, task.arg, task.base) == (1, "b", {"x": [2]}, {"main": 3})
    assert (task.thread_id, task.fan_out) == ("t", built.fan_out)
    assert (built.fan_out.size, built.fan_out.fold, built.fan_out.quorum, built.fan_out.deadline_ms) == (2, "sum", 1, 5)


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert _build([("a", {"x": 1})], base={"main": 1}) == _build([("a", {"x": 1})], base=VectorClock({"main": 1}))


def test_our_sends_langgraphs_and_pairs_are_the_same_task() -> None:
    from langgraph.types import Send as LangGraphSend

    values = {_build([send]).records[0].value for send in (Send("a", 1), LangGraphSend("a", 1), ("a", 1))}
    assert len(values) == 1
    assert _build([_LangGraphShaped("a", 1)]).records[0].value in values


def test_a_task_id_that_the_caller_brings_is_kept() -> None:
    built = _build([Send("a", 1, "mine"), ("a", 2)])
    assert built.task_ids == ("mine", derive_task_id("f", 1))


def test_headers_carry_what_routing_and_tracing_need() -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    record = _build([("a", 1)], traceparent=trace, source="my-service").records[0]
    assert header_text(record.headers, "ce_id") == derive_task_id("f", 0)
    assert header_text(record.headers, "ce_source") == "my-service"
    assert header_text(record.headers, "traceparent") == trace
    assert header_text(record.headers, "fanfold-fan-out-id") == "f"


@pytest.mark.parametrize(
    ("arg", "path"),
    [
        (object(), "$.sends[1].arg"),
        ({"items": [0, {"x": object()}]}, "$.sends[1].arg.items[1].x"),
        ({"a": {"b": {1, 2}}}, "$.sends[1].arg.a.b"),
        ({1: 2}, "$.sends[1].arg"),
        (float("nan"), "$.sends[1].arg"),
        ([1.0, float("inf")], "$.sends[1].arg[1]"),
        ({"a": ["ok", "x\0y"]}, "$.sends[1].arg.a[1]"),
        ({"a\0": 1}, "$.sends[1].arg"),
        (2**64, "$.sends[1].arg"),
        ([2**63], "$.sends[1].arg[0]"),
        ("x" * (256 * 1024 + 1), "$.sends[1].arg"),
        ("\ud800", "$.sends[1].arg"),
        (["x" * 200_000] * 6, "$.sends[1].arg"),
    ],
)
def test_an_arg_that_cannot_be_encoded_is_named_with_index_and_path(arg: object, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        _build([("a", 1), ("a", arg)])
    assert caught.value.path == path


def test_an_arg_nested_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(SchemaError) as caught:
        _build([("a", deep)])
    assert caught.value.code == "E_LIMIT"
    assert caught.value.path.startswith("$.sends[0].arg")


def test_an_arg_that_contains_itself_is_refused_and_not_followed_for_ever() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SchemaError, match=r"sends\[0\]\.arg"):
        _build([("a", loop)])


def test_a_record_that_fits_the_wire_but_not_the_broker_with_its_headers_is_refused() -> None:
    overhead = len(_build([("a", b"")]).records[0].value or b"")
    chunk = 200_000
    sizes = [chunk] * (RECORD_BYTES_MAX // chunk)
    arg = [b"x" * size for size in (*sizes, RECORD_BYTES_MAX - sum(sizes) - overhead - 60)]
    with pytest.raises(SchemaError, match="with key and headers") as caught:
        _build([("a", arg)])
    assert caught.value.path == "$.sends[0]"


def test_duplicate_task_ids_are_refused_whether_brought_or_derived() -> None:
    with pytest.raises(SchemaError) as caught:
        _build([Send("a", 1, "same"), ("a", 2), Send("a", 3, "same")])
    assert caught.value.path == "$.sends[2].task_id"
    assert "$.sends[0]" in caught.value.detail
    with pytest.raises(SchemaError):
        _build([("a", 1), Send("a", 2, derive_task_id("f", 0))])


def test_an_empty_fan_out_is_refused_because_it_could_never_complete() -> None:
    with pytest.raises(SchemaError) as caught:
        _build([])
    assert (caught.value.code, caught.value.path) == ("E_LIMIT", "$.sends")


def test_a_fan_out_that_is_too_wide_is_refused_after_one_send_too_many() -> None:
    taken = 0

    def endless() -> Iterator[Send]:
        nonlocal taken
        while True:
            taken += 1
            yield Send("a")

    with pytest.raises(SchemaError, match="100,000"):
        _build(endless())
    assert taken == FAN_OUT_SIZE_MAX + 1


@pytest.mark.parametrize("send", ["a", 1, None, ("a",), ("a", 1, 2), (1, "a"), {"node": "a"}, ["a", 1]], ids=repr)
def test_what_is_no_send_is_named_by_its_index(send: object) -> None:
    with pytest.raises(TypeError, match=r"\$\.sends\[1\]"):
        _build([("a", 1), send])


@pytest.mark.parametrize("sends", ["ab", b"ab", {"a": 1}], ids=repr)
def test_a_string_or_a_map_is_no_list_of_sends(sends: object) -> None:
    with pytest.raises(TypeError, match=r"\$\.sends"):
        _build(sends)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"thread_id": ""}, "$.thread_id"),
        ({"thread_id": "a b"}, "$.thread_id"),
        ({"thread_id": "x" * 201}, "$.thread_id"),
        ({"thread_id": 7}, "$.thread_id"),
        ({"fan_out_id": "é"}, "$.fan_out_id"),
        ({"fold": ""}, "$.fold"),
        ({"base": {"main": -1}}, "$.base"),
        ({"base": {"main": "3"}}, "$.base"),
        ({"base": {"main": True}}, "$.base"),
        ({"base": {f"b{n}": 1 for n in range(65)}}, "$.base"),
        ({"quorum": 0}, "$.quorum"),
        ({"quorum": 2}, "$.quorum"),
        ({"quorum": True}, "$.quorum"),
        ({"quorum": "1"}, "$.quorum"),
        ({"deadline_ms": 0}, "$.deadline"),
        ({"traceparent": "00-x"}, "$.traceparent"),
        ({"sends": [("a b", 1)]}, "$.sends[0].node"),
        ({"sends": [Send("a", 1, "")]}, "$.sends[0].task_id"),
    ],
    ids=repr,
)
def test_every_bad_argument_is_refused_at_its_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        _build(**{"sends": [("a", 1)], **changes})
    assert caught.value.path == path


def test_a_bad_topic_name_is_refused() -> None:
    with pytest.raises(ValueError, match="topic"):
        _build([("a", 1)], topic="a topic")


def test_a_deadline_may_be_a_moment_or_a_wait() -> None:
    moment = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert deadline_to_ms(None, _NOW, repeatable=True) is None
    assert deadline_to_ms(moment, _NOW, repeatable=True) == int(moment.timestamp() * 1000)
    assert deadline_to_ms(timedelta(minutes=1), _NOW, repeatable=False) == int(moment.timestamp() * 1000)


@pytest.mark.parametrize(
    ("deadline", "repeatable"),
    [
        (datetime(2026, 1, 1), False),  # noqa: DTZ001
        (timedelta(0), False),
        (timedelta(seconds=-1), False),
        (timedelta(seconds=1), True),
    ],
)
def test_a_deadline_that_means_nothing_or_moves_is_refused(deadline: datetime | timedelta, repeatable: bool) -> None:
    with pytest.raises(SchemaError) as caught:
        deadline_to_ms(deadline, _NOW, repeatable=repeatable)
    assert caught.value.path == "$.deadline"
