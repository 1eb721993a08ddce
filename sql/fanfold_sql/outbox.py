"""Records that are to be published: written in the transaction of whoever wants it, read by relays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from fanfold_schemas import FanOut
from fanfold_sql.records import FoldOf, OutboxRecord, OutboxRow

ENQUEUE: LiteralString = "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int4[])"
"""Topics, keys, values, headers (see `pack_headers`) and delays in milliseconds."""


def enqueue_parameters(records: Sequence[OutboxRecord]) -> list[Any]:
    """Parameters of `ENQUEUE`. Lists, not columns of `arrays`: a connection that a caller opened before that module was
    imported does not know those."""
    return [
        [record.topic for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records],
        [record.delay_ms for record in records],
    ]


async def enqueue_records(connection: psycopg.AsyncConnection[Any], records: Sequence[OutboxRecord]) -> None:
    """Have records published once the transaction commits, each at least once."""
    await connection.execute(ENQUEUE, enqueue_parameters(records), binary=True)


def outbox_row(row: tuple[Any, ...]) -> OutboxRow:
    """A row of `claim_outbox`."""
    (
        outbox_id,
        topic,
        key,
        value,
        headers,
        fan_out_id,
        run,
        thread_id,
        size,
        base,
        fold,
        quorum,
        max_failures,
        deadline_ms,
        on_deadline,
    ) = row
    fold_of = None
    if fan_out_id is not None:
        fan_out = FanOut(fan_out_id, size, fold, quorum, deadline_ms, max_failures, on_deadline)
        fold_of = FoldOf(fan_out, run, thread_id, base)
    return OutboxRow(outbox_id, topic, key, value, headers, fold_of)
