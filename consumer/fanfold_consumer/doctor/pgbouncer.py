"""Whether a pooler stands before Postgres, and how it pools.

PgBouncer does not say so itself. But it makes up the process id that a client is told at the start, hands one server
connection to several clients unless it pools by session, and refuses transactions if it pools by statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg.conninfo import make_conninfo

from fanfold_consumer.doctor.findings import Check, Plan, Verdict
from fanfold_sql.pool import connection_settings, is_direct

# The first tells as a rule; in a busy pool others may come in between.
_ROUNDS = 5

Connection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Pooling:
    """How a connection string leads to Postgres.

    Attributes:
        mode: `direct`: no pooler is in between.
        version: what the pooler calls itself; None: our role may not ask it.
    """

    mode: Literal["direct", "session", "transaction", "statement"]
    version: str | None = None


async def read_pooling(dsn: str) -> Pooling:
    """Look at the pooler through two connections. Raises `psycopg.Error` if there is none to be had."""
    async with await _connect(dsn) as one, await _connect(dsn) as other:
        if await is_direct(one):
            return Pooling("direct")
        version = await _version(dsn)
        if await _refuses_transactions(one):
            return Pooling("statement", version)
        if not await _share_a_server(one, other):
            return Pooling("session", version)
        return Pooling("transaction", version)


async def _connect(dsn: str, **overrides: str) -> Connection:
    return await psycopg.AsyncConnection.connect(make_conninfo(dsn, **overrides), **connection_settings(prepare=False))


async def _refuses_transactions(connection: Connection) -> bool:
    try:
        async with connection.transaction():
            await _server_pid(connection)
    except psycopg.errors.ProtocolViolation:
        return True
    return False


async def _share_a_server(one: Connection, other: Connection) -> bool:
    """Whether one client moves to another server, or its server serves the other, while both are connected."""
    for _ in range(_ROUNDS):
        mine = await _server_pid(one)
        # A pool that takes turns moves us on; one that hands on what came back last gives ours to the other.
        if await _server_pid(one) != mine or await _server_pid(other) == mine:
            return True
    return False


async def _server_pid(connection: Connection) -> int:
    row = await (await connection.execute("select pg_catalog.pg_backend_pid()")).fetchone()
    assert row is not None
    pid: int = row[0]
    return pid


async def _version(dsn: str) -> str | None:
    """From its console, which is open to the roles in `admin_users` and `stats_users` only."""
    try:
        async with await _connect(dsn, dbname="pgbouncer") as console:
            row = await (await console.execute("show version")).fetchone()
    except psycopg.Error:
        return None
    return None if row is None else str(row[0])


def _mode(pooling: Pooling, plan: Plan) -> Verdict:
    value = "direct connection" if pooling.mode == "direct" else f"{pooling.mode} pooling"
    if pooling.version is not None:
        value += f", {pooling.version}"
    return Verdict("fail" if pooling.mode == "statement" else "ok", value)


PGBOUNCER_CHECKS: tuple[Check[Pooling], ...] = (
    Check(
        "pgbouncer.mode",
        _mode,
        bound="direct, session or transaction",
        why="Reruns and reopening a fan-out are transactions of several statements, which statement pooling refuses.",
        fix="Set `pool_mode = transaction` in pgbouncer.ini.",
    ),
)
