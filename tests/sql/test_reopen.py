"""reopen_fan_out: tasks run again under a higher run, and the fold after them, once."""

from __future__ import annotations

import pytest

from fanfold_schemas import FOLD_INDEX
from fanfold_sql import StoreRejected
from tests.sql.support import APPLIED, CLOSED, DUPLICATE, STALE, FanOutSpec, Tables, Worker

F = FanOutSpec()
IDS = [F.task(index).task_id for index in range(3)]


@pytest.fixture
def folded(worker: Worker) -> Worker:
    worker.commit(F.results())
    worker.commit([F.fold_result()])
    return worker


def test_an_unknown_fan_out_has_nothing_to_reopen(worker: Worker) -> None:
    assert worker.reopen("unknown", "a") is None


def test_a_partial_rerun_waits_for_its_tasks_then_queues_one_fold_of_the_new_run(
    folded: Worker, tables: Tables
) -> None:
    assert folded.reopen("f1", IDS[0], IDS[2]) == 2
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 2, "complete": False}
    assert folded.completed(F.result(0, run=2)) == []
    assert folded.completed(F.result(2, run=2)) == [("f1", 2)]
    assert tables.queued_folds() == [("f1", 1), ("f1", 2)]
    assert folded.outcomes(F.fold_result(run=2, payload=b"2")) == [APPLIED]
    assert tables.status(F.task(FOLD_INDEX).task_id) == (2, "done", b"2")


def test_a_reopened_task_is_pending_and_only_a_higher_run_settles_it(folded: Worker, tables: Tables) -> None:
    folded.reopen("f1", IDS[0])
    status = tables.status(IDS[0])
    assert status is not None
    assert status[:2] == (1, "pending")
    assert folded.outcomes(F.result(0, run=1)) == [DUPLICATE]
    assert folded.outcomes(F.result(0, run=2, payload=b"2")) == [APPLIED]
    assert tables.status(IDS[0]) == (2, "done", b"2")


def test_a_pending_result_is_read_without_its_old_payload(folded: Worker) -> None:
    folded.reopen("f1", IDS[0])
    rows = folded.connection.execute("select index, status, payload from fanfold.read_results('f1', -1, 9)").fetchall()
    assert rows == [(0, "pending", None), (1, "done", b"\x01"), (2, "done", b"\x01")]


def test_reopening_twice_before_anything_ran_gives_the_same_run(folded: Worker, tables: Tables) -> None:
    assert folded.reopen("f1", IDS[0]) == 2
    assert folded.reopen("f1", IDS[0]) == 2
    assert tables.fan_out() == {"remaining": 1, "failed": 0, "run": 2, "complete": False}
    assert folded.completed(F.result(0, run=2)) == [("f1", 2)]


def test_reopening_more_tasks_of_a_reopened_fan_out_joins_its_run(folded: Worker, tables: Tables) -> None:
    assert folded.reopen("f1", IDS[0]) == 2
    assert folded.reopen("f1", IDS[0], IDS[1]) == 2
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 2, "complete": False}
    assert folded.completed(F.result(0, run=2), F.result(1, run=2)) == [("f1", 2)]


def test_a_task_that_ran_again_already_gets_a_run_of_its_own_when_reopened_again(
    folded: Worker, tables: Tables
) -> None:
    assert folded.reopen("f1", IDS[0], IDS[1]) == 2
    folded.commit([F.result(0, run=2)])
    assert folded.reopen("f1", IDS[0]) == 3
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 3, "complete": False}
    assert folded.outcomes(F.result(0, run=3), F.result(1, run=2)) == [APPLIED, APPLIED]
    assert tables.queued_folds() == [("f1", 1), ("f1", 3)]


def test_a_fan_out_is_reopened_run_after_run(folded: Worker, tables: Tables) -> None:
    for run in (2, 3, 4):
        assert folded.reopen("f1", *IDS) == run
        assert folded.completed(*F.results(run=run)) == [("f1", run)]
        assert folded.outcomes(F.fold_result(run=run)) == [APPLIED]
    assert tables.queued_folds() == [("f1", run) for run in (1, 2, 3, 4)]


def test_a_failed_task_is_no_longer_counted_as_failed_while_it_waits(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0), F.failure(1), F.failure(2)])
    assert worker.reopen("f1", IDS[1]) == 2
    assert tables.fan_out() == {"remaining": 1, "failed": 1, "run": 2, "complete": False}
    assert worker.completed(F.result(1, run=2)) == [("f1", 2)]
    assert tables.fan_out() == {"remaining": 0, "failed": 1, "run": 2, "complete": True}


def test_a_rerun_may_fail_and_still_completes(folded: Worker, tables: Tables) -> None:
    folded.reopen("f1", IDS[0])
    assert folded.completed(F.failure(0, run=2)) == [("f1", 2)]
    assert tables.fan_out() == {"remaining": 0, "failed": 1, "run": 2, "complete": True}


def test_an_open_fan_out_gives_its_finished_tasks_a_higher_run_and_completes_under_it(
    worker: Worker, tables: Tables
) -> None:
    worker.commit([F.result(0)])
    assert worker.reopen("f1", IDS[0]) == 2
    assert worker.completed(F.result(0, run=2), F.result(1), F.result(2)) == [("f1", 2)]
    assert tables.queued_folds() == [("f1", 2)]


def test_a_task_without_a_result_is_left_alone_and_keeps_the_run_of_an_open_fan_out(
    worker: Worker, tables: Tables
) -> None:
    worker.commit([F.result(0)])
    before = tables.fingerprint()
    assert worker.reopen("f1", IDS[1]) == 1
    assert tables.fingerprint() == before
    assert worker.outcomes(F.result(1)) == [APPLIED]


def test_task_ids_nobody_knows_change_nothing(folded: Worker, tables: Tables) -> None:
    before = tables.fingerprint()
    folded.reopen("f1", "nobody")
    folded.reopen("f1")
    assert tables.fingerprint() == before


def test_the_fold_itself_is_not_reopened_as_a_task(folded: Worker, tables: Tables) -> None:
    before = tables.fingerprint()
    folded.reopen("f1", F.task(FOLD_INDEX).task_id)
    assert tables.fingerprint() == before


def test_a_task_of_another_fan_out_of_the_thread_is_not_touched(folded: Worker, tables: Tables) -> None:
    other = F.but(id="f2")
    folded.commit(other.results())
    before = tables.fan_out("f2")
    folded.reopen("f1", other.task(0).task_id, IDS[0])
    assert tables.fan_out("f2") == before
    assert tables.status(other.task(0).task_id) == (1, "done", b"\x01")


def test_a_late_first_result_of_a_reopened_fan_out_is_counted(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0), F.result(1)])
    worker.reopen("f1", IDS[0])
    assert worker.completed(F.result(2), F.result(0, run=2)) == [("f1", 2)]


class TestAQuorum:
    Q = FanOutSpec(size=4, quorum=2)

    def test_it_closes_again_after_the_rerun(self, worker: Worker, tables: Tables) -> None:
        worker.commit([self.Q.result(0), self.Q.result(1)])
        assert worker.reopen("f1", self.Q.task(0).task_id) == 2
        assert tables.fan_out() == {"remaining": 3, "failed": 0, "run": 2, "complete": False}
        assert worker.completed(self.Q.result(0, run=2)) == [("f1", 2)]
        assert worker.outcomes(self.Q.result(2)) == [CLOSED]

    def test_a_new_success_may_take_the_place_of_a_reopened_one(self, worker: Worker) -> None:
        worker.commit([self.Q.result(0), self.Q.result(1)])
        worker.reopen("f1", self.Q.task(0).task_id)
        assert worker.completed(self.Q.result(2)) == [("f1", 2)]
        assert worker.outcomes(self.Q.result(0, run=2)) == [APPLIED]

    def test_it_completes_though_the_rerun_fails(self, worker: Worker) -> None:
        worker.commit([self.Q.failure(0), self.Q.result(1), self.Q.result(2)])
        worker.reopen("f1", self.Q.task(0).task_id)
        assert worker.completed(self.Q.failure(0, run=2)) == [("f1", 2)]

    def test_a_task_it_refused_is_refused_again(self, worker: Worker) -> None:
        worker.commit([self.Q.result(0), self.Q.result(1)])
        run = worker.reopen("f1", self.Q.task(3).task_id)
        assert run == 2
        assert worker.outcomes(self.Q.result(3, run=run)) == [CLOSED]


def test_a_fan_out_whose_thread_moved_on_is_not_reopened_because_it_could_never_close_again(
    folded: Worker, tables: Tables
) -> None:
    based = FanOutSpec(id="b", size=1, base=(("main", 1),))
    folded.commit(based.results())
    folded.commit([FanOutSpec(id="n", size=1, base=(("main", 2),)).result(0)])
    before = tables.fingerprint()
    run = folded.reopen("b", based.task(0).task_id)
    assert run == 2
    assert folded.outcomes(based.result(0, run=2)) == [STALE]
    assert tables.fingerprint() == before


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_snapshot_older_than_the_lock_is_refused(folded: Worker, level: str) -> None:
    folded.connection.execute(f"set default_transaction_isolation = '{level}'".encode())
    with pytest.raises(StoreRejected, match="needs READ COMMITTED") as caught:
        folded.reopen("f1", IDS[0])
    assert caught.value.sqlstate == "ZF004"
