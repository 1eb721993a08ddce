"""What the outbox holds, as records."""

from __future__ import annotations

from dataclasses import replace

from fanfold_consumer.relay import fold_record, row_record
from fanfold_schemas import (
    FOLD_INDEX,
    FanOut,
    decode_task,
    derive_fold_task_id,
    header_text,
    pack_headers,
    task_headers,
)
from fanfold_sql import FoldOf, OutboxRecord, OutboxRow

_FOLD = FoldOf(
    FanOut("f1", 3, "merge", 2, 1_900_000_000_000, 1, "fold"),
    run=2,
    thread_id="t1",
    base={"main": 4, "tools:7": 1},
)


def test_a_fold_record_is_the_fold_task_of_its_fan_out() -> None:
    record = fold_record("tasks.v1", _FOLD)
    task = decode_task(record.value)
    assert task.task_id == derive_fold_task_id("f1")
    assert task.fan_out == _FOLD.fan_out
    assert (task.thread_id, task.node, task.index, task.arg) == ("t1", "merge", FOLD_INDEX, None)
    assert (task.base, task.run, task.attempt) == ({"main": 4, "tools:7": 1}, 2, 1)
    assert task.is_fold


def test_a_fold_record_without_quorum_and_deadline_has_neither() -> None:
    record = fold_record("tasks.v1", replace(_FOLD, fan_out=FanOut("f1", 3, "merge"), base={}))
    task = decode_task(record.value)
    assert task.fan_out == FanOut("f1", 3, "merge")
    assert task.base == {}


def test_a_fold_record_is_keyed_by_its_thread_and_has_the_headers_of_a_task() -> None:
    record = fold_record("tasks.v1", _FOLD)
    assert (record.topic, record.key, record.partition) == ("tasks.v1", b"t1", None)
    assert list(record.headers) == task_headers(decode_task(record.value))
    assert header_text(record.headers, "ce_type") == "fanfold.fold.v1"
    assert header_text(record.headers, "fanfold-run") == "2"


def test_a_fold_is_the_same_record_whoever_publishes_it() -> None:
    assert fold_record("tasks.v1", _FOLD) == fold_record("tasks.v1", replace(_FOLD))


def test_the_fold_of_a_later_run_is_the_same_task_at_a_higher_run() -> None:
    earlier, later = (decode_task(fold_record("t", replace(_FOLD, run=run)).value) for run in (1, 2))
    assert earlier.task_id == later.task_id
    assert earlier.run < later.run


def test_a_row_is_the_record_that_it_keeps() -> None:
    headers: list[tuple[str, bytes | None]] = [("a", b"1"), ("a", b""), ("b", None)]
    row = OutboxRow(5, "tasks.v1", b"k", b"v", pack_headers(headers), None)
    record = row_record(row)
    assert (record.topic, record.key, record.value, list(record.headers)) == ("tasks.v1", b"k", b"v", headers)


def test_a_row_may_have_no_key_no_headers_and_no_value() -> None:
    record = row_record(OutboxRow(5, "tasks.v1", None, None, None, None))
    assert (record.key, record.value, list(record.headers)) == (None, None, [])


def test_a_record_on_its_way_into_the_outbox_is_the_same_one() -> None:
    kept = OutboxRecord("tasks.v1-dlt", b"k", b"v", pack_headers([("a", b"1")]), result=4)
    record = row_record(kept)
    assert (record.topic, record.key, record.value, list(record.headers)) == (
        "tasks.v1-dlt",
        b"k",
        b"v",
        [("a", b"1")],
    )
