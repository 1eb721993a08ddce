"""Waiting for something to become true, with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.02


def eventually(fn: Callable[[], T], timeout_s: float = 20.0, *, what: str | None = None) -> T:
    """Call `fn` until it returns something true, and return that.

    An AssertionError counts as "not yet", so `fn` may assert; any other exception ends the wait. At the
    deadline the last AssertionError, or one with the last value, is raised.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value, failure = _attempt(fn)
        if value:
            return value
        if time.monotonic() > deadline:
            raise _too_late(fn, what, timeout_s, value) from failure
        time.sleep(_POLL_S)


async def eventually_async(fn: Callable[[], Awaitable[T]], timeout_s: float = 20.0, *, what: str | None = None) -> T:
    """`eventually` for a coroutine function, without blocking the loop."""
    deadline = time.monotonic() + timeout_s
    while True:
        value: T | None = None
        failure: AssertionError | None = None
        try:
            value = await fn()
        except AssertionError as error:
            failure = error
        if value:
            return value
        if time.monotonic() > deadline:
            raise _too_late(fn, what, timeout_s, value) from failure
        await asyncio.sleep(_POLL_S)


def _attempt(fn: Callable[[], T]) -> tuple[T | None, AssertionError | None]:
    try:
        return fn(), None
    except AssertionError as error:
        return None, error


def _too_late(fn: object, what: str | None, timeout_s: float, value: object) -> AssertionError:
    name = what or getattr(fn, "__qualname__", repr(fn))
    return AssertionError(f"not within {timeout_s:g} s: {name}; the last answer was {value!r}")
