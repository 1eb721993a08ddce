"""ZF003: what contradicts the tables is refused with its position, and nothing of its batch is stored."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_schemas import FOLD_INDEX
from fanfold_sql import Conflict, Finished
from tests.sql.support import APPLIED, DUPLICATE, FanOutSpec, Tables, Worker

F = FanOutSpec()


def _conflicts(worker: Worker, tables: Tables, *results: Finished) -> list[int]:
    """Positions of the conflicts, having made sure that nothing was stored and that the rest can be."""
    before = tables.fingerprint()
    with pytest.raises(Conflict) as caught:
        worker.commit(results)
    assert tables.fingerprint() == before
    rest = [result for position, result in enumerate(results) if position not in caught.value.positions]
    worker.commit(rest)
    return sorted(caught.value.positions)


def test_the_same_task_with_another_arg_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    assert _conflicts(worker, tables, F.result(1), F.result(0, arg_hash=8)) == [1]


def test_another_arg_is_a_conflict_at_a_higher_run_too(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    assert _conflicts(worker, tables, F.result(0, arg_hash=8, run=2)) == [0]


def test_the_same_task_under_another_index_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0, task_id="a")])
    assert _conflicts(worker, tables, F.result(1, task_id="a")) == [0]


def test_another_task_under_a_taken_index_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0, task_id="a")])
    assert _conflicts(worker, tables, F.result(0, task_id="b"), F.result(1)) == [0]


def test_two_tasks_under_one_index_in_one_batch_are_a_conflict_of_the_second(worker: Worker, tables: Tables) -> None:
    assert _conflicts(worker, tables, F.result(0, task_id="a"), F.result(0, task_id="b")) == [1]


def test_one_task_under_two_indexes_in_one_batch_is_a_conflict_of_the_second(worker: Worker, tables: Tables) -> None:
    assert _conflicts(worker, tables, F.result(0, task_id="a"), F.result(1, task_id="a")) == [1]


def test_a_task_whose_index_is_taken_in_the_batch_is_not_taken_for_applied_under_its_other_index(
    worker: Worker, tables: Tables
) -> None:
    results = [F.result(0, task_id="a"), F.result(0, task_id="b"), F.result(1, task_id="b")]
    assert _conflicts(worker, tables, *results) == [1]


def test_one_task_with_two_args_in_one_batch_is_a_conflict_of_the_second(worker: Worker, tables: Tables) -> None:
    assert _conflicts(worker, tables, F.result(0), F.result(0, arg_hash=8)) == [1]


def test_a_task_id_of_another_fan_out_of_the_thread_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0, task_id="a")])
    assert _conflicts(worker, tables, F.but(id="f2").result(0, task_id="a")) == [0]


@pytest.mark.parametrize("index", [3, 4, 99_999])
def test_an_index_outside_the_fan_out_is_a_conflict(worker: Worker, tables: Tables, index: int) -> None:
    assert _conflicts(worker, tables, F.result(0), F.result(index)) == [1]


def test_an_index_below_the_folds_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit(F.results())
    assert _conflicts(worker, tables, F.result(-2)) == [0]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 4},
        {"fold": "max"},
        {"fold": None},
        {"base": (("main", 1),)},
        {"thread_id": "t2"},
        {"quorum": 2},
        {"deadline_ms": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
class TestAFanOutThatDiffers:
    def test_from_the_stored_one_is_a_conflict(self, worker: Worker, tables: Tables, changes: dict[str, Any]) -> None:
        worker.commit([F.result(0)])
        assert _conflicts(worker, tables, F.result(1), F.but(**changes).result(2)) == [1]

    def test_within_a_batch_is_a_conflict_of_the_later_entry(
        self, worker: Worker, tables: Tables, changes: dict[str, Any]
    ) -> None:
        # Both are new to the database, so the first of them decides what the fan-out is.
        results = [F.result(1), F.but(**changes).result(2), F.result(0)]
        assert _conflicts(worker, tables, *results) == [1]


def test_fan_outs_that_differ_only_in_where_they_came_from_agree(worker: Worker) -> None:
    moved = F.but(topic="elsewhere")
    assert worker.outcomes(F.result(0), moved.result(1)) == [APPLIED, APPLIED]


def test_a_base_written_in_another_order_is_the_same_base(worker: Worker, tables: Tables) -> None:
    one, other = F.but(base=(("a", 1), ("b", 2))), F.but(base=(("b", 2), ("a", 1)))
    assert worker.outcomes(one.result(0), other.result(1), one.result(2)) == [APPLIED] * 3
    assert tables.queued_folds() == [("f1", 1)]


def test_a_batch_is_stored_once_its_conflicts_are_taken_out(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    results = [F.result(0, arg_hash=8), F.result(1), F.result(7), F.result(2), F.result(0)]
    with pytest.raises(Conflict) as caught:
        worker.commit(results)
    assert caught.value.positions == {0, 2}
    assert worker.outcomes(results[1], results[3], results[4]) == [APPLIED, APPLIED, DUPLICATE]
    assert tables.queued_folds() == [("f1", 1)]


def test_a_fold_under_another_task_id_than_the_stored_one_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit(F.results())
    worker.commit([F.fold_result()])
    assert _conflicts(worker, tables, F.fold_result(task_id="forged")) == [0]


def test_a_fold_with_another_arg_than_the_stored_one_is_a_conflict(worker: Worker, tables: Tables) -> None:
    worker.commit(F.results())
    worker.commit([F.fold_result()])
    assert _conflicts(worker, tables, F.fold_result(arg_hash=8)) == [0]


@pytest.mark.parametrize("second", [{"task_id": "forged"}, {"arg_hash": 8}], ids=["task_id", "arg"])
def test_two_folds_in_one_batch_that_differ_are_a_conflict_of_the_second(
    worker: Worker, tables: Tables, second: dict[str, Any]
) -> None:
    worker.commit(F.results())
    assert _conflicts(worker, tables, F.fold_result(), F.fold_result(**second)) == [1]


def test_a_task_under_the_folds_task_id_is_a_conflict_for_the_fold(worker: Worker, tables: Tables) -> None:
    fold_id = F.task(FOLD_INDEX).task_id
    worker.commit([F.result(0, task_id=fold_id), F.result(1), F.result(2)])
    assert _conflicts(worker, tables, F.fold_result()) == [0]
    # The fan-out's own fold can then never be stored; parking it is what tells the operator.
    assert tables.queued_folds() == [("f1", 1)]


def test_a_conflict_names_what_to_do_and_how_many(worker: Worker) -> None:
    with pytest.raises(Conflict, match="1 of 2 results contradict what is stored"):
        worker.commit([F.result(0), F.result(3)])
