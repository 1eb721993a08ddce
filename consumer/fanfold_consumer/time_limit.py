"""A limit on how long something may take, whose passing is told apart from a timeout inside of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class OutOfTime(TimeoutError):
    """The limit passed. A plain TimeoutError is one that came from within: a socket's, say."""


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """What `work` gives, or `OutOfTime` after so many seconds; None: however long it takes."""
    if seconds is None:
        return await work
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            raise OutOfTime(f"no result within {seconds:g} s") from error
        raise
