"""What somebody who may write to a topic can do to the fan-outs of others: mostly nothing; what remains is said here.

A record ends as these results, with everything in it as its writer liked; the members that commit them are honest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from uuid import UUID

import pytest

from fanfold_schemas import new_fan_out_id
from fanfold_schemas.limits import INT64_MAX, RUN_MAX
from fanfold_sql import Conflict, Finished
from tests.sql.support import APPLIED, CLOSED, STALE, FanOutSpec, Tables, Worker

# Three tasks of somebody else, of which the first is done; the attacker knows everything about them.
VICTIM = FanOutSpec(id="victim", size=3, thread_id="t1", base=(("main", 5),))
FORGED = b"\x2a"


@pytest.fixture
def victim(worker: Worker) -> FanOutSpec:
    worker.commit([VICTIM.result(0)])
    return VICTIM


@pytest.mark.parametrize(
    "forgery",
    [
        pytest.param(VICTIM.but(size=1).result(0, task_id="mine"), id="a smaller size, to fire at once"),
        pytest.param(VICTIM.but(size=4).result(3), id="a larger size, to fire never"),
        pytest.param(VICTIM.but(quorum=1).result(1), id="a quorum that is reached already"),
        pytest.param(VICTIM.but(fold="other").result(1), id="another fold"),
        pytest.param(VICTIM.but(fold=None).result(1), id="no fold"),
        pytest.param(VICTIM.but(deadline_ms=1).result(1), id="a deadline that has passed"),
        pytest.param(VICTIM.but(thread_id="t2").result(1), id="another thread"),
        pytest.param(VICTIM.but(base=()).result(1), id="another base"),
        pytest.param(VICTIM.result(0, task_id="mine"), id="an index that is done, under another task_id"),
        pytest.param(VICTIM.result(1, task_id=VICTIM.task(0).task_id), id="a task_id that is done, at another index"),
        pytest.param(VICTIM.result(0, arg_hash=8), id="the same task with another arg"),
        pytest.param(VICTIM.result(0, arg_hash=8, run=2), id="the same with a higher run"),
        pytest.param(VICTIM.result(3), id="an index beyond the size"),
        pytest.param(VICTIM.result(-2, task_id="mine"), id="an index below the fold's"),
    ],
)
def test_a_record_that_contradicts_a_fan_out_changes_nothing(
    worker: Worker, tables: Tables, victim: FanOutSpec, forgery: Finished
) -> None:
    before = tables.fingerprint()
    with pytest.raises(Conflict):
        worker.commit([forgery])
    assert tables.fingerprint() == before
    assert worker.completed(victim.result(1), victim.result(2)) == [("victim", 1)]


def test_a_fan_out_fires_after_as_many_different_indexes_as_it_has_whoever_wrote_them(
    worker: Worker, tables: Tables, victim: FanOutSpec
) -> None:
    # Possible: who knows the id may fill a free place. It takes every place to fire, and the real task that finds its
    # own taken is parked, so that it shows.
    assert worker.completed(victim.result(1, task_id="mine", payload=FORGED)) == []
    for _ in range(5):
        assert worker.completed(victim.result(1, task_id="mine", payload=FORGED)) == []
    with pytest.raises(Conflict):
        worker.commit([victim.result(1)])
    assert tables.fan_out("victim") == {"remaining": 1, "failed": 0, "run": 1, "complete": False}
    assert worker.completed(victim.result(2)) == [("victim", 1)]


def test_a_fan_out_that_somebody_else_opened_first_is_not_counted_into(worker: Worker, tables: Tables) -> None:
    # Possible with an id that can be guessed: the first result says what the fan-out is. The real tasks are parked.
    squatted = VICTIM.but(size=1, thread_id="t9")
    assert worker.completed(squatted.result(0, payload=FORGED)) == [("victim", 1)]
    with pytest.raises(Conflict) as parked:
        worker.commit(VICTIM.results())
    assert parked.value.positions == {0, 1, 2}
    assert tables.rows("select thread_id from fanfold.result") == [("t9",)]


def test_fan_out_ids_that_nobody_chose_cannot_be_guessed() -> None:
    ids = [UUID(new_fan_out_id()).int for _ in range(300)]
    varying = reduce(or_, (one ^ ids[0] for one in ids)) & ((1 << 76) - 1)
    assert varying.bit_count() == 74, "12 and 62 random bits behind the time and the version"


@pytest.mark.parametrize("arg_hash", [7, 8])
def test_a_fold_before_its_fan_out_is_complete_is_refused_and_its_handler_not_run(
    worker: Worker, tables: Tables, victim: FanOutSpec, arg_hash: int
) -> None:
    forged = victim.fold_result(payload=FORGED, arg_hash=arg_hash)
    assert worker.check(forged) == ["stale"]
    assert worker.outcomes(forged) == [STALE]
    assert worker.completed(victim.result(1), victim.result(2)) == [("victim", 1)]
    assert tables.queued_folds() == [("victim", 1)]
    assert worker.outcomes(victim.fold_result()) == [APPLIED]


def test_a_fold_of_a_run_that_is_not_the_fan_outs_is_refused(worker: Worker, victim: FanOutSpec) -> None:
    worker.commit([victim.result(1), victim.result(2)])
    for run in (2, RUN_MAX):
        assert worker.check(victim.fold_result(run=run)) == ["stale"]
        assert worker.outcomes(victim.fold_result(run=run, payload=FORGED)) == [STALE]
    assert worker.outcomes(victim.fold_result()) == [APPLIED]


def test_a_fold_that_was_written_by_somebody_else_takes_the_place_of_the_real_one_once(
    worker: Worker, victim: FanOutSpec
) -> None:
    # Possible, and without use: it is the same handler over the same results, which members read from the tables.
    worker.commit([victim.result(1), victim.result(2)])
    assert worker.outcomes(victim.fold_result(task_id="mine")) == [APPLIED]
    with pytest.raises(Conflict):
        worker.commit([victim.fold_result()])


def test_a_huge_run_runs_the_same_task_again_and_counts_nothing_twice(
    worker: Worker, tables: Tables, victim: FanOutSpec
) -> None:
    # Possible: the same handler with the same arg again; another arg is a conflict (above).
    assert worker.outcomes(victim.result(0, run=RUN_MAX, payload=FORGED)) == [APPLIED]
    assert tables.fan_out("victim") == {"remaining": 2, "failed": 0, "run": 1, "complete": False}
    assert worker.completed(victim.result(1), victim.result(2)) == [("victim", 1)]
    assert worker.completed(victim.result(1, run=RUN_MAX), victim.result(2, run=RUN_MAX)) == []


def test_a_base_far_in_the_future_ends_the_thread_it_names_and_no_other(
    worker: Worker, tables: Tables, victim: FanOutSpec
) -> None:
    # Possible: whoever may write may supersede. It takes a thread's id; a database of one's own prevents it.
    other = FanOutSpec(id="other", thread_id="t2", base=(("main", 1),))
    worker.commit([other.result(0)])
    far = FanOutSpec(id="attack", thread_id="t1", base=(("main", INT64_MAX),))
    assert worker.outcomes(far.result(0)) == [APPLIED]
    assert worker.outcomes(victim.result(1)) == [STALE]
    assert tables.clock("t1") == {"main": INT64_MAX}
    assert worker.outcomes(other.result(1)) == [APPLIED]
    # What is derived from the thread as it is now goes on, and a cancel by its owner ends the attacker's.
    assert worker.outcomes(FanOutSpec(id="next", thread_id="t1", base=(("main", INT64_MAX),)).result(0)) == [APPLIED]
    assert worker.cancel("attack") == "cancelled"
    assert worker.outcomes(far.result(1)) == [CLOSED]


def test_a_record_on_another_topic_of_the_same_database_counts_as_well(
    worker: Worker, make_worker: Callable[[], Worker], victim: FanOutSpec
) -> None:
    # Possible: one database is one trust domain. Topics of others belong into a database of their own.
    elsewhere = victim.but(topic="another.topic")
    assert make_worker().outcomes(elsewhere.result(1)) == [APPLIED]
