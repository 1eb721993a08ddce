"""Folds that need no code: what each makes of the results, and that the order of arrival cannot matter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanfold_consumer.folds import BUILT_IN, built_in

_ORDERLESS = ("count", "sum", "min", "max")
_ALL = (*BUILT_IN, "first:2")

_int64 = st.integers(-(2**63), 2**63 - 1)
_lists = st.lists(st.lists(_int64 | st.text(max_size=3), max_size=5), max_size=8)
_randoms = st.randoms(use_true_random=False)


def _fold(name: str, values: list[Any]) -> Any:
    function = built_in(name)
    assert function is not None
    return function(values)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("collect", ["a", None, {"b": 1}], ["a", None, {"b": 1}]),
        ("count", ["a", None, {"b": 1}], 3),
        ("sum", [1, 2, 3.5], 6.5),
        ("min", [3, 1.5, 2], 1.5),
        ("max", [3, 1.5, 2], 3),
        ("union", [["a", "b"], [], ["b", "c", "a"]], ["a", "b", "c"]),
        ("union", [[{"a": 1, "b": 2}], [{"b": 2, "a": 1}]], [{"a": 1, "b": 2}]),
        ("union", [[1, True, "1"], [1.0, b"1"]], [1, True, "1", 1.0, b"1"]),
        ("union", [[[1, 2]], [[1, 2], [2, 1]]], [[1, 2], [2, 1]]),
        ("first:2", ["a", "b", "c"], ["a", "b"]),
        ("first:1", ["a", "b", "c"], ["a"]),
        ("first:9", ["a", "b", "c"], ["a", "b", "c"]),
        ("first:0", ["a"], []),
    ],
)
def test_a_fold_of_results_is(name: str, values: list[Any], expected: Any) -> None:
    assert _fold(name, values) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("collect", []), ("count", 0), ("sum", 0), ("min", None), ("max", None), ("union", []), ("first:2", [])],
)
def test_without_a_single_success_a_fold_is_that_of_an_empty_list(name: str, expected: Any) -> None:
    assert _fold(name, []) == expected


@pytest.mark.parametrize("name", _ORDERLESS)
@settings(max_examples=25)
@given(values=st.lists(_int64, max_size=12), random=_randoms)
def test_a_fold_of_numbers_does_not_depend_on_any_order(name: str, values: list[int], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    assert _fold(name, shuffled) == _fold(name, values)


@settings(max_examples=25)
@given(values=_lists, random=_randoms)
def test_a_union_has_the_same_items_in_whatever_order_the_results_are(values: list[list[Any]], random: Any) -> None:
    shuffled = _fold("union", random.sample(values, len(values)))
    union = _fold("union", values)
    assert len(shuffled) == len(union)
    assert all(item in union for item in shuffled)


@pytest.mark.parametrize("name", ["collect", "count", "union", "first:2"])
@settings(max_examples=25)
@given(values=_lists, random=_randoms)
def test_arrival_order_cannot_matter_because_a_fold_sees_index_order(
    name: str, values: list[list[Any]], random: Any
) -> None:
    arrived = list(enumerate(values))
    random.shuffle(arrived)
    by_index = [value for _, value in sorted(arrived, key=lambda result: result[0])]
    assert _fold(name, by_index) == _fold(name, values)


@pytest.mark.parametrize("name", _ALL)
def test_a_fold_leaves_what_it_is_given_as_it_was(name: str) -> None:
    values: list[Any] = [[2], [1], [2]] if name == "union" else [2, 1, 2]
    before = [*values]
    _fold(name, values)
    assert values == before


@pytest.mark.parametrize("name", ["sum", "min", "max"])
@pytest.mark.parametrize("value", ["1", None, True, [1], {"n": 1}, b"1"])
def test_a_fold_of_numbers_says_which_result_is_none(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"fold '{name}' wants numbers; result 1 is a {type(value).__name__}"):
        _fold(name, [1, value])


@pytest.mark.parametrize("value", ["ab", None, 1, {"a": 1}, b"ab"])
def test_a_union_says_which_result_is_no_list(value: Any) -> None:
    with pytest.raises(TypeError, match=f"fold 'union' wants lists; result 1 is a {type(value).__name__}"):
        _fold("union", [["a"], value])


@pytest.mark.parametrize(
    "name",
    ["", "average", "Count", "first", "first:", "first:x", "first:-1", "first:1.5", "first: 1", "first:1 ", "first:1\n",
     "first:²", "first:٣", "first:1000000", "first:" + "9" * 5000, "xfirst:1"],
)  # fmt: skip
def test_another_name_is_no_built_in_fold(name: str) -> None:
    assert built_in(name) is None
