"""Folds that need no code: what each makes of the results. Their laws are in tests/property/test_fold_laws.py."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_consumer.folds import BUILT_IN, built_in

_ALL = (*BUILT_IN, "first:2")


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
