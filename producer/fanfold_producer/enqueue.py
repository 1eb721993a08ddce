"""Publish from inside the caller's own Postgres transaction: all of it happens, or none of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from fanfold_producer.claim_store import ClaimStore
from fanfold_producer.fan_out import OnDeadline, build_now
from fanfold_producer.record import Record
from fanfold_schemas import DEFAULT_TOPIC, pack_headers
from fanfold_sql import OutboxRecord
from fanfold_sql.errors import MigrationNeeded, translate
from fanfold_sql.outbox import ENQUEUE, enqueue_parameters

_STATEMENT_RECORDS_MAX = 1000
_STATEMENT_BYTES_MAX = 16 * 1024 * 1024
_DELAY_MAX = timedelta(days=24)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What will be published once the caller commits; task_ids in index order."""

    fan_out_id: str
    task_ids: tuple[str, ...]


def enqueue(
    conn: psycopg.Connection[Any],
    thread_id: str,
    sends: Iterable[object],
    *,
    topic: str = DEFAULT_TOPIC,
    fan_out_id: str | None = None,
    fold: str | None = None,
    base: Mapping[str, int] | None = None,
    quorum: int | None = None,
    max_failures: int | None = None,
    deadline: datetime | timedelta | None = None,
    on_deadline: OnDeadline = "fail",
    delay: timedelta = timedelta(0),
    traceparent: str | None = None,
    source: str = "fanfold",
    claim_store: ClaimStore | None = None,
) -> Enqueued:
    """Write a fan-out to the outbox of the database that `conn` is connected to, in its current transaction.

    The fleet publishes it after the caller's commit, each record at least once; after a rollback nothing is left
    of it. An autocommit connection outside a transaction gets one for just this. Arguments as in
    `Publisher.fan_out`; the role needs EXECUTE on `fanfold.enqueue`, as `fanfold_worker` has.

    Args:
        delay: publish no sooner than so long after the transaction's start; 0 to 24 days.
        claim_store: where large args go, before anything is written; what a rollback leaves there is pruned. None:
            they are refused.

    Raises:
        ClaimStoreUnavailable: the claim store did not answer. Nothing was written.
        SchemaError, TypeError, ValueError: an argument is wrong; the path says which. Nothing was written.
        MigrationNeeded: the database has no outbox. Run `fanfold migrate`.
        psycopg.Error: whatever else Postgres says; the transaction is the caller's, and so is its repetition.
    """
    built = build_now(
        thread_id,
        sends,
        topic=topic,
        fan_out_id=fan_out_id,
        fold=fold,
        base=base,
        quorum=quorum,
        max_failures=max_failures,
        deadline=deadline,
        on_deadline=on_deadline,
        traceparent=traceparent,
        source=source,
        claim_store=claim_store,
    )
    delay_ms = _delay_ms(delay)
    if claim_store is not None:
        claim_store.put_all_blocking(built.fan_out.id, built.large_args)
    own: AbstractContextManager[Any] = conn.transaction() if _needs_transaction(conn) else nullcontext()
    try:
        with own:
            for parameters in _statements(built.records, delay_ms):
                conn.execute(ENQUEUE, parameters, binary=True)
    except psycopg.Error as error:
        raise _explained(error) from error
    return Enqueued(built.fan_out.id, built.task_ids)


async def aenqueue(
    conn: psycopg.AsyncConnection[Any],
    thread_id: str,
    sends: Iterable[object],
    *,
    topic: str = DEFAULT_TOPIC,
    fan_out_id: str | None = None,
    fold: str | None = None,
    base: Mapping[str, int] | None = None,
    quorum: int | None = None,
    max_failures: int | None = None,
    deadline: datetime | timedelta | None = None,
    on_deadline: OnDeadline = "fail",
    delay: timedelta = timedelta(0),
    traceparent: str | None = None,
    source: str = "fanfold",
    claim_store: ClaimStore | None = None,
) -> Enqueued:
    """`enqueue` for an asynchronous connection."""
    built = build_now(
        thread_id,
        sends,
        topic=topic,
        fan_out_id=fan_out_id,
        fold=fold,
        base=base,
        quorum=quorum,
        max_failures=max_failures,
        deadline=deadline,
        on_deadline=on_deadline,
        traceparent=traceparent,
        source=source,
        claim_store=claim_store,
    )
    delay_ms = _delay_ms(delay)
    if claim_store is not None:
        await claim_store.put_all(built.fan_out.id, built.large_args)
    own: AbstractAsyncContextManager[Any] = conn.transaction() if _needs_transaction(conn) else nullcontext()
    try:
        async with own:
            for parameters in _statements(built.records, delay_ms):
                await conn.execute(ENQUEUE, parameters, binary=True)
    except psycopg.Error as error:
        raise _explained(error) from error
    return Enqueued(built.fan_out.id, built.task_ids)


def _delay_ms(delay: timedelta) -> int:
    if not timedelta(0) <= delay <= _DELAY_MAX:
        raise ValueError(f"a delay of {delay} is not between 0 and {_DELAY_MAX.days} days")
    return int(delay.total_seconds() * 1000)


def _needs_transaction(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    # Only there would each statement commit by itself. Elsewhere a block of ours would commit for the caller.
    return conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE


def _statements(records: list[Record], delay_ms: int) -> Iterator[list[Any]]:
    """Parameters of `ENQUEUE`, as often as its bounds want it."""
    chunk: list[Record] = []
    chunk_bytes = 0
    for record in records:
        if chunk and (len(chunk) == _STATEMENT_RECORDS_MAX or chunk_bytes > _STATEMENT_BYTES_MAX):
            yield _parameters(chunk, delay_ms)
            chunk, chunk_bytes = [], 0
        chunk.append(record)
        chunk_bytes += len(record.value or b"")
    yield _parameters(chunk, delay_ms)


def _parameters(records: list[Record], delay_ms: int) -> list[Any]:
    return enqueue_parameters(
        [OutboxRecord(r.topic, r.key, r.value, pack_headers(r.headers), delay_ms=delay_ms) for r in records]
    )


def _explained(error: psycopg.Error) -> Exception:
    translated = translate(error)
    return translated if isinstance(translated, MigrationNeeded) else error
