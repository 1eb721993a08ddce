"""The parts of an audit that need no server: what was seen, how far groups are, what a record came to."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fanfold_consumer.audit.judge import Fate, Read, judge
from fanfold_consumer.audit.progress import Passed
from fanfold_consumer.audit.seen import CompactSet, InPart, bits_of, ranges_text
from fanfold_consumer.replay.log_reader import LogRecord
from fanfold_schemas import FanOut, Task, pack_headers
from fanfold_sql import AuditedTask, Islands, PartitionState

TASK = Task("task", "t1", FanOut("f1", 2), 0, "work")
RECORD = LogRecord(0, 5, b"key", b"value", [("name", b"header")])
READ = Read(0, 5, 0, b"key", TASK, 7)
NOTHING = AuditedTask(None, None, False, None, None, None, False)
DONE = AuditedTask("done", 1, True, datetime(2026, 1, 1, tzinfo=UTC), None, None, False)


def sha256(part: bytes) -> bytes:
    return hashlib.sha256(part).digest()


LETTER = sha256(b"key"), sha256(b"value"), sha256(pack_headers(RECORD.headers))


def state(group: str, next_offset: int | None, islands: Islands = (), partition: int = 0) -> PartitionState:
    return PartitionState(1, group, "c", "t", "id", partition, 1, None, next_offset, islands, 0, None, None, None)


def test_a_compact_set_has_what_was_added_and_nothing_else() -> None:
    names = [f"fan-out-{n}" for n in range(20_000)]
    found = CompactSet()
    assert all(found.add(name) for name in names)
    assert not any(found.add(name) for name in names)
    assert len(found) == len(names)
    assert all(name in found for name in names)
    assert not any(f"other-{n}" in found for n in range(20_000))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_a_fan_out_is_whole_once_every_index_was_seen_in_whatever_order(size: int) -> None:
    part = InPart("t1", size)
    order = list(range(size))
    random.Random(size).shuffle(order)
    for index in order:
        assert not part.is_whole
        assert part.note(index, 1)
        assert not part.note(index, 1)
    assert part.is_whole
    assert part.bits() == bits_of(((0, size),))


def test_indexes_are_written_as_ranges_of_a_bounded_number() -> None:
    assert ranges_text(bits_of(((3, 4), (7, 10)))) == "3, 7..9"
    assert ranges_text(0) == ""
    assert ranges_text(bits_of(tuple((n, n + 1) for n in range(0, 100, 2)))).endswith(", 18, ...")


def test_a_record_is_passed_when_every_group_is_done_with_it() -> None:
    passed = Passed([state("a", 3, ((5, 7),)), state("b", 6)])
    assert [offset for offset in range(9) if passed.passed(0, offset)] == [0, 1, 2, 5]
    assert not passed.passed(1, 0)
    assert (passed.first_open(0, 0), passed.first_open(0, 4), passed.first_open(1, 2)) == (3, 4, 2)


def test_nothing_is_passed_without_a_group_or_by_one_that_finished_nothing() -> None:
    assert not Passed([]).passed(0, 0)
    assert not Passed([state("a", 9), state("b", None)]).passed(0, 0)


@pytest.mark.parametrize(
    ("stored", "verdict", "passed", "fate"),
    [
        (NOTHING, None, True, "open"),
        (NOTHING, None, False, "waiting"),
        (NOTHING, "stale", True, "refused"),
        (NOTHING, "closed", False, "refused"),
        (NOTHING, "conflict", True, "conflicting"),
        (NOTHING, "conflict", False, "waiting"),
        (replace(NOTHING, holder="other"), None, True, "conflicting"),
        (replace(NOTHING, letter=LETTER), None, True, "dead"),
        (replace(NOTHING, letter=(None, LETTER[1], LETTER[2])), None, True, "altered"),
        (DONE, "duplicate", True, "done"),
        (DONE, "stale", True, "done"),
        (DONE, None, False, "done"),
        (replace(DONE, matches=False), "conflict", True, "conflicting"),
        (replace(DONE, status="pending"), "duplicate", True, "open"),
        (replace(DONE, status="pending"), "closed", True, "refused"),
        (replace(DONE, status="failed"), "duplicate", True, "unexplained"),
        (replace(DONE, status="failed", explained=True), "duplicate", True, "failed"),
    ],
)
def test_what_became_of_a_record(stored: AuditedTask, verdict: str | None, passed: bool, fate: Fate) -> None:
    assert judge(RECORD, READ, verdict, stored, passed=passed, pruned=None) == fate


def test_a_higher_run_than_the_stored_one_is_still_to_come() -> None:
    rerun = replace(READ, task=Task("task", "t1", FanOut("f1", 2), 0, "work", run=2))
    assert judge(RECORD, rerun, None, DONE, passed=True, pruned=None) == "open"


def test_a_record_that_cannot_be_decoded_needs_its_letter_once_it_is_passed() -> None:
    unreadable = replace(READ, task=None)
    assert judge(RECORD, unreadable, None, NOTHING, passed=True, pruned=None) == "undecodable"
    assert judge(RECORD, unreadable, None, NOTHING, passed=False, pruned=None) == "waiting"
    assert judge(RECORD, unreadable, None, replace(NOTHING, letter=LETTER), passed=True, pruned=None) == "dead"


def test_a_failure_from_before_letters_were_pruned_needs_none() -> None:
    failed = replace(DONE, status="failed")
    assert judge(RECORD, READ, "duplicate", failed, passed=True, pruned=datetime(2026, 2, 1, tzinfo=UTC)) == "failed"
    assert (
        judge(RECORD, READ, "duplicate", failed, passed=True, pruned=datetime(2025, 2, 1, tzinfo=UTC)) == "unexplained"
    )
