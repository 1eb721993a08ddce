"""Publishing tasks again through the outbox, in the transaction that reopens their fan-outs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import psycopg

from fanfold_schemas import Task, pack_headers, with_run
from fanfold_schemas.headers import RUN
from fanfold_sql import OutboxRecord, StoreUnavailable, reopen_fan_out

_TRIES = 5
_BACKOFF_S = 0.2
# The order in which commit_results locks threads: in another one, a commit of two of them would deadlock with
# us.
_IN_LOCK_ORDER = "select t.id from unnest(%s::text[]) as t (id) order by pg_catalog.hashtextextended(t.id, 4207)"

T = TypeVar("T")


async def reopen_fan_outs(connection: psycopg.AsyncConnection[Any], tasks: Iterable[Task]) -> dict[str, int | None]:
    """{fan-out: the run its tasks get; None: it is unknown, so nothing is there to overwrite}."""
    task_ids: dict[str, list[str]] = {}
    threads: dict[str, list[str]] = {}
    for task in tasks:
        fan_out_id = task.fan_out.id
        if fan_out_id not in task_ids:
            task_ids[fan_out_id] = []
            threads.setdefault(task.thread_id, []).append(fan_out_id)
        task_ids[fan_out_id].append(task.task_id)
    cursor = await connection.execute(_IN_LOCK_ORDER, (list(threads),))
    return {
        fan_out_id: await reopen_fan_out(connection, fan_out_id, task_ids[fan_out_id])
        for (thread_id,) in await cursor.fetchall()
        for fan_out_id in threads[thread_id]
    }


def rerun_record(
    topic: str, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes | None]], run: int
) -> OutboxRecord:
    """The record with another run and all else as it was: what a newer writer put there is not ours to drop."""
    kept = [(name, text) for name, text in headers if name != RUN]
    return OutboxRecord(topic, key, with_run(value, run), pack_headers([*kept, (RUN, b"%d" % run)]))


async def persist(action: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Make a call that is safe to repeat, again while Postgres is away for a moment (or found a deadlock)."""
    for attempt in range(_TRIES - 1):
        try:
            return await action(*arguments)
        except StoreUnavailable:
            await asyncio.sleep(_BACKOFF_S * 2**attempt)
    return await action(*arguments)
