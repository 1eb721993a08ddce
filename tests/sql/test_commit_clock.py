"""Step 3: a stale base changes nothing, siblings never collide, the clock is the least upper bound."""

from __future__ import annotations

import pytest

from tests.sql.support import APPLIED, DUPLICATE, STALE, FanOutSpec, Tables, Worker


def _at(fan_out_id: str, size: int = 2, **base: int) -> FanOutSpec:
    return FanOutSpec(id=fan_out_id, size=size, base=tuple(base.items()))


def test_an_empty_base_is_never_stale_and_moves_no_clock(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1", main=9).result(0)])
    assert worker.outcomes(_at("f2").result(0)) == [APPLIED]
    assert tables.clock() == {"main": 9}


def test_an_empty_base_opens_its_thread_at_an_empty_clock(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1").result(0)])
    assert tables.clock() == {}


def test_a_thread_takes_the_base_of_its_first_fan_out(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1", main=3, side=1).result(0)])
    assert tables.clock() == {"main": 3, "side": 1}


def test_a_newer_base_moves_only_the_branches_it_names(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1", main=3, side=1).result(0)])
    assert worker.outcomes(_at("f2", main=4).result(0)) == [APPLIED]
    assert tables.clock() == {"main": 4, "side": 1}


def test_siblings_share_a_base_and_never_collide(worker: Worker) -> None:
    wide = _at("f1", size=50, main=3)
    for result in wide.results():
        assert worker.outcomes(result) == [APPLIED]


def test_fan_outs_of_sibling_branches_do_not_make_each_other_stale(worker: Worker, tables: Tables) -> None:
    left, right = _at("left", a=2), _at("right", b=7)
    assert worker.outcomes(left.result(0), right.result(0)) == [APPLIED, APPLIED]
    assert worker.outcomes(right.result(1), left.result(1)) == [APPLIED, APPLIED]
    assert tables.clock() == {"a": 2, "b": 7}


def test_a_result_is_stale_once_a_branch_of_its_base_moved_on_and_changes_nothing(
    worker: Worker, tables: Tables
) -> None:
    worker.commit([_at("f1", main=3).result(0)])
    worker.commit([_at("f2", main=4).result(0)])
    before = tables.fingerprint()
    assert worker.outcomes(_at("f1", main=3).result(1), _at("f0", main=2).result(0)) == [STALE, STALE]
    assert tables.fingerprint() == before


def test_one_branch_behind_is_enough_to_be_stale(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1", main=3, side=3).result(0)])
    assert worker.outcomes(_at("f2", main=9, side=2).result(0)) == [STALE]
    assert tables.clock() == {"main": 3, "side": 3}


def test_a_zero_counter_is_the_same_as_an_absent_one(worker: Worker) -> None:
    worker.commit([_at("f1", main=1).result(0)])
    assert worker.outcomes(_at("f2", main=1, side=0).result(0)) == [APPLIED]
    assert worker.outcomes(_at("f3", main=0).result(0)) == [STALE]


def test_a_counter_at_the_limit_of_int64_is_compared_as_a_number(worker: Worker) -> None:
    top = 2**63 - 1
    worker.commit([_at("f1", main=top).result(0)])
    assert worker.outcomes(_at("f2", main=top - 1).result(0), _at("f3", main=top).result(0)) == [STALE, APPLIED]


def test_nine_is_before_ten(worker: Worker) -> None:
    worker.commit([_at("f1", main=10).result(0)])
    assert worker.outcomes(_at("f2", main=9).result(0)) == [STALE]


def test_a_duplicate_of_a_superseded_base_is_stale_and_its_row_stays(worker: Worker, tables: Tables) -> None:
    old = _at("f1", main=3)
    worker.commit([old.result(0, payload=b"kept")])
    worker.commit([_at("f2", main=4).result(0)])
    assert worker.outcomes(old.result(0, payload=b"other", run=2)) == [STALE]
    assert tables.status(old.task(0).task_id) == (1, "done", b"kept")


def test_two_bases_of_a_thread_in_one_batch_the_older_first_both_stand(worker: Worker, tables: Tables) -> None:
    old, new = _at("old", main=3), _at("new", main=4)
    assert worker.outcomes(old.result(0), new.result(0), old.result(1)) == [APPLIED, APPLIED, APPLIED]
    assert tables.clock() == {"main": 4}
    assert tables.queued_folds("old") == [("old", 1)]


def test_two_bases_of_a_thread_in_one_batch_the_newer_first_make_the_older_stale(
    worker: Worker, tables: Tables
) -> None:
    old, new = _at("old", main=3), _at("new", main=4)
    assert worker.outcomes(new.result(0), old.result(0), new.result(1)) == [APPLIED, STALE, APPLIED]
    assert tables.clock() == {"main": 4}
    assert tables.fan_out("old") is None


def test_a_known_fan_out_becomes_stale_within_the_batch_that_moves_its_thread_on(
    worker: Worker, tables: Tables
) -> None:
    old, new = _at("old", main=3), _at("new", main=4)
    worker.commit([old.result(0)])
    assert worker.outcomes(new.result(0), old.result(1)) == [APPLIED, STALE]
    assert tables.fan_out("old") == {"remaining": 1, "failed": 0, "run": 1, "complete": False}


def test_incomparable_bases_of_a_thread_in_one_batch_merge_if_they_share_no_branch(
    worker: Worker, tables: Tables
) -> None:
    one, other = _at("one", a=1), _at("other", b=1)
    assert worker.outcomes(one.result(0), other.result(0)) == [APPLIED, APPLIED]
    assert tables.clock() == {"a": 1, "b": 1}


def test_incomparable_bases_that_share_branches_take_the_first(worker: Worker, tables: Tables) -> None:
    one, other = _at("one", a=1, b=2), _at("other", a=2, b=1)
    assert worker.outcomes(one.result(0), other.result(0)) == [APPLIED, STALE]
    assert tables.clock() == {"a": 1, "b": 2}


def test_the_same_fan_out_under_a_newer_base_in_one_batch_makes_nobody_count_twice(
    worker: Worker, tables: Tables
) -> None:
    # A producer that reuses a fan-out id under another base: the first entry opened it, the second contradicts it.
    from fanfold_sql import Conflict

    with pytest.raises(Conflict) as caught:
        worker.commit([_at("f1", main=1).result(0), _at("f1", main=2).result(1)])
    assert caught.value.positions == {1}
    assert tables.clock() is None


def test_threads_have_clocks_of_their_own(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1", main=9).result(0)])
    other = _at("f2", main=1).but(thread_id="t2")
    assert worker.outcomes(other.result(0)) == [APPLIED]
    assert (tables.clock("t1"), tables.clock("t2")) == ({"main": 9}, {"main": 1})


def test_a_fold_of_an_unknown_fan_out_is_stale_and_moves_no_clock(worker: Worker, tables: Tables) -> None:
    worker.commit([_at("f1", main=1).result(0)])
    before = tables.fingerprint()
    assert worker.outcomes(_at("ghost", main=2).fold_result()) == [STALE]
    assert worker.outcomes(_at("ghost", main=2).but(thread_id="t9").fold_result()) == [STALE]
    assert tables.fingerprint() == before
    assert worker.outcomes(_at("f1", main=1).result(1)) == [APPLIED]


def test_a_fold_of_an_unknown_fan_out_beside_its_first_result_is_stale(worker: Worker, tables: Tables) -> None:
    spec = _at("f1", size=1, main=2)
    assert worker.outcomes(spec.fold_result(), spec.result(0)) == [STALE, APPLIED]
    assert tables.queued_folds() == [("f1", 1)]
    assert worker.outcomes(spec.fold_result(), spec.result(0)) == [APPLIED, DUPLICATE]
