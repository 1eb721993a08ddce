"""Connections: autocommit, bounded waits, nothing that needs a session to stay with one client (PgBouncer)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from fanfold_sql.errors import StoreUnavailable

CONNECT_TIMEOUT_S = 5
_ADVICE = {
    "certificate verify failed": "check that sslrootcert names the authority that signed the server's certificate, and "
    "that it has not expired",
    "does not match host name": "connect to a host name that the server's certificate is for",
    "password authentication failed": "check user and password (in the URL, in PGPASSFILE or in the service file)",
}
ACQUIRE_TIMEOUT_S = 10.0


def connection_settings(*, prepare: bool = True) -> dict[str, Any]:
    """Keyword arguments for `psycopg.connect` as every part of Fanfold uses them."""
    return {
        "autocommit": True,
        "connect_timeout": CONNECT_TIMEOUT_S,
        # Without these a server that vanished without a word is waited for until TCP gives up, a quarter of an hour.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "application_name": "fanfold",
        "prepare_threshold": 3 if prepare else None,
    }


@asynccontextmanager
async def open_pool(dsn: str, *, size: int, prepare: bool = True) -> AsyncIterator[AsyncConnectionPool[Any]]:
    """A pool of up to `size` connections, opened lazily, so that starting up does not need the database.

    Prepared statements are used where a connection is direct only, and nowhere if `prepare` is False.
    """
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
        dsn,
        min_size=0,
        max_size=size,
        open=False,
        timeout=ACQUIRE_TIMEOUT_S,
        # A new connection parses and plans every procedure anew, which costs more than many commits.
        max_idle=600.0,
        reconnect_timeout=5.0,
        kwargs=connection_settings(prepare=prepare),
        configure=_prepare_only_if_direct if prepare else None,
        name="fanfold",
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def is_direct(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether no pooler is in between. A pooler makes up the process id that its clients are told at the start."""
    row = await (await connection.execute("select pg_catalog.pg_backend_pid()")).fetchone()
    return row is not None and row[0] == connection.info.backend_pid


async def _prepare_only_if_direct(connection: psycopg.AsyncConnection[Any]) -> None:
    # A pooler lends a server to several clients, and drivers give all of them the same few names: what one prepared
    # fails for the next, or runs in place of its own. Few poolers keep them apart, and our calls gain little by it.
    if not await is_direct(connection):
        connection.prepare_threshold = None


def connect(dsn: str, *, prepare: bool = True) -> psycopg.Connection[Any]:
    """One blocking connection; raises `StoreUnavailable` with the server's reason."""
    try:
        return psycopg.connect(dsn, **connection_settings(prepare=prepare))
    except psycopg.OperationalError as error:
        advice = "".join(f"; {what_to_do}" for reason, what_to_do in _ADVICE.items() if reason in str(error))
        raise StoreUnavailable(f"cannot connect to Postgres: {error}".strip() + advice) from error
