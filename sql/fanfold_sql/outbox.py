"""Records that are to be published once the caller's own transaction commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from fanfold_sql.arrays import Byteas, Int4s, Texts
from fanfold_sql.records import OutboxRecord

ENQUEUE: LiteralString = "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int4[])"
"""Topics, keys, values, headers (see `pack_headers`) and delays in milliseconds."""


async def enqueue_records(connection: psycopg.AsyncConnection[Any], records: Sequence[OutboxRecord]) -> None:
    """Have records published once the transaction commits, each at least once."""
    await connection.execute(
        ENQUEUE,
        (
            Texts([record.topic for record in records]),
            Byteas([record.key for record in records]),
            Byteas([record.value for record in records]),
            Byteas([record.headers for record in records]),
            Int4s([record.delay_ms for record in records]),
        ),
        binary=True,
    )
