"""Step 6: the fold is queued once by the call that counts the last result, and its own result is stored once."""

from __future__ import annotations

import pytest

from fanfold_schemas import FOLD_INDEX
from tests.sql.support import APPLIED, DUPLICATE, STALE, TOPIC, FanOutSpec, Tables, Worker

F = FanOutSpec(base=(("main", 4),), deadline_ms=77)


@pytest.fixture
def complete(worker: Worker) -> Worker:
    assert worker.completed(*F.results()) == [("f1", 1)]
    return worker


def test_the_fold_is_queued_on_the_topic_of_its_tasks_and_leased_to_whoever_completed(
    complete: Worker, tables: Tables
) -> None:
    rows = tables.rows("select topic, fan_out_id, run, key, value, headers, due_at > now() from fanfold.outbox")
    assert rows == [(TOPIC, "f1", 1, None, None, None, True)]


def test_the_reply_names_the_outbox_row_of_the_fold(worker: Worker, tables: Tables) -> None:
    [done] = worker.commit(F.results()).completed
    assert tables.rows("select outbox_id from fanfold.outbox") == [(done.outbox_id,)]


@pytest.mark.parametrize("without", [{"fold": None}, {"topic": None}], ids=["fold", "topic"])
def test_a_fan_out_without_a_fold_or_a_topic_completes_and_queues_nothing(
    worker: Worker, tables: Tables, without: dict[str, None]
) -> None:
    [done] = worker.commit(F.but(**without).results()).completed
    assert (done.fan_out_id, done.run, done.outbox_id) == ("f1", 1, None)
    assert tables.queued_folds() == []


def test_a_fold_is_applied_once_the_fan_out_is_complete(complete: Worker, tables: Tables) -> None:
    assert complete.outcomes(F.fold_result(payload=b"42")) == [APPLIED]
    assert tables.status(F.task(FOLD_INDEX).task_id) == (1, "done", b"42")
    assert tables.value("select folded_at is not null from fanfold.fan_out")


def test_a_fold_moves_no_countdown(complete: Worker, tables: Tables) -> None:
    before = tables.fan_out()
    complete.commit([F.fold_result()])
    assert tables.fan_out() == before


def test_a_second_fold_is_a_duplicate(complete: Worker, tables: Tables) -> None:
    complete.commit([F.fold_result(payload=b"42")])
    before = tables.fingerprint()
    assert complete.outcomes(F.fold_result(payload=b"43")) == [DUPLICATE]
    assert tables.fingerprint() == before


def test_the_same_fold_twice_in_one_batch_is_applied_once(complete: Worker, tables: Tables) -> None:
    assert complete.outcomes(F.fold_result(payload=b"42"), F.fold_result(payload=b"43")) == [APPLIED, DUPLICATE]
    assert tables.status(F.task(FOLD_INDEX).task_id) == (1, "done", b"42")


def test_a_failed_fold_is_stored_as_such(complete: Worker, tables: Tables) -> None:
    assert complete.outcomes(F.fold_result(payload=None)) == [APPLIED]
    assert tables.status(F.task(FOLD_INDEX).task_id) == (1, "failed", None)
    assert tables.fan_out() == {"remaining": 0, "failed": 0, "run": 1, "complete": True}


def test_a_fold_before_its_fan_out_is_complete_is_stale(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    before = tables.fingerprint()
    assert worker.outcomes(F.fold_result()) == [STALE]
    assert tables.fingerprint() == before


def test_a_fold_in_the_batch_that_completes_its_fan_out_was_published_too_early(worker: Worker, tables: Tables) -> None:
    # Only a database that has gone back can have published it, so it folded results that are not these.
    worker.commit([F.result(0), F.result(1)])
    assert worker.outcomes(F.result(2), F.fold_result()) == [APPLIED, STALE]
    assert tables.queued_folds() == [("f1", 1)]
    assert worker.outcomes(F.fold_result()) == [APPLIED]


def test_a_fold_is_stale_when_its_thread_moved_on(complete: Worker) -> None:
    complete.commit([FanOutSpec(id="f2", base=(("main", 5),)).result(0)])
    assert complete.outcomes(F.fold_result()) == [STALE]


def test_a_fold_of_a_superseded_run_is_stale(complete: Worker, tables: Tables) -> None:
    first = F.task(0).task_id
    assert complete.reopen("f1", first) == 2
    assert complete.outcomes(F.fold_result(run=1)) == [STALE]
    complete.commit([F.result(0, run=2)])
    assert complete.outcomes(F.fold_result(run=1)) == [STALE]
    assert complete.outcomes(F.fold_result(run=3)) == [STALE]
    assert complete.outcomes(F.fold_result(run=2, payload=b"2")) == [APPLIED]
    assert tables.status(F.task(FOLD_INDEX).task_id) == (2, "done", b"2")
    assert complete.outcomes(F.fold_result(run=2)) == [DUPLICATE]


def test_folds_of_two_runs_in_one_batch_leave_the_current_one(complete: Worker, tables: Tables) -> None:
    complete.commit([F.fold_result(payload=b"1")])
    complete.reopen("f1", F.task(0).task_id)
    complete.commit([F.result(0, run=2)])
    assert complete.outcomes(F.fold_result(run=1), F.fold_result(run=2, payload=b"2")) == [STALE, APPLIED]
    assert tables.status(F.task(FOLD_INDEX).task_id) == (2, "done", b"2")


def test_folds_of_many_fan_outs_go_in_one_batch_with_tasks(worker: Worker) -> None:
    specs = [F.but(id=f"f{n}", thread_id=f"t{n % 3}", size=1) for n in range(9)]
    worker.commit([spec.result(0) for spec in specs])
    other = F.but(id="other", thread_id="t1")
    mixed = [result for spec in specs for result in (spec.fold_result(), spec.result(0))]
    outcomes = worker.outcomes(*mixed, other.result(0))
    assert outcomes == [APPLIED, DUPLICATE] * 9 + [APPLIED]
