"""Commits alone, without Kafka and handlers: what a member sends to Postgres, made beforehand and timed one by one."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import cycle, islice
from typing import Any, Protocol, TypeAlias
from uuid import UUID, uuid4

import psycopg
from psycopg_pool import AsyncConnectionPool

from fanfold_schemas import FanOut, Outcome, Task, derive_task_id, new_fan_out_id
from fanfold_sql import CommitBatch, Finished, PartitionCommit, Store, open_pool
from fanfold_sql.arrays import Byteas, Int4s, Int8s, Texts

Batches: TypeAlias = Sequence[Sequence[Finished]]

PAYLOADS = [os.urandom(200) for _ in range(97)]
"""What results of 200 bytes are made of."""

WARM_UP = 3
"""The first commits of a connection, which plan; not counted."""

_APPLIED = {Outcome.APPLIED}

RAW_TABLE = "raw_insert"
_MAKE_RAW_TABLE = """
create table raw_insert (like fanfold.result including all excluding indexes);
alter table raw_insert set (toast_tuple_target = 8160)"""

_RAW_INSERT = (
    "insert into raw_insert (thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload)"
    " select thread_id, task_id, fan_out_id, index, run, 'done', arg_hash, payload"
    " from unnest(%s::text[], %s::text[], %s::text[], %s::int4[], %s::int4[], %s::int8[], %s::bytea[])"
    " as of_batch (thread_id, task_id, fan_out_id, index, run, arg_hash, payload)"
)


class Writer(Protocol):
    """Stores batches of results, one after another, through one connection."""

    async def write(self, results: Sequence[Finished]) -> None: ...


Opener: TypeAlias = Callable[[str, int], AbstractAsyncContextManager[Writer]]
"""Given a DSN and a number that tells those of one database apart."""


class _Committing:
    """The product. Each commit moves the progress of a partition that is claimed, as a member's does."""

    def __init__(self, store: Store, owner: UUID, progress: PartitionCommit) -> None:
        self._store = store
        self._owner = owner
        self._progress = progress

    async def write(self, results: Sequence[Finished]) -> None:
        last = self._progress
        progress = PartitionCommit(last.progress_id, last.epoch, last.commit_seq, last.next_offset + len(results), ())
        reply = await self._store.commit(CommitBatch(list(results), [progress], owner=self._owner))
        if set(reply.outcomes) != _APPLIED:
            raise RuntimeError(f"{len(results)} new results were committed as {sorted(set(reply.outcomes))}")
        (commit_seq,) = reply.commit_seqs
        self._progress = PartitionCommit(last.progress_id, last.epoch, commit_seq, progress.next_offset, ())


@asynccontextmanager
async def committing(dsn: str, number: int = 0) -> AsyncIterator[Writer]:
    async with Store.open(dsn, pool_size=1) as store:
        owner = uuid4()
        claim = await store.claim_partition("bench", "bench", "bench", "bench", number, owner)
        progress = PartitionCommit(claim.progress_id, claim.epoch, claim.commit_seq, claim.next_offset or 0, ())
        yield _Committing(store, owner, progress)


class _Inserting:
    """The limit: the same rows into a table like `fanfold.result` without its indexes, and nothing else done."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    async def write(self, results: Sequence[Finished]) -> None:
        tasks = [result.task for result in results]
        columns = [
            Texts([task.thread_id for task in tasks]),
            Texts([task.task_id for task in tasks]),
            Texts([task.fan_out.id for task in tasks]),
            Int4s([task.index for task in tasks]),
            Int4s([task.run for task in tasks]),
            Int8s([result.arg_hash for result in results]),
            Byteas([result.payload for result in results]),
        ]
        async with self._pool.connection() as connection:
            await connection.execute(_RAW_INSERT, columns, binary=True)


@asynccontextmanager
async def inserting(dsn: str, number: int = 0) -> AsyncIterator[Writer]:
    async with open_pool(dsn, size=1) as pool:
        yield _Inserting(pool)


def make_raw_table(connection: psycopg.Connection[Any]) -> None:
    connection.execute(_MAKE_RAW_TABLE)


def fan_outs(
    payloads: Sequence[bytes], width: int, *, threads: Iterator[str] | None = None, base: dict[str, int] | None = None
) -> list[list[Finished]]:
    """Finished tasks with these payloads in fan-outs of `width`, with ids as producers make them.

    Args:
        threads: where each fan-out belongs; none: to a new thread of its own.
        base: the clock that all were derived from.
    """
    found = []
    for first in range(0, len(payloads), width):
        fan_out = FanOut(new_fan_out_id(), width, "count")
        thread_id = str(uuid4()) if threads is None else next(threads)
        tasks = (
            Task(derive_task_id(fan_out.id, index), thread_id, fan_out, index, "noop", None, base or {})
            for index in range(width)
        )
        found.append(
            [
                Finished(task, payload, random.getrandbits(62), "bench")
                for task, payload in zip(tasks, payloads[first : first + width], strict=False)
            ]
        )
    return found


def in_batches(fan_outs: Batches, size: int, *, spread: int = 1) -> list[list[Finished]]:
    """Cut into batches of `size`.

    Args:
        spread: over how many batches a fan-out is scattered, as when its tasks lie in several partitions.
    """
    results = [result for fan_out in fan_outs for result in fan_out]
    for first in range(0, len(results), size * spread):
        part = results[first : first + size * spread]
        if spread > 1:
            random.shuffle(part)
        results[first : first + size * spread] = part
    return [results[first : first + size] for first in range(0, len(results), size)]


def repeated(payloads: Sequence[bytes], count: int) -> list[bytes]:
    return list(islice(cycle(payloads), count))


def write_all(opener: Opener, dsn: str, *lots: Batches) -> tuple[float, list[float]]:
    """Write each lot through a connection of its own, all at once.

    Returns:
        The seconds that passed for all of them after their warm-up, and those of each batch.
    """
    return asyncio.run(_write_all(opener, dsn, lots))


async def _write_all(opener: Opener, dsn: str, lots: Sequence[Batches]) -> tuple[float, list[float]]:
    async with AsyncExitStack() as opened:
        writers = [await opened.enter_async_context(opener(dsn, number)) for number in range(len(lots))]
        for writer, batches in zip(writers, lots, strict=True):
            await _write(writer, batches[:WARM_UP])
        began = time.perf_counter()
        seconds = await asyncio.gather(
            *(_write(writer, batches[WARM_UP:]) for writer, batches in zip(writers, lots, strict=True))
        )
        return time.perf_counter() - began, [each for lot in seconds for each in lot]


async def _write(writer: Writer, batches: Batches) -> list[float]:
    seconds = []
    for batch in batches:
        began = time.perf_counter()
        await writer.write(batch)
        seconds.append(time.perf_counter() - began)
    return seconds


def wal_bytes(connection: psycopg.Connection[Any]) -> int:
    """How much WAL the server has written since it was made."""
    row = connection.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8").fetchone()
    assert row is not None
    return int(row[0])
