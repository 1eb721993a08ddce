"""Where a replay starts: what operators type, and what becomes of it. No server needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest

from fanfold_consumer.admin import TopicFacts, current_partitions, partition_rows
from fanfold_consumer.cli.prune import parse_age
from fanfold_consumer.cli.render import brief
from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_consumer.replay.log_reader import LogRecord
from fanfold_consumer.replay.plan import LogRange, PlannedOffset, plan_offsets
from fanfold_consumer.replay.reset import changes, live_members
from fanfold_consumer.replay.sift import Selection, Sieve, Tally
from fanfold_consumer.replay.targets import (
    FromFile,
    ShiftBy,
    Target,
    ToCurrent,
    ToEarliest,
    ToLatest,
    ToOffset,
    ToTime,
    format_offsets,
    parse_datetime,
    parse_duration,
    parse_offsets,
    parse_partitions,
)
from fanfold_schemas import FanOut, Task, encode_task, task_headers
from fanfold_sql import Islands, PartitionState

LOG = LogRange(low=10, high=100, at_time=42)


def _plan(target: Target, current: Mapping[int, int | None] | None = None) -> PlannedOffset:
    (planned,) = plan_offsets(target, {0: LOG}, {0: 50} if current is None else current)
    return planned


@pytest.mark.parametrize(
    ("target", "next_offset"),
    [
        (ToEarliest(), 10),
        (ToLatest(), 100),
        (ToCurrent(), 50),
        (ToOffset(77), 77),
        (ShiftBy(-20), 30),
        (ShiftBy(20), 70),
        (ToTime(1), 42),
        (FromFile({0: 11}), 11),
    ],
)
def test_a_target_inside_the_log_is_taken_as_it_is(target: Target, next_offset: int) -> None:
    assert _plan(target) == PlannedOffset(0, 50, next_offset, LOG, None)


@pytest.mark.parametrize(
    ("target", "next_offset"),
    [
        (ToOffset(0), 10),
        (ToOffset(101), 100),
        (ShiftBy(-1000), 10),
        (ShiftBy(1000), 100),
        (FromFile({0: 5000}), 100),
    ],
)
def test_a_target_outside_the_log_is_moved_to_its_edge_and_says_so(target: Target, next_offset: int) -> None:
    planned = _plan(target)
    assert planned.next_offset == next_offset
    assert planned.note is not None
    assert str(next_offset) in planned.note


def test_a_group_whose_offset_fell_off_the_log_is_planned_at_its_edge() -> None:
    assert _plan(ToCurrent(), {0: 3}).next_offset == 10


@pytest.mark.parametrize(("target", "next_offset"), [(ToCurrent(), 10), (ShiftBy(5), 15), (ShiftBy(-5), 10)])
def test_a_group_without_progress_stands_at_the_start_of_the_log(target: Target, next_offset: int) -> None:
    planned = _plan(target, {})
    assert (planned.current, planned.next_offset) == (None, next_offset)
    assert planned.note is not None


def test_a_time_after_the_last_record_is_the_end_of_the_log() -> None:
    (planned,) = plan_offsets(ToTime(1), {0: LogRange(10, 100, None)}, {})
    assert planned.next_offset == 100


def test_partitions_that_a_file_does_not_name_are_not_planned() -> None:
    logs = dict.fromkeys(range(4), LOG)
    assert [p.partition for p in plan_offsets(FromFile({3: 20, 1: 30}), logs, {})] == [1, 3]


def test_partitions_of_a_file_that_are_not_to_be_replayed_are_refused() -> None:
    with pytest.raises(ReplayRefused, match="partitions 7, 9"):
        plan_offsets(FromFile({9: 1, 7: 1, 0: 1}), {0: LOG}, {})


@pytest.mark.parametrize(
    ("text", "partitions"), [("0", {0}), ("0,3-5", {0, 3, 4, 5}), (" 2 , 1 - 1 ", {1, 2}), ("4-4", {4})]
)
def test_partitions_are_numbers_and_ranges(text: str, partitions: set[int]) -> None:
    assert parse_partitions(text) == partitions


@pytest.mark.parametrize("text", ["", "a", "1,", "5-3", "-1", "1-", "1-2-3", "0-999999999"])
def test_what_is_no_list_of_partitions_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        parse_partitions(text)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT30M", timedelta(minutes=30)),
        ("P7D", timedelta(days=7)),
        ("P1DT2H3M4.5S", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("P2W", timedelta(weeks=2)),
        ("PT0S", timedelta()),
    ],
)
def test_durations_are_iso_8601(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "P", "PT", "7d", "P1M", "P1Y", "P-1D", "PT1H ", "P1DT", "pt1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-31T12:00:00.250",
        "2030-01-31T12:00:00.250Z",
        "2030-01-31T14:00:00.250+02:00",
    ],
)
def test_a_time_without_a_zone_is_utc(text: str) -> None:
    at = datetime(2030, 1, 31, 12, 0, 0, 250_000, UTC)
    assert parse_datetime(text) == int(at.timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "now", "2030-13-01", "12:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="date"):
        parse_datetime(text)


def test_an_export_reads_back_as_what_it_was() -> None:
    text = format_offsets("orders.v1", [(0, 5), (1, 7)])
    assert text == '"orders.v1",0,5\n"orders.v1",1,7\n'
    assert parse_offsets(text, topic="orders.v1") == {0: 5, 1: 7}


def test_offset_files_of_kafkas_own_tools_are_taken() -> None:
    text = 'orders.v1,0,5\r\n"g","orders.v1",1,7\n\n orders.v1 , 2 , 9 \n'
    assert parse_offsets(text, topic="orders.v1", group="g") == {0: 5, 1: 7, 2: 9}


def test_an_offset_file_is_refused_with_all_its_problems_at_once() -> None:
    text = "other,0,1\nt,0\nt,x,1\nh,t,0,1\nt,0,1\nt,0,2\n"
    with pytest.raises(ValueError, match="line 1") as refused:
        parse_offsets(text, topic="t", group="g")
    assert [f"line {n}" in str(refused.value) for n in range(1, 7)] == [True, True, True, True, False, True]


def test_an_empty_offset_file_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        parse_offsets("\n", topic="t")


@pytest.mark.parametrize(
    ("text", "age"), [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("1w", 604_800), ("P1D", 86_400)]
)
def test_an_age_is_a_number_and_a_unit_or_iso_8601(text: str, age: int) -> None:
    assert parse_age(text).total_seconds() == age


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (61, "1m 1s"), (90_061, "1d 1h"), (-5, "0s"), (3600, "1h")])
def test_durations_are_shown_in_their_two_largest_units(seconds: int, text: str) -> None:
    assert brief(seconds) == text


def _state(
    *,
    next_offset: int | None = 5,
    islands: Islands = (),
    idle_s: float | None = None,
    topic_id: str = "now",
    claimed: int = 1,
) -> PartitionState:
    owner = None if idle_s is None else uuid4()
    claimed_at = datetime(2026, 1, claimed, tzinfo=UTC)
    return PartitionState(1, "g", "c", "t", topic_id, 0, 3, owner, next_offset, islands, 9, claimed_at, None, idle_s)


def test_a_reset_that_would_change_nothing_is_told_from_one_that_would() -> None:
    plan = PlannedOffset(0, 5, 5, LogRange(0, 9))
    assert not changes(plan, _state())
    assert changes(plan, _state(islands=((7, 8),)))
    assert changes(plan, _state(next_offset=6))
    assert changes(plan, _state(next_offset=None))
    assert changes(plan, None)
    assert not changes(PlannedOffset(0, None, 0, LogRange(0, 9)), None)


def test_only_an_owner_that_was_heard_of_lately_is_a_live_member() -> None:
    states = [_state(), _state(idle_s=9.9), _state(idle_s=10.1)]
    assert live_members(states) == [states[1]]


def test_progress_of_earlier_topics_is_told_by_the_topic_id_the_broker_names() -> None:
    old, new = _state(topic_id="then", claimed=2), _state(topic_id="now", claimed=1)
    facts = TopicFacts("c", {"t": "now"}, {("t", 0): 12})
    assert current_partitions([old, new], facts) == [new]
    assert [row.lag for row in partition_rows([old, new], facts)] == [None, 7]


def test_without_a_broker_the_topic_that_turned_up_last_counts_as_the_current_one() -> None:
    old, new = _state(topic_id="then", claimed=1), _state(topic_id="now", claimed=2)
    assert current_partitions([old, new], TopicFacts()) == [new]


TASK = Task("a", "t1", FanOut("f", 2, "collect"), 0, "work")


def _record(task: Task, offset: int = 0) -> LogRecord:
    return LogRecord(0, offset, None, encode_task(task), list(task_headers(task)))


def test_a_rerun_takes_each_task_once_whatever_runs_of_it_the_log_has() -> None:
    tally = Tally()
    later = msgspec.structs.replace(TASK, run=2)
    found = Sieve(Selection(None, rerun=True), tally).sift([_record(TASK), _record(later), _record(TASK)])
    assert [entry.task.run for entry in found] == [1]
    assert tally.repeated == 2


def test_a_repair_takes_every_run_of_a_task_and_folds_too() -> None:
    later = msgspec.structs.replace(TASK, run=2)
    fold = msgspec.structs.replace(TASK, task_id="z", index=-1, node="collect")
    found = Sieve(Selection("t1", rerun=False), Tally()).sift(map(_record, [TASK, later, later, fold]))
    assert [(entry.task.task_id, entry.task.run) for entry in found] == [("a", 1), ("a", 2), ("z", 1)]


def test_a_thread_is_told_by_the_header_and_by_the_record_where_that_is_missing() -> None:
    tally = Tally()
    other = msgspec.structs.replace(TASK, thread_id="t2")
    bare = LogRecord(0, 1, None, encode_task(other), [])
    undecodable = LogRecord(0, 2, None, b"\xc1", [("fanfold-thread-id", b"t1")])
    found = Sieve(Selection("t1", rerun=True), tally).sift([_record(other), bare, undecodable, _record(TASK)])
    assert [entry.task for entry in found] == [TASK]
    assert (tally.records, tally.other_threads, tally.undecodable) == (4, 2, 1)
