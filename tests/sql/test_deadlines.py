"""Deadlines: by the clock of the database, once, whoever looks, and never over what was completed in time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from tests.sql.support import APPLIED, CLOSED, STALE, FanOutSpec, Tables, Worker
from tests.support.wait import eventually

PAST_MS, FUTURE_MS = 1_000, 4_000_000_000_000
F = FanOutSpec(size=4, deadline_ms=PAST_MS)
FOLDED = replace(F, on_deadline="fold")


def _state(worker: Worker, fan_out_id: str = "f1") -> tuple[object, ...]:
    return worker.one(
        "select state, ended_by, remaining, failed from fanfold.list_fan_outs(array[%s], null, null, 1)", (fan_out_id,)
    )


def test_one_that_is_to_fail_ends_and_takes_nothing_more(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    assert worker.expire() == [("f1", False)]
    assert _state(worker) == ("failed", "deadline", 3, 0)
    assert worker.check(F.result(1)) == ["closed"]
    assert worker.commit([F.result(1)]).outcomes == [CLOSED]
    assert tables.rows("select * from fanfold.outbox") == []


def test_one_that_is_to_fold_is_complete_with_what_it_has(worker: Worker, tables: Tables) -> None:
    worker.commit([FOLDED.result(0), FOLDED.failure(2)])
    assert worker.expire() == [("f1", True)]
    assert _state(worker) == ("folding", None, 2, 1)
    assert tables.rows("select fan_out_id, run, due_at <= now() from fanfold.outbox") == [("f1", 1, True)]
    assert worker.check(FOLDED.result(1), FOLDED.result(0), FOLDED.fold_result()) == ["closed", "duplicate", None]
    assert worker.commit([FOLDED.result(1), FOLDED.fold_result()]).outcomes == [CLOSED, APPLIED]
    assert _state(worker) == ("done", None, 2, 1)


def test_another_task_id_at_an_index_that_is_taken_is_still_a_conflict(worker: Worker) -> None:
    worker.commit(FOLDED.results())
    assert worker.check(FOLDED.result(1, task_id="other")) == [None]
    with pytest.raises(Exception, match="contradict"):
        worker.commit([FOLDED.result(1, task_id="other")])


def test_a_second_look_finds_nothing_to_do(worker: Worker) -> None:
    worker.commit([F.result(0)])
    assert worker.expire()
    assert worker.expire() == []


def test_a_deadline_to_come_ends_nothing(worker: Worker, tables: Tables) -> None:
    worker.commit([replace(F, deadline_ms=FUTURE_MS).result(0)])
    assert worker.expire() == []
    assert tables.rows("select fan_out_id from fanfold.deadline") == [("f1",)]


def test_a_deadline_beyond_all_calendars_is_never(worker: Worker, tables: Tables) -> None:
    worker.commit([replace(F, deadline_ms=2**63 - 1).result(0)])
    assert tables.rows("select due_at < now() from fanfold.deadline") == [(False,)]


@pytest.mark.parametrize("spec", [F, FOLDED], ids=["fail", "fold"])
def test_what_was_complete_cancelled_or_stale_before_is_left_alone(
    worker: Worker, tables: Tables, spec: FanOutSpec
) -> None:
    worker.commit(replace(spec, id="complete", thread_id="t2").results())
    worker.commit([replace(spec, id="cancelled", thread_id="t3").result(0)])
    worker.cancel("cancelled")
    worker.commit([replace(spec, id="stale", thread_id="t4", base=(("main", 1),)).result(0)])
    worker.one("select fanfold.advance_thread('t4', '{\"main\": 2}')")
    before = tables.rows("select * from fanfold.fan_out order by 1")
    assert worker.expire() == []
    assert tables.rows("select * from fanfold.fan_out order by 1") == before
    assert tables.rows("select * from fanfold.deadline") == []


def test_one_that_was_reopened_waits_for_whoever_reopened_it(worker: Worker, tables: Tables) -> None:
    spec = replace(F, deadline_ms=FUTURE_MS)
    worker.commit(spec.results())
    run = worker.reopen("f1", spec.task(0).task_id)
    assert run == 2
    tables.connection.execute("update fanfold.deadline set due_at = now()")
    assert worker.expire() == []
    assert _state(worker)[0] == "open"


def test_a_rerun_after_it_waits_for_the_missing_ones_too(worker: Worker, tables: Tables) -> None:
    worker.commit([FOLDED.result(0), FOLDED.failure(1)])
    worker.expire()
    run = worker.reopen("f1", FOLDED.task(1).task_id) or 0
    assert worker.expire() == []
    assert worker.commit([FOLDED.result(1, run=run), FOLDED.result(2)]).completed == []
    assert worker.commit([FOLDED.result(3)]).completed[0].run == run
    assert _state(worker)[:3] == ("folding", None, 0)


def test_one_that_failed_by_it_cannot_be_reopened(worker: Worker) -> None:
    worker.commit([F.result(0)])
    worker.expire()
    worker.reopen("f1", F.task(0).task_id)
    assert _state(worker) == ("failed", "deadline", 3, 0)


class TestOpenedAhead:
    def test_a_fan_out_without_any_result_ends_too(self, worker: Worker, tables: Tables) -> None:
        worker.open(FOLDED.task(3))
        assert _state(worker) == ("open", None, 4, 0)
        assert worker.expire() == [("f1", True)]
        assert tables.rows("select fan_out_id from fanfold.outbox") == [("f1",)]
        assert worker.commit([FOLDED.result(3), FOLDED.fold_result()]).outcomes == [CLOSED, APPLIED]

    def test_it_moves_the_clock_as_a_first_result_would(self, worker: Worker) -> None:
        worker.open(replace(F, base=(("main", 4),)).task(0))
        assert worker.one("select clock from fanfold.read_thread('t1')") == ({"main": 4},)
        assert worker.commit([replace(F, id="f0", base=(("main", 3),)).result(0)]).outcomes == [STALE]

    def test_again_and_contradicting_it_changes_nothing(self, worker: Worker, tables: Tables) -> None:
        worker.open(F.task(0))
        before = tables.rows("select * from fanfold.fan_out"), tables.rows("select * from fanfold.deadline")
        worker.open(F.task(1))
        worker.open(replace(F, size=9, deadline_ms=FUTURE_MS).task(1))
        assert before == (tables.rows("select * from fanfold.fan_out"), tables.rows("select * from fanfold.deadline"))

    def test_one_that_is_stale_opens_nothing(self, worker: Worker, tables: Tables) -> None:
        worker.one("select fanfold.advance_thread('t1', '{\"main\": 2}')")
        worker.open(replace(F, base=(("main", 1),)).task(0))
        assert tables.rows("select * from fanfold.fan_out") == []
        assert tables.rows("select * from fanfold.deadline") == []


class TestManyAtOnce:
    def test_no_more_than_the_limit_are_taken_and_the_rest_stays(self, worker: Worker) -> None:
        worker.commit([replace(F, id=f"f{number}", thread_id=f"t{number}").result(0) for number in range(5)])
        assert [len(worker.expire(2)) for _ in range(4)] == [2, 2, 1, 0]

    def test_two_members_at_once_end_each_fan_out_once_and_neither_waits(
        self, worker: Worker, make_worker: Callable[[], Worker]
    ) -> None:
        worker.commit([F.result(0)])
        other = make_worker()
        with worker.connection.transaction():
            assert worker.expire() == [("f1", False)]
            other.connection.execute("set lock_timeout = '5s'")
            assert other.expire() == []
        assert other.expire() == []

    def test_a_commit_under_way_is_counted_before_the_deadline(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        spec = replace(F, size=2)
        worker.commit([spec.result(0)])
        other = make_worker()
        with ThreadPoolExecutor(1) as pool:
            with worker.connection.transaction():
                worker.commit([spec.result(1)])
                sweep = pool.submit(other.expire)
                waiting = "select wait_event_type from pg_stat_activity where pid = %s"
                pid = other.connection.info.backend_pid
                eventually(lambda: tables.rows(waiting, pid) == [("Lock",)], what="a sweep that waits for the thread")
            assert sweep.result(20) == []
        assert _state(worker)[:3] == ("folding", None, 0)

    def test_a_repeatable_read_transaction_is_refused(self, worker: Worker) -> None:
        worker.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.Error, match="READ COMMITTED"), worker.connection.transaction():
            worker.expire()
