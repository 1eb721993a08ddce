"""A quorum: so many successes complete the fan-out, the rest is closed; it never waits for what it refused."""

from __future__ import annotations

import pytest

from tests.sql.support import APPLIED, CLOSED, DUPLICATE, STALE, FanOutSpec, Tables, Worker

F = FanOutSpec(size=5, quorum=2)


def test_the_quorum_completes_the_fan_out_and_the_rest_is_closed(worker: Worker, tables: Tables) -> None:
    assert worker.completed(F.result(3)) == []
    assert worker.completed(F.result(1)) == [("f1", 1)]
    before = tables.fingerprint()
    assert worker.outcomes(F.result(0), F.failure(2), F.result(4)) == [CLOSED, CLOSED, CLOSED]
    assert tables.fingerprint() == before


def test_a_batch_with_more_than_the_quorum_takes_the_first_ones(worker: Worker, tables: Tables) -> None:
    reply = worker.commit([F.result(3), F.result(1), F.result(0), F.result(4)])
    assert reply.outcomes == [APPLIED, APPLIED, CLOSED, CLOSED]
    assert [done.run for done in reply.completed] == [1]
    assert tables.queued_folds() == [("f1", 1)]


def test_what_is_missing_to_the_quorum_is_taken_from_a_batch(worker: Worker) -> None:
    worker.commit([F.result(0)])
    assert worker.outcomes(F.result(1), F.result(2)) == [APPLIED, CLOSED]


def test_failures_do_not_count_towards_the_quorum(worker: Worker, tables: Tables) -> None:
    reply = worker.commit([F.failure(0), F.result(1), F.failure(2)])
    assert (reply.outcomes, reply.completed) == ([APPLIED] * 3, [])
    assert worker.completed(F.failure(3)) == []
    assert worker.completed(F.result(4)) == [("f1", 1)]
    assert tables.fan_out() == {"remaining": 0, "failed": 3, "run": 1, "complete": True}


def test_a_quorum_that_became_impossible_completes_with_the_last_result(worker: Worker) -> None:
    assert worker.completed(*[F.failure(index) for index in range(4)]) == []
    assert worker.completed(F.result(4)) == [("f1", 1)]


def test_duplicates_do_not_use_up_the_quorum(worker: Worker) -> None:
    worker.commit([F.result(0)])
    assert worker.outcomes(F.result(0), F.result(1)) == [DUPLICATE, APPLIED]


def test_duplicates_within_a_batch_do_not_use_up_the_quorum(worker: Worker) -> None:
    outcomes = worker.outcomes(F.result(0), F.result(0), F.result(1), F.result(2))
    assert outcomes == [APPLIED, DUPLICATE, APPLIED, CLOSED]


def test_a_duplicate_of_a_complete_quorum_is_a_duplicate_not_closed(worker: Worker) -> None:
    worker.commit([F.result(0), F.result(1)])
    assert worker.outcomes(F.result(0), F.result(2)) == [DUPLICATE, CLOSED]


def test_failures_and_duplicates_among_successes_leave_room_for_the_quorum(worker: Worker, tables: Tables) -> None:
    batch = [F.failure(0), F.result(1), F.result(1), F.failure(0), F.result(2), F.result(3)]
    assert worker.outcomes(*batch) == [APPLIED, APPLIED, DUPLICATE, DUPLICATE, APPLIED, CLOSED]
    assert tables.fan_out() == {"remaining": 2, "failed": 1, "run": 1, "complete": True}


def test_a_repaired_failure_completes_the_quorum(worker: Worker) -> None:
    worker.commit([F.failure(0), F.result(1)])
    assert worker.completed(F.result(0, run=2)) == [("f1", 1)]


def test_a_stale_fold_does_not_take_the_place_of_a_success(worker: Worker, tables: Tables) -> None:
    one = F.but(quorum=1)
    assert worker.outcomes(one.fold_result(), one.result(0)) == [STALE, APPLIED]
    assert tables.queued_folds() == [("f1", 1)]


def test_a_success_taken_back_by_the_same_batch_leaves_its_place_to_another(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    outcomes = worker.outcomes(F.failure(0, run=2), F.result(1), F.result(2))
    assert outcomes == [APPLIED, APPLIED, APPLIED]
    assert tables.fan_out() == {"remaining": 2, "failed": 1, "run": 1, "complete": True}


def test_a_success_and_its_failing_rerun_in_one_batch_leave_their_place_to_another(
    worker: Worker, tables: Tables
) -> None:
    outcomes = worker.outcomes(F.result(0), F.failure(0, run=2), F.result(1), F.result(2))
    assert outcomes == [APPLIED, APPLIED, APPLIED, APPLIED]
    assert tables.queued_folds() == [("f1", 1)]


def test_an_earlier_failure_of_a_succeeded_task_takes_nothing_back(worker: Worker) -> None:
    worker.commit([F.result(0, run=2)])
    assert worker.outcomes(F.failure(0, run=1), F.result(1), F.result(2)) == [DUPLICATE, APPLIED, CLOSED]


def test_a_failed_run_below_a_successful_one_in_the_same_batch_takes_nothing_back(worker: Worker) -> None:
    batch = [F.result(0), F.result(0, run=3), F.failure(0, run=2), F.result(1), F.result(2)]
    assert worker.outcomes(*batch) == [APPLIED, APPLIED, DUPLICATE, APPLIED, CLOSED]


def test_a_failed_run_before_a_lower_successful_one_in_the_same_batch_takes_nothing_back(worker: Worker) -> None:
    batch = [F.failure(0, run=2), F.result(0, run=1), F.result(1), F.result(2), F.result(3)]
    assert worker.outcomes(*batch) == [APPLIED, DUPLICATE, APPLIED, APPLIED, CLOSED]


def test_quorums_of_several_fan_outs_in_one_batch_are_counted_apart(worker: Worker) -> None:
    other, open_ended = F.but(id="f2", quorum=1), F.but(id="f3", quorum=None)
    batch = [F.result(0), other.result(0), open_ended.result(0), other.result(1), F.result(1), F.result(2)]
    assert worker.outcomes(*batch) == [APPLIED, APPLIED, APPLIED, CLOSED, APPLIED, CLOSED]


def test_a_stale_base_is_stale_before_it_is_closed(worker: Worker) -> None:
    based = F.but(base=(("main", 1),))
    worker.commit([based.result(0), based.result(1)])
    worker.commit([FanOutSpec(id="next", base=(("main", 2),)).result(0)])
    assert worker.outcomes(based.result(2)) == [STALE]


@pytest.mark.parametrize("quorum", [1, 5])
def test_the_smallest_and_the_largest_quorum(worker: Worker, quorum: int) -> None:
    spec = F.but(quorum=quorum)
    assert worker.completed(*[spec.result(index) for index in range(quorum - 1)]) == []
    assert worker.completed(spec.result(4)) == [("f1", 1)]


def test_the_fold_of_a_quorum_is_stored_like_any(worker: Worker) -> None:
    worker.commit([F.result(0), F.result(1)])
    assert worker.outcomes(F.fold_result(), F.result(2)) == [APPLIED, CLOSED]
