"""Records that are to be published once the caller's own transaction commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from fanfold_sql.records import OutboxRecord

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
