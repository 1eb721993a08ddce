"""cancel_fan_out, cancel_thread, advance_thread: work is ended under the thread's lock, and stays ended."""

from __future__ import annotations

import pytest

from fanfold_sql import Conflict, StoreRejected
from tests.sql.support import APPLIED, CLOSED, STALE, FanOutSpec, Tables, Worker

F = FanOutSpec()


def test_a_cancelled_fan_out_takes_no_further_result_and_changes_no_more(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    assert worker.cancel() == "cancelled"
    before = tables.fingerprint()
    assert worker.check(F.result(0), F.result(1)) == ["closed", "closed"]
    assert worker.outcomes(F.result(0), F.result(1), F.failure(2)) == [CLOSED] * 3
    assert tables.fingerprint() == before


def test_cancelling_twice_keeps_the_moment_of_the_first(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    worker.cancel()
    before = tables.fingerprint()
    assert worker.cancel() == "cancelled"
    assert tables.fingerprint() == before


def test_what_nobody_has_seen_can_be_cancelled_by_its_thread_before_it_begins(worker: Worker, tables: Tables) -> None:
    assert worker.cancel() == "unknown"
    assert worker.cancel("f1", "t1") == "cancelled"
    assert worker.check(F.result(0)) == ["closed"]
    assert worker.outcomes(*F.results()) == [CLOSED] * 3
    assert worker.outcomes(F.but(id="f2").result(0)) == [APPLIED]
    assert tables.rows("select size, remaining from fanfold.fan_out where fan_out_id = 'f1'") == [(0, 0)]


def test_a_fan_out_cancelled_unseen_moves_no_clock(worker: Worker, tables: Tables) -> None:
    worker.cancel("f1", "t1")
    worker.commit([F.but(base=(("main", 3),)).result(0)])
    assert tables.clock() == {}


def test_a_complete_fan_out_without_a_fold_is_done_and_not_cancelled(worker: Worker, tables: Tables) -> None:
    spec = F.but(fold=None)
    worker.commit(spec.results())
    before = tables.fingerprint()
    assert worker.cancel() == "done"
    assert tables.fingerprint() == before


def test_between_completion_and_fold_cancelling_stops_the_fold(worker: Worker) -> None:
    worker.commit(F.results())
    assert worker.cancel() == "cancelled"
    assert worker.check(F.fold_result()) == ["closed"]
    assert worker.outcomes(F.fold_result()) == [CLOSED]


def test_a_folded_fan_out_is_done_and_not_cancelled(worker: Worker) -> None:
    worker.commit(F.results())
    worker.commit([F.fold_result()])
    assert worker.cancel() == "done"


def test_another_thread_than_the_fan_outs_is_refused_and_changes_nothing(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    before = tables.fingerprint()
    with pytest.raises(StoreRejected, match="fan-out f1 is of thread t1, not t2"):
        worker.cancel("f1", "t2")
    assert tables.fingerprint() == before


def test_a_cancelled_fan_out_in_a_batch_leaves_the_others_alone(worker: Worker) -> None:
    worker.commit([F.result(0)])
    worker.cancel()
    other = F.but(id="f2", thread_id="t2")
    assert worker.outcomes(F.result(1), other.result(0), F.result(2), other.result(1)) == [
        CLOSED,
        APPLIED,
        CLOSED,
        APPLIED,
    ]


def test_contradictions_of_a_cancelled_fan_out_are_closed_and_not_parked(worker: Worker) -> None:
    worker.cancel("f1", "t1")
    assert worker.outcomes(F.but(size=9).result(8), F.result(0, arg_hash=8)) == [CLOSED, CLOSED]
    with pytest.raises(Conflict):
        worker.commit([F.but(id="f2").result(0), F.but(id="f2", size=9).result(1)])


def test_reopening_a_cancelled_fan_out_changes_nothing(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    worker.cancel()
    before = tables.fingerprint()
    assert worker.reopen("f1", F.task(0).task_id) == 2
    assert tables.fingerprint() == before


def test_a_cancelled_fan_out_is_listed_as_such_and_pruned_when_old(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    worker.cancel()
    worker.cancel("f9", "t9")
    listed = worker.connection.execute(
        "select fan_out_id, state from fanfold.list_fan_outs(null, null, 'cancelled', 9) order by 1"
    ).fetchall()
    assert listed == [("f1", "cancelled"), ("f9", "cancelled")]
    assert worker.one("select fan_outs, results, threads from fanfold.prune(clock_timestamp(), 10)") == (2, 1, 2)


def test_cancelling_a_thread_ends_what_is_open_and_makes_stale_what_was_derived_from_it(
    worker: Worker, tables: Tables
) -> None:
    base = (("main", 3), ("side", 1))
    done, folding, opened = F.but(id="a", base=base, fold=None), F.but(id="b", base=base), F.but(id="c", base=base)
    worker.commit(done.results())
    worker.commit(folding.results())
    worker.commit([opened.result(0)])
    worker.commit([F.but(id="other", thread_id="t2").result(0)])
    assert worker.one("select clock, fan_out_ids from fanfold.cancel_thread('t1')") == (
        {"main": 4, "side": 2},
        ["b", "c"],
    )
    assert worker.outcomes(opened.result(1), F.but(id="unseen", base=base).result(0)) == [STALE, STALE]
    assert worker.outcomes(F.but(id="next", base=(("main", 4),)).result(0)) == [APPLIED]
    assert worker.outcomes(F.but(id="other", thread_id="t2").result(1)) == [APPLIED]


def test_cancelling_an_unknown_thread_changes_nothing(worker: Worker, tables: Tables) -> None:
    before = tables.fingerprint()
    assert worker.one("select clock, fan_out_ids from fanfold.cancel_thread('t1')") == (None, [])
    assert tables.fingerprint() == before


def test_a_counter_at_its_limit_stays_there(worker: Worker, tables: Tables) -> None:
    worker.commit([F.but(base=(("main", 2**63 - 1),)).result(0)])
    worker.one("select clock from fanfold.cancel_thread('t1')")
    assert tables.clock() == {"main": 2**63 - 1}


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ('{"main": 5}', {"main": 5, "side": 2}),
        ('{"main": 1, "new": 1}', {"main": 3, "side": 2, "new": 1}),
        ("{}", {"main": 3, "side": 2}),
    ],
)
def test_advancing_a_thread_takes_the_larger_counter_of_each_branch(
    worker: Worker, tables: Tables, clock: str, expected: dict[str, int]
) -> None:
    worker.commit([F.but(base=(("main", 3), ("side", 2))).result(0)])
    for _ in range(2):
        assert worker.one("select fanfold.advance_thread('t1', %s::jsonb)", (clock,)) == (expected,)
    assert tables.clock() == expected


def test_advancing_a_thread_makes_the_work_of_the_older_base_stale(worker: Worker) -> None:
    spec = F.but(base=(("main", 3),))
    worker.commit([spec.result(0)])
    assert worker.one("select fanfold.advance_thread('t1', '{\"main\": 4}')") == ({"main": 4},)
    assert worker.outcomes(spec.result(1)) == [STALE]


def test_an_unknown_thread_can_be_advanced_before_anything_of_it_arrives(worker: Worker, tables: Tables) -> None:
    worker.one("select fanfold.advance_thread('t1', '{\"main\": 2}')")
    assert worker.outcomes(F.but(base=(("main", 1),)).result(0), F.but(id="f2", base=(("main", 2),)).result(0)) == [
        STALE,
        APPLIED,
    ]


@pytest.mark.parametrize(
    "call",
    [
        "fanfold.cancel_fan_out('f1', 't1')",
        "fanfold.advance_thread('t1', '{}')",
        "fanfold.cancel_thread('t1')",
    ],
)
def test_a_snapshot_older_than_the_lock_is_refused(worker: Worker, call: str) -> None:
    worker.connection.execute("set default_transaction_isolation = 'repeatable read'")
    with pytest.raises(StoreRejected, match="needs READ COMMITTED") as caught:
        worker.one(f"select {call}")
    assert caught.value.sqlstate == "ZF004"
