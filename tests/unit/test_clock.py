"""The vector clock is a join-semilattice, so no order of arrival can change where a thread ends up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold_schemas import SchemaError, VectorClock
from fanfold_schemas.limits import BRANCH_CHARS_MAX, BRANCHES_MAX, INT64_MAX

# Few branches and small counters, so that clocks meet; plus the ends of the range.
clocks = st.dictionaries(
    st.sampled_from(["", "a", "b", "c", "a|b"]), st.one_of(st.integers(0, 4), st.just(INT64_MAX)), max_size=4
).map(VectorClock)


@given(clocks, clocks)
def test_merge_is_commutative(a: VectorClock, b: VectorClock) -> None:
    assert a.merge(b) == b.merge(a)


@given(clocks, clocks, clocks)
def test_merge_is_associative(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(clocks)
def test_merge_is_idempotent(a: VectorClock) -> None:
    assert a.merge(a) == a


@given(clocks, clocks)
def test_merge_never_goes_down_and_is_the_least_clock_above_both(a: VectorClock, b: VectorClock) -> None:
    merged = a.merge(b)
    assert merged.dominates(a)
    assert merged.dominates(b)
    assert all(merged[branch] in (a.get(branch, 0), b.get(branch, 0)) for branch in merged)


@given(clocks, clocks, clocks)
def test_merge_is_monotone(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    if a.dominates(b):
        assert a.merge(c).dominates(b.merge(c))


@given(st.lists(clocks, max_size=4))
def test_no_order_of_arrival_changes_the_result(arriving: list[VectorClock]) -> None:
    results = set()
    for order in permutations(arriving):
        clock = VectorClock()
        for base in order:
            clock = clock.merge(base)
        results.add(clock)
    assert len(results) == 1


@given(clocks, clocks, clocks)
def test_dominates_is_a_partial_order(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    assert a.dominates(a)
    assert (a.dominates(b) and b.dominates(a)) == (a == b)
    if a.dominates(b) and b.dominates(c):
        assert a.dominates(c)


@given(clocks, clocks)
def test_two_clocks_are_equal_ordered_or_concurrent(a: VectorClock, b: VectorClock) -> None:
    assert [a == b, a.dominates(b) and a != b, b.dominates(a) and a != b, a.concurrent_with(b)].count(True) == 1


@given(clocks, clocks)
def test_equal_clocks_have_equal_hashes_whether_or_not_they_name_a_zero(a: VectorClock, b: VectorClock) -> None:
    zeros = VectorClock({**a, "zero": 0})
    assert a == zeros
    assert hash(a) == hash(zeros)
    if a == b:
        assert hash(a) == hash(b)


@given(clocks, clocks)
def test_a_base_is_stale_exactly_when_a_branch_it_names_moved_on(clock: VectorClock, base: VectorClock) -> None:
    assert clock.makes_stale(base) == any(clock.get(branch, 0) > base[branch] for branch in base)


@given(clocks, clocks)
def test_accepting_a_base_never_makes_it_stale(clock: VectorClock, base: VectorClock) -> None:
    if not clock.makes_stale(base):
        assert not clock.merge(base).makes_stale(base)


@given(clocks, clocks, clocks)
def test_what_is_stale_stays_stale_as_the_thread_moves_on(a: VectorClock, b: VectorClock, base: VectorClock) -> None:
    if a.makes_stale(base):
        assert a.merge(b).makes_stale(base)


def test_a_branch_the_base_never_looked_at_may_move_freely() -> None:
    assert not VectorClock({"main": 1, "side": 99}).makes_stale(VectorClock({"main": 1}))
    assert not VectorClock({"main": 99}).makes_stale(VectorClock())


def test_advancing_a_branch_makes_work_derived_from_before_stale() -> None:
    before = VectorClock({"main": 1})
    after = before.advance("main").advance("new")
    assert after.to_dict() == {"main": 2, "new": 1}
    assert after.makes_stale(before)
    assert after.dominates(before)


def test_a_clock_is_a_mapping_that_nobody_can_change() -> None:
    counters = {"a": 1}
    clock = VectorClock(counters)
    counters["a"] = 9
    clock.to_dict()["a"] = 9
    assert (dict(clock), len(clock), clock["a"], list(clock)) == ({"a": 1}, 1, 1, ["a"])
    assert repr(clock) == "VectorClock({'a': 1})"
    assert clock != {"a": 1}


def test_a_merge_may_outgrow_what_one_record_can_carry() -> None:
    one = VectorClock({f"a{n}": 1 for n in range(BRANCHES_MAX)})
    other = VectorClock({f"b{n}": 1 for n in range(BRANCHES_MAX)})
    assert len(one.merge(other)) == 2 * BRANCHES_MAX


@pytest.mark.parametrize(
    ("counters", "code", "detail"),
    [
        ({f"b{n}": 1 for n in range(BRANCHES_MAX + 1)}, "E_LIMIT", f"{BRANCHES_MAX + 1} branches"),
        ({"b" * (BRANCH_CHARS_MAX + 1): 1}, "E_LIMIT", f"{BRANCH_CHARS_MAX + 1} characters"),
        ({"a": -1}, "E_LIMIT", "counter -1"),
        ({"a": INT64_MAX + 1}, "E_LIMIT", "outside 0..2^63-1"),
        ({"a\0": 1}, "E_VALUE", "NUL"),
        ({"a": True}, "E_SCHEMA", "branch names to integers"),
        ({"a": 1.0}, "E_SCHEMA", "branch names to integers"),
        ({"a": "1"}, "E_SCHEMA", "branch names to integers"),
        ({1: 1}, "E_SCHEMA", "branch names to integers"),
    ],
    ids=["branches", "branch length", "negative", "beyond int64", "NUL", "bool", "float", "text", "no text"],
)
def test_a_clock_beyond_the_limits_is_refused_with_its_code(
    counters: Mapping[Any, Any], code: str, detail: str
) -> None:
    with pytest.raises(SchemaError, match=re.escape(detail)) as caught:
        VectorClock(counters)
    assert (caught.value.code, caught.value.path) == (code, "$.base")


def test_the_limits_themselves_are_allowed() -> None:
    VectorClock({f"b{n}": INT64_MAX for n in range(BRANCHES_MAX)})
    VectorClock({"b" * BRANCH_CHARS_MAX: 0})
