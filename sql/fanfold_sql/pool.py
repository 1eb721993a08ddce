"""Connections: autocommit, bounded waits, nothing that needs a session to stay with one client (PgBouncer)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from fanfold_sql.errors import StoreUnavailable

CONNECT_TIMEOUT_S = 5
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
    """A pool of up to `size` connections, opened lazily, so that starting up does not need the database."""
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
        dsn,
        min_size=0,
        max_size=size,
        open=False,
        timeout=ACQUIRE_TIMEOUT_S,
        max_idle=60.0,
        reconnect_timeout=5.0,
        kwargs=connection_settings(prepare=prepare),
        name="fanfold",
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


def connect(dsn: str, *, prepare: bool = True) -> psycopg.Connection[Any]:
    """One blocking connection; raises `StoreUnavailable` with the server's reason."""
    try:
        return psycopg.connect(dsn, **connection_settings(prepare=prepare))
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"cannot connect to Postgres: {error}".strip()) from error
