"""Replay by publishing again: tasks found in the log go through the outbox once more, all of a chunk or none.

A repair publishes them as they were: what is committed is recognised and costs no handler call. A rerun
publishes them with a new run, which overwrites: their fan-outs are reopened in the same transaction, wait for
them, and fold anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from fanfold_consumer.replay.errors import ReplayInterrupted
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.requeue import persist, reopen_fan_outs, rerun_record
from fanfold_consumer.replay.sift import Found, Selection, Sieve, Tally
from fanfold_consumer.replay.targets import format_offsets
from fanfold_schemas import arg_hash, pack_headers
from fanfold_schemas.limits import RUN_MAX
from fanfold_sql import OutboxRecord, Store, StoreUnavailable
from fanfold_sql.outbox import enqueue_records


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
                verdicts = await persist(_verdicts, store, found)
                tally.stale += verdicts.count("stale")
                tally.conflicts += verdicts.count("conflict")
                found = [f for f, verdict in zip(found, verdicts, strict=True) if verdict not in ("stale", "conflict")]
            if execute and found:
                await persist(_queue, store, topic, found, selection.rerun)
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
        runs = await reopen_fan_outs(connection, (entry.task for entry in found)) if rerun else {}
        records = [_record(topic, entry, runs.get(entry.task.fan_out.id)) for entry in found]
        await enqueue_records(connection, records)


def _record(topic: str, found: Found, run: int | None) -> OutboxRecord:
    """As it was, but for the run that a rerun gives it."""
    record = found.record
    if run is None:
        return OutboxRecord(topic, record.key, record.value, pack_headers(record.headers))
    assert record.value is not None  # it was decoded
    return rerun_record(topic, record.key, record.value, record.headers, run)


def _interrupted(topic: str, tally: Tally, positions: Mapping[int, int], error: StoreUnavailable) -> ReplayInterrupted:
    return ReplayInterrupted(
        f"{tally.queued} tasks of {topic} were queued, then Postgres went away: {error}.\n"
        "Go on from there with `--from-file FILE`, these lines being in the file:\n"
        + format_offsets(topic, positions.items())
    )
