"""The vector clock as a value. Its laws are in tests/property/test_clock_lattice.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
def test_equal_clocks_have_equal_hashes_whether_or_not_they_name_a_zero(a: VectorClock, b: VectorClock) -> None:
    zeros = VectorClock({**a, "zero": 0})
    assert a == zeros
    assert hash(a) == hash(zeros)
    if a == b:
        assert hash(a) == hash(b)


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
