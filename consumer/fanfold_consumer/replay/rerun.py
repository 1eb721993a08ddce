"""Replay by publishing again: tasks found in the log go through the outbox once more, all of a chunk or none.

A repair publishes them as they were: what is committed is recognised and costs no handler call. A rerun
publishes them with a new run, which overwrites: their fan-outs are reopened in the same transaction, wait for
them, and fold anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg

from fanfold_consumer.replay.errors import ReplayInterrupted
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.sift import Found, Selection, Sieve, Tally
from fanfold_consumer.replay.targets import format_offsets
from fanfold_schemas import arg_hash, pack_headers, with_run
from fanfold_schemas.headers import RUN
from fanfold_schemas.limits import RUN_MAX
from fanfold_sql import OutboxRecord, Store, StoreUnavailable, reopen_fan_out

_TRIES = 5
_BACKOFF_S = 0.2
_ENQUEUE = "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int4[])"
# The order in which commit_results locks threads: in another one, a commit of two of them would deadlock with
# us.
_IN_LOCK_ORDER = "select t.id from unnest(%s::text[]) as t (id) order by pg_catalog.hashtextextended(t.id, 4207)"

T = TypeVar("T")


async def republish(
    store: Store,
    reader: LogReader,
    topic: str,
    selection: Selection,
    *,
    execute: bool,
    on_chunk: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Read what `reader` was started on and publish the selected tasks; unless `execute`, only count.

    Each chunk is one transaction: it is queued with its fan-outs reopened, or it is not.

    Raises:
        ReplayInterrupted: Postgres went away for longer than a moment; the message says how to go on.
        BrokerUnavailable, BrokerRefused, ReplayRefused: from `reader`; what was queued so far stays queued.
    """
    tally = Tally()
    sieve = Sieve(selection, tally)
    positions = reader.positions
    while records := await asyncio.to_thread(reader.read):
        found = sieve.sift(records)
        try:
            if selection.rerun and found:
                verdicts = await _persist(_verdicts, store, found)
                tally.stale += verdicts.count("stale")
                tally.conflicts += verdicts.count("conflict")
                found = [f for f, verdict in zip(found, verdicts, strict=True) if verdict not in ("stale", "conflict")]
            if execute and found:
                await _persist(_queue, store, topic, found, selection.rerun)
                tally.queued += len(found)
        except StoreUnavailable as error:
            raise _interrupted(topic, tally, positions, error) from error
        tally.tasks += len(found)
        tally.fan_out_ids.update(entry.task.fan_out.id for entry in found)
        positions = reader.positions
        on_chunk(tally)
    return tally


async def _verdicts(store: Store, found: Sequence[Found]) -> list[str | None]:
    """What would become of the tasks under a run above any: `stale` and `conflict` cannot be committed.

    Reopening a fan-out for such a task would leave it waiting for ever.
    """
    tasks = [msgspec.structs.replace(entry.task, run=RUN_MAX) for entry in found]
    return await store.check_tasks(tasks, [arg_hash(task) for task in tasks])


async def _queue(store: Store, topic: str, found: Sequence[Found], rerun: bool) -> None:
    """Write the tasks to the outbox; of a rerun, with their fan-outs reopened. One transaction.

    Safe to repeat when the outcome is unknown: the tasks are then queued twice under one run, and count once.
    """
    async with store.transaction() as connection:
        runs = await _reopen(connection, found) if rerun else {}
        records = [_rerun_record(topic, f, runs[f.task.fan_out.id]) if rerun else _record(topic, f) for f in found]
        await connection.execute(
            _ENQUEUE,
            (
                [record.topic for record in records],
                [record.key for record in records],
                [record.value for record in records],
                [record.headers for record in records],
                [0] * len(records),
            ),
            binary=True,
        )


async def _reopen(connection: psycopg.AsyncConnection[Any], found: Sequence[Found]) -> dict[str, int | None]:
    """{fan-out: the run its tasks get; None: it is unknown, so nothing is there to overwrite}."""
    task_ids: dict[str, list[str]] = {}
    threads: dict[str, list[str]] = {}
    for entry in found:
        fan_out_id = entry.task.fan_out.id
        if fan_out_id not in task_ids:
            task_ids[fan_out_id] = []
            threads.setdefault(entry.task.thread_id, []).append(fan_out_id)
        task_ids[fan_out_id].append(entry.task.task_id)
    cursor = await connection.execute(_IN_LOCK_ORDER, (list(threads),))
    return {
        fan_out_id: await reopen_fan_out(connection, fan_out_id, task_ids[fan_out_id])
        for (thread_id,) in await cursor.fetchall()
        for fan_out_id in threads[thread_id]
    }


def _record(topic: str, found: Found) -> OutboxRecord:
    record = found.record
    return OutboxRecord(topic, record.key, record.value, pack_headers(record.headers))


def _rerun_record(topic: str, found: Found, run: int | None) -> OutboxRecord:
    """The record with another run and all else as it was: what a newer writer put there is not ours to drop."""
    record = found.record
    if run is None:
        return _record(topic, found)
    assert record.value is not None  # it was decoded
    headers = [(name, value) for name, value in record.headers if name != RUN]
    return OutboxRecord(topic, record.key, with_run(record.value, run), pack_headers([*headers, (RUN, b"%d" % run)]))


async def _persist(action: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Make a call that is safe to repeat, again while Postgres is away for a moment (or found a deadlock)."""
    for attempt in range(_TRIES - 1):
        try:
            return await action(*arguments)
        except StoreUnavailable:
            await asyncio.sleep(_BACKOFF_S * 2**attempt)
    return await action(*arguments)


def _interrupted(topic: str, tally: Tally, positions: Mapping[int, int], error: StoreUnavailable) -> ReplayInterrupted:
    return ReplayInterrupted(
        f"{tally.queued} tasks of {topic} were queued, then Postgres went away: {error}.\n"
        "Go on from there with `--from-file FILE`, these lines being in the file:\n"
        + format_offsets(topic, positions.items())
    )
