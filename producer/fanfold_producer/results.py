"""Waiting for a fan-out and reading what came of it, from Postgres."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from fanfold_producer.claim_store import ClaimStore, fill_in, needed
from fanfold_producer.errors import (
    DatabaseNeeded,
    FanOutCancelled,
    FanOutExpired,
    FanOutFailed,
    FanOutStale,
    FoldFailed,
    TaskFailure,
)
from fanfold_schemas import FOLD_INDEX, ClaimCheck, derive_fold_task_id, read_payload
from fanfold_sql import DeadLetterFilter, FanOutState, Store, StoredResult, StoreUnavailable

POLL_MIN_S = 0.005
POLL_MAX_S = 0.25
PAGE_RESULTS = 1000
STORE_PATIENCE_S = 30.0
"""How long Postgres may be away before a waiting caller hears of it."""

_NAMED_MAX = 3
_NO_REASON = "no dead letter says why"


class Results:
    """Reads fan-outs through a store of its own, opened when it is first needed. Belongs to one event loop."""

    def __init__(self, database_url: str | None, *, prepare: bool, claim_store: ClaimStore | None = None) -> None:
        self._database_url = database_url
        self._claim_store = claim_store
        self._prepare = prepare
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._opened: Store | None = None

    async def progress(self, fan_out_id: str) -> FanOutState | None:
        store = await self._store()
        return await store.read_fan_out(fan_out_id)

    async def wait(
        self,
        fan_out_id: str,
        size: int,
        timeout: float | None,  # noqa: ASYNC109
        return_failures: bool,
    ) -> Any:
        """The outcome of a fan-out; see `FanOutHandle.result`."""
        store = await self._store()
        state = await self._wait_until_done(store, fan_out_id, size, timeout)
        if state.state == "stale":
            raise FanOutStale(
                f"fan-out {fan_out_id} will not complete: its thread {state.thread_id!r} moved past the base "
                f"{state.base} with {state.remaining} of {state.size} results outstanding; they are refused as stale."
            )
        if state.state == "cancelled":
            outstanding = f"{state.remaining} of {state.size}" if state.size else "all"
            raise FanOutCancelled(
                f"fan-out {fan_out_id} was cancelled with {outstanding} of its results outstanding; they are refused. "
                "To do the work after all, publish it under another fan_out_id."
            )
        if state.ended_by == "deadline":
            raise FanOutExpired(
                f"fan-out {fan_out_id} was not complete at its deadline, with {state.remaining} of {state.size} "
                "results outstanding; they are refused. Publish the work under another fan_out_id, with more time, or "
                "with on_deadline='fold' to get what there is."
            )
        if state.ended_by == "failures":
            await _values(store, state, return_failures=False)
        if state.state == "failed":
            errors = await _errors(store, fan_out_id)
            reason = errors.get(derive_fold_task_id(fan_out_id), _NO_REASON)
            raise FoldFailed(
                f"fold {state.fold!r} of fan-out {fan_out_id} failed after its {size} tasks had finished: {reason}. "
                f"Mend it, then run `fanfold dead-letters redrive --fan-out {fan_out_id} --execute`."
            )
        if state.fold is not None:
            folded = await store.read_results(fan_out_id, after=FOLD_INDEX - 1, limit=1)
            values = [read_payload(folded[0].payload or b"")]
            await self._fill_in(fan_out_id, values)
            return values[0]
        values = await _values(store, state, return_failures)
        await self._fill_in(fan_out_id, values)
        return values

    async def cancel(self, fan_out_id: str, thread_id: str) -> bool:
        store = await self._store()
        return await store.cancel_fan_out(fan_out_id, thread_id) == "cancelled"

    async def close(self) -> None:
        await self._stack.aclose()

    async def _store(self) -> Store:
        if self._database_url is None:
            raise DatabaseNeeded(
                "progress and results are kept in Postgres, and this publisher knows no database: make it with "
                "database_url=..., as in Publisher(kafka, database_url=os.environ['DATABASE_URL'])"
            )
        async with self._opening:
            if self._opened is None:
                opening = Store.open(self._database_url, pool_size=2, prepare=self._prepare)
                self._opened = await self._stack.enter_async_context(opening)
        return self._opened

    async def _fill_in(self, fan_out_id: str, values: list[Any]) -> None:
        async def get(check: ClaimCheck) -> Any:
            return await needed(self._claim_store, check).get(fan_out_id, check)

        await fill_in(values, get)

    async def _wait_until_done(
        self,
        store: Store,
        fan_out_id: str,
        size: int,
        timeout: float | None,  # noqa: ASYNC109
    ) -> FanOutState:
        started = time.monotonic()
        seen: FanOutState | None = None
        heard = started
        wait_s = POLL_MIN_S
        while True:
            try:
                seen = await store.read_fan_out(fan_out_id) or seen
                heard = time.monotonic()
            except StoreUnavailable:
                if time.monotonic() - heard > STORE_PATIENCE_S:
                    raise
            if seen is not None and seen.ended:
                return seen
            left_s = float("inf") if timeout is None else started + timeout - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(_too_late(fan_out_id, size, timeout or 0.0, seen))
            await asyncio.sleep(min(wait_s, left_s))
            wait_s = min(POLL_MAX_S, wait_s * 1.5)


async def _values(store: Store, state: FanOutState, return_failures: bool) -> list[Any]:
    values: list[Any] = []
    failed: dict[int, StoredResult] = {}
    after = -1
    while True:
        page = await store.read_results(state.fan_out_id, after=after, limit=PAGE_RESULTS)
        for result in page:
            if result.status == "failed" or result.payload is None:
                failed[len(values)] = result
                values.append(None)
            else:
                values.append(read_payload(result.payload))
        if len(page) < PAGE_RESULTS:
            break
        after = page[-1].index
    if not failed:
        return values
    errors = await _errors(store, state.fan_out_id)
    for at, result in failed.items():
        values[at] = TaskFailure(result.index, result.task_id, errors.get(result.task_id, _NO_REASON))
    if return_failures:
        return values
    if state.ended_by is None and state.quorum is not None and len(values) - len(failed) >= state.quorum:
        return [value for at, value in enumerate(values) if at not in failed]
    raise _failure(state, [values[at] for at in failed])


async def _errors(store: Store, fan_out_id: str) -> dict[str, str]:
    """{task_id: why it failed}, of each task the latest."""
    errors: dict[str, str] = {}
    after = 0
    while True:
        page = await store.list_dead_letters(DeadLetterFilter(fan_out_id=fan_out_id), after=after, limit=PAGE_RESULTS)
        errors.update({letter.task_id: letter.error for letter in page if letter.task_id is not None})
        if len(page) < PAGE_RESULTS:
            return errors
        after = page[-1].dead_letter_id


def _failure(state: FanOutState, failures: list[TaskFailure]) -> FanOutFailed:
    named = "; ".join(f"index {f.index}: {f.error}" for f in failures[:_NAMED_MAX])
    more = f"; and {len(failures) - _NAMED_MAX} more" if len(failures) > _NAMED_MAX else ""
    what = f"{len(failures)} of {state.size} tasks of fan-out {state.fan_out_id} failed for good: {named}{more}. "
    if state.ended_by is not None:
        what += f"It takes {state.max_failures}, so it ended with {state.remaining} outstanding; they are refused. Mend"
    else:
        what += "Pass return_failures=True to get the other results, or mend"
    return FanOutFailed(
        f"{what} the handler and run `fanfold dead-letters redrive --fan-out {state.fan_out_id} --execute`.",
        failures,
    )


def _too_late(fan_out_id: str, size: int | None, timeout: float, state: FanOutState | None) -> str:
    if state is None:
        return (
            f"fan-out {fan_out_id} has no result{f' of its {size} tasks' if size else ''} after {timeout:g} s. "
            "Check that a fleet consumes its topic (`fanfold status`), writes to this database, and that the "
            "thread has not moved past the fan-out's base"
        )
    done = state.size - state.remaining - state.failed
    what = f"fold {state.fold!r} is not in yet" if state.state == "folding" else "it is not complete"
    return (
        f"fan-out {fan_out_id} was waited for {timeout:g} s and {what}: {done} done, {state.failed} failed, "
        f"{state.remaining} of {state.size} remaining. Wait again, or look at `fanfold thread {state.thread_id}`"
    )
