"""More failures than a fan-out takes end it: no fold, nothing more is taken, until somebody reopens it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sql.support import APPLIED, CLOSED, DUPLICATE, STALE, FanOutSpec, Tables, Worker

F = FanOutSpec(size=5, max_failures=1)


def _state(worker: Worker, fan_out_id: str = "f1") -> tuple[object, ...]:
    return worker.one(
        "select state, ended_by, remaining, failed from fanfold.list_fan_outs(array[%s], null, null, 1)", (fan_out_id,)
    )


def test_as_many_failures_as_it_takes_do_not_end_it(worker: Worker, tables: Tables) -> None:
    worker.commit([F.failure(0), *(F.result(index) for index in range(1, 4))])
    assert _state(worker) == ("open", None, 1, 1)
    assert worker.commit([F.result(4)]).completed[0].fan_out_id == "f1"


def test_one_failure_more_ends_it_and_no_fold_is_queued(worker: Worker, tables: Tables) -> None:
    worker.commit([F.failure(0), F.result(1)])
    reply = worker.commit([F.failure(2)])
    assert (reply.outcomes, reply.completed) == ([APPLIED], [])
    assert _state(worker) == ("failed", "failures", 2, 2)
    assert tables.rows("select * from fanfold.outbox") == []


def test_what_comes_after_it_ended_is_closed_before_and_in_the_commit(worker: Worker) -> None:
    worker.commit([F.failure(0), F.failure(1)])
    assert worker.check(F.result(2), F.result(0), F.fold_result()) == ["closed", "closed", "closed"]
    assert worker.commit([F.result(2), F.failure(0), F.fold_result()]).outcomes == [CLOSED, CLOSED, CLOSED]
    assert _state(worker) == ("failed", "failures", 3, 2)


def test_results_of_the_batch_that_ends_it_are_all_kept(worker: Worker) -> None:
    reply = worker.commit([F.failure(0), F.failure(1), F.result(2), F.result(3)])
    assert reply.outcomes == [APPLIED] * 4
    assert _state(worker) == ("failed", "failures", 1, 2)


def test_the_last_results_failing_end_it_although_nothing_is_outstanding(worker: Worker, tables: Tables) -> None:
    reply = worker.commit([F.result(0), F.result(1), F.result(2), F.failure(3), F.failure(4)])
    assert reply.completed == []
    assert _state(worker) == ("failed", "failures", 0, 2)


def test_none_of_none_is_the_first_failure(worker: Worker) -> None:
    worker.commit([replace(F, max_failures=0).failure(0)])
    assert _state(worker) == ("failed", "failures", 4, 1)


def test_a_quorum_that_is_reached_by_the_same_batch_comes_first(worker: Worker) -> None:
    spec = replace(F, quorum=2)
    reply = worker.commit([spec.failure(0), spec.failure(1), spec.result(2), spec.result(3)])
    assert [done.fan_out_id for done in reply.completed] == ["f1"]
    assert _state(worker)[:2] == ("folding", None)


def test_a_fan_out_that_is_complete_is_not_ended_by_a_later_run_that_fails(worker: Worker) -> None:
    worker.commit([F.failure(0), *(F.result(index) for index in range(1, 5))])
    assert worker.commit([F.failure(1, run=2), F.failure(2, run=2)]).outcomes == [APPLIED, APPLIED]
    assert _state(worker)[:2] == ("folding", None)


def test_a_batch_equals_its_results_one_by_one_up_to_what_came_after_the_end(worker: Worker) -> None:
    one_by_one = replace(F, id="f2", thread_id="t2")
    results = [F.result(0), F.failure(1), F.failure(2)]
    worker.commit(results)
    for index, failed in ((0, False), (1, True), (2, True)):
        worker.commit([one_by_one.failure(index) if failed else one_by_one.result(index)])
    assert _state(worker) == _state(worker, "f2") == ("failed", "failures", 2, 2)


class TestReopened:
    @pytest.fixture(autouse=True)
    def ended(self, worker: Worker) -> None:
        worker.commit([F.result(0), F.failure(1), F.failure(2)])

    def _reopen(self, worker: Worker, *indexes: int) -> int:
        run = worker.reopen("f1", *(F.task(index).task_id for index in indexes))
        assert run is not None
        return run

    def test_it_waits_for_its_reruns_and_for_what_was_never_run(self, worker: Worker, tables: Tables) -> None:
        run = self._reopen(worker, 1, 2)
        assert _state(worker) == ("open", None, 4, 0)
        assert worker.commit([F.result(3)]).outcomes == [APPLIED]
        assert worker.commit([F.result(1, run=run), F.result(2, run=run)]).completed == []
        assert [done.fan_out_id for done in worker.commit([F.result(4)]).completed] == ["f1"]

    def test_it_ends_again_when_too_many_have_failed_again(self, worker: Worker) -> None:
        run = self._reopen(worker, 1, 2)
        worker.commit([F.failure(1, run=run)])
        assert _state(worker)[:2] == ("open", None)
        worker.commit([F.failure(2, run=run)])
        assert _state(worker)[:2] == ("failed", "failures")

    def test_a_record_of_its_earlier_run_is_known(self, worker: Worker) -> None:
        run = self._reopen(worker, 1, 2)
        worker.commit([F.result(1, run=run)])
        assert worker.commit([F.failure(1)]).outcomes == [DUPLICATE]

    def test_a_fold_from_before_is_stale(self, worker: Worker) -> None:
        self._reopen(worker, 1)
        assert worker.commit([F.fold_result()]).outcomes == [STALE]

    def test_one_that_a_caller_cancelled_since_stays_closed(self, worker: Worker) -> None:
        assert worker.cancel() == "cancelled"
        self._reopen(worker, 1, 2)
        assert _state(worker)[:2] == ("cancelled", None)
