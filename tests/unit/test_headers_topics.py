"""Header and topic names: what others route, trace and alert by."""

from __future__ import annotations

import pytest

from fanfold_schemas import (
    DEFAULT_TOPIC,
    FanOut,
    SchemaError,
    Task,
    check_topic,
    dead_letter_topic,
    header_text,
    pack_headers,
    task_headers,
    unpack_headers,
)

TASK = Task("task-1", "thread-1", FanOut("fan-out-1", 3, fold="sum"), 0, "work", run=2)


def test_the_headers_of_a_task_are_these() -> None:
    assert task_headers(TASK, source="here", extra={"traceparent": "00-ab-cd-01"}) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"task-1"),
        ("ce_source", b"here"),
        ("ce_type", b"fanfold.task.v1"),
        ("content-type", b"application/vnd.fanfold.task+msgpack; version=1"),
        ("fanfold-thread-id", b"thread-1"),
        ("fanfold-fan-out-id", b"fan-out-1"),
        ("fanfold-node", b"work"),
        ("fanfold-run", b"2"),
        ("traceparent", b"00-ab-cd-01"),
    ]


def test_a_fold_says_so_in_its_type() -> None:
    fold = Task("fold-1", "thread-1", TASK.fan_out, -1, "sum")
    assert header_text(task_headers(fold), "ce_type") == "fanfold.fold.v1"


def test_the_last_of_several_headers_of_one_name_counts() -> None:
    assert header_text([("a", b"1"), ("b", b"x"), ("a", b"2")], "a") == "2"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (None, None),
        ([], None),
        ([("b", b"1")], None),
        ([("a", None)], None),
        ([("a", b"\xff")], None),
        ([("a", b"")], ""),
    ],
)
def test_a_header_that_is_absent_or_no_text_is_none(
    headers: list[tuple[str, bytes | None]] | None, text: str | None
) -> None:
    assert header_text(headers, "a") == text


@pytest.mark.parametrize(
    "stored",
    [
        b"\xc1",
        b"\x01",
        b"\x91\x01",
        b"\x91\x91\xa1a",
        b"\x91\x92\x01\xc4\x00",
        b"\x91\x92\xa1a\x01",
        b"\x91\x92\xa1a\xd4\x01x",
    ],
    ids=repr,
)
def test_stored_headers_of_another_shape_are_refused(stored: bytes) -> None:
    with pytest.raises(SchemaError) as caught:
        unpack_headers(stored)
    assert caught.value.code == "E_FRAME"


def test_a_stored_header_that_another_language_wrote_as_text_is_its_bytes() -> None:
    assert unpack_headers(b"\x91\x92\xa1a\xa2\xc3\xa9") == [("a", b"\xc3\xa9")]


@pytest.mark.parametrize("nothing", [None, b""])
def test_no_stored_headers_are_no_headers(nothing: bytes | None) -> None:
    assert unpack_headers(nothing) == []
    assert unpack_headers(pack_headers(None)) == []


def test_the_default_topic_is_named_by_the_convention_and_so_is_its_dead_letter_topic() -> None:
    assert check_topic(DEFAULT_TOPIC) == "fanfold.tasks.v1"
    assert dead_letter_topic(DEFAULT_TOPIC) == "fanfold.tasks.v1-dlt"


@pytest.mark.parametrize("name", ["a", "a.b_c-D.v9", "x" * 245])
def test_a_topic_name_that_kafka_takes_is_returned(name: str) -> None:
    assert check_topic(name) == name
    assert len(dead_letter_topic(name)) <= 249


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "a\n", "é", "x" * 246])
def test_a_topic_name_that_kafka_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no topic name: 1 to 245 characters"):
        check_topic(name)
