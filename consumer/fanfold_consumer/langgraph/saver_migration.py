"""From a stock saver's database to ours, in place, and back."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

# Many processes set up at once when a service starts; "if not exists" alone does not keep them apart.
_LOCK = "select pg_advisory_xact_lock(4207002)"
_IS_NEW = "select to_regclass('checkpoint_migrations') is null"
_STOCK_VERSION = "insert into checkpoint_migrations (v) values (%s)"
_SCHEMA = """
select quote_ident(n.nspname), exists (
    select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'checkpoint_becomes_head')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = to_regclass('checkpoints')
"""
# For its sake everybody who writes checkpoints is waited for and kept waiting, so it is made once.
_TRIGGER = """
create trigger checkpoint_becomes_head after insert on {schema}.checkpoints
for each row execute function {schema}.checkpoint_becomes_head()
"""
# Nobody reads or writes checkpoints from then on until we are through.
_STOP = "drop trigger checkpoint_becomes_head on {schema}.checkpoints"
_NOT_NEWEST = """
select c.thread_id, c.checkpoint_ns, c.checkpoint_id, n.newest
from {schema}.checkpoint_heads h
join {schema}.checkpoints c using (thread_id, checkpoint_ns, checkpoint_id)
cross join lateral (
    select max(o.checkpoint_id) as newest from {schema}.checkpoints o
    where o.thread_id = h.thread_id and o.checkpoint_ns = h.checkpoint_ns) n
where n.newest <> c.checkpoint_id
"""
# As LangGraph's own copy of a checkpoint (`update_state(..., as_node="__copy__")`): same parent, one step on.
_COPY_AS = """
insert into {schema}.checkpoints
    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
select thread_id, checkpoint_ns, %(copy)s, parent_checkpoint_id, type,
    jsonb_set(checkpoint, '{id}', to_jsonb(%(copy)s::text)),
    metadata || jsonb_build_object('source', 'fork', 'step', coalesce((metadata ->> 'step')::integer, -1) + 1)
from {schema}.checkpoints
where thread_id = %(thread_id)s and checkpoint_ns = %(checkpoint_ns)s and checkpoint_id = %(head)s
"""
_REMOVE = (
    "drop function {schema}.checkpoint_becomes_head()",
    "drop table {schema}.checkpoint_heads",
)


async def create_stock_tables(connection: psycopg.AsyncConnection[Any], migrations: Sequence[str]) -> None:
    """In a database without them, what the stock saver's setup would make: at once, so that many may ask for it.

    Of several of its own setups all but one fail. One that has begun, or is of an earlier release, is left to it.
    """
    async with connection.transaction():
        await connection.execute(_LOCK)
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_IS_NEW)
            if await cursor.fetchone() != (True,):
                return
        for version, migration in enumerate(migrations):
            # Nobody writes to a table that is not there yet, and only outside a transaction it could be concurrent.
            await connection.execute(migration.replace(" CONCURRENTLY ", " ").encode())
            await connection.execute(_STOCK_VERSION, (version,))


async def set_up(connection: psycopg.AsyncConnection[Any]) -> None:
    """Add the heads to a stock saver's tables; what is there stays as it is."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        schema, has_trigger = await _schema(connection)
        text = resources.files("fanfold_consumer.langgraph").joinpath("saver_setup.sql").read_text(encoding="utf-8")
        # Several statements cannot be prepared, which the stock saver's own connections do at once.
        await connection.execute(text.replace("{schema}", schema).encode(), prepare=False)
        if not has_trigger:
            await connection.execute(_in(schema, _TRIGGER))


async def revert(connection: psycopg.AsyncConnection[Any]) -> int:
    """Make the database a stock saver's again; how many heads had to be copied for it."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        schema, has_trigger = await _schema(connection)
        if not has_trigger:
            return 0
        await connection.execute(_in(schema, _STOP))
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_in(schema, _NOT_NEWEST))
            hidden = await cursor.fetchall()
        for thread_id, checkpoint_ns, head, newest in hidden:
            # The id after the largest, which is the only thing that the stock saver goes by.
            place = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "head": head}
            copy = str(UUID(int=UUID(newest).int + 1))
            await connection.execute(_in(schema, _COPY_AS), {**place, "copy": copy})
        for statement in _REMOVE:
            await connection.execute(_in(schema, statement))
        return len(hidden)


async def _schema(connection: psycopg.AsyncConnection[Any]) -> tuple[str, bool]:
    """Where the stock saver's tables are, quoted, and whether ours were added."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_SCHEMA)
        row = await cursor.fetchone()
    assert row is not None, "the stock saver's own setup comes first"
    return row[0], row[1]


def _in(schema: str, statement: str) -> bytes:
    return statement.replace("{schema}", schema).encode()
