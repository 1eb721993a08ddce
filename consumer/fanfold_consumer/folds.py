"""Folds that need no code. Each takes the results of a fan-out in index order, so arrival order cannot change it.

All are defined on the successes only; with none of them the answer is the fold of an empty list.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import ormsgpack


def _numbers(name: str, values: list[Any]) -> list[Any]:
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"fold {name!r} wants numbers; result {index} is a {type(value).__name__}")
    return values


def collect(values: list[Any]) -> list[Any]:
    return values


def count(values: list[Any]) -> int:
    return len(values)


def total(values: list[Any]) -> Any:
    numbers = _numbers("sum", values)
    if any(isinstance(value, float) for value in numbers):
        # Rounded once, at the end. `sum` rounds at each step, and from Python 3.12 on in another way than before: two
        # members could make two answers of the same results.
        return math.fsum(numbers)
    return sum(numbers)


def least(values: list[Any]) -> Any:
    return min(_numbers("min", values), default=None)


def greatest(values: list[Any]) -> Any:
    return max(_numbers("max", values), default=None)


def union(values: list[Any]) -> list[Any]:
    """The distinct items of all results, which must be lists, in the order of their first appearance."""
    seen: dict[bytes, Any] = {}
    for index, value in enumerate(values):
        if not isinstance(value, list):
            raise TypeError(f"fold 'union' wants lists; result {index} is a {type(value).__name__}")
        for item in value:
            seen.setdefault(ormsgpack.packb(item, option=ormsgpack.OPT_SORT_KEYS), item)
    return list(seen.values())


BUILT_IN: dict[str, Callable[[list[Any]], Any]] = {
    "collect": collect,
    "count": count,
    "sum": total,
    "min": least,
    "max": greatest,
    "union": union,
}
_is_first = re.compile(r"^first:([0-9]{1,6})\Z").match


def built_in(name: str) -> Callable[[list[Any]], Any] | None:
    """The built-in fold of that name, or None. `first:<k>` keeps the k results of lowest index."""
    first = _is_first(name)
    if first is not None:
        k = int(first[1])
        return lambda values: values[:k]
    return BUILT_IN.get(name)
