"""A limit's own passing, told apart from a timeout within."""

from __future__ import annotations

import asyncio

import pytest

from fanfold_consumer.time_limit import OutOfTime, within
from tests.unit.leaping_loop import run_leaping


async def _takes(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def _times_out_itself(seconds: float) -> str:
    async with asyncio.timeout(seconds):
        await asyncio.sleep(10 * seconds)
    return "never"


@pytest.mark.parametrize("limit_s", [None, 5, 3600])
def test_what_is_done_in_time_is_handed_on(limit_s: float | None) -> None:
    assert run_leaping(lambda: within(limit_s, _takes(4))) == "done"


def test_no_limit_waits_however_long_it_takes() -> None:
    assert run_leaping(lambda: within(None, _takes(10**6))) == "done"


def test_what_takes_too_long_is_out_of_time() -> None:
    with pytest.raises(OutOfTime, match=r"^no result within 1\.5 s$"):
        run_leaping(lambda: within(1.5, _takes(1.6)))


@pytest.mark.parametrize("limit_s", [None, 100])
def test_a_timeout_from_within_stays_what_it_was(limit_s: float | None) -> None:
    with pytest.raises(TimeoutError) as caught:
        run_leaping(lambda: within(limit_s, _times_out_itself(1)))
    assert not isinstance(caught.value, OutOfTime)


def test_a_cancelled_caller_is_not_out_of_time() -> None:
    async def cancelled() -> None:
        call = asyncio.ensure_future(within(10, _takes(5)))
        await asyncio.sleep(1)
        call.cancel()
        await call

    with pytest.raises(asyncio.CancelledError):
        run_leaping(cancelled)
