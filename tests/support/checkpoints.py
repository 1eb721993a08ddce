"""Savers on a database of a test's own, and checkpoints whose ids come from a clock that may be wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, empty_checkpoint
from psycopg_pool import AsyncConnectionPool

from fanfold_consumer.langgraph import FanfoldSaver
from fanfold_sql.pool import connection_settings
from tests.support.wait import eventually_async

T = TypeVar("T")

_UUID_EPOCH = 0x01B21DD213814000
_DEADLINE_S = 60.0


def with_saver(dsn: str, body: Callable[[FanfoldSaver], Coroutine[Any, Any, T]], *, size: int = 4) -> T:
    """Run `body` with a saver that is set up."""

    async def main() -> T:
        async with asyncio.timeout(_DEADLINE_S), FanfoldSaver.from_conn_string(dsn, size=size) as saver:
            await saver.setup()
            return await body(saver)

    return asyncio.run(main())


@asynccontextmanager
async def pool_of(dsn: str, size: int, *, prepare: bool = True) -> AsyncIterator[AsyncConnectionPool[Any]]:
    settings = connection_settings(prepare=prepare)
    async with AsyncConnectionPool(dsn, min_size=0, max_size=size, kwargs=settings, open=False) as pool:
        yield pool


def at(thread_id: str, checkpoint_id: str | None = None, *, checkpoint_ns: str = "") -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def id_in(config: RunnableConfig) -> str:
    checkpoint_id = config["configurable"]["checkpoint_id"]
    assert isinstance(checkpoint_id, str)
    return checkpoint_id


def made(items: list[Any], *, clock_ms: float = 0.0) -> Checkpoint:
    """A checkpoint with a channel `items`, made on a machine whose clock is off by so much."""
    checkpoint = empty_checkpoint()
    ticks = int(time.time_ns() + clock_ms * 1e6) // 100 + _UUID_EPOCH
    checkpoint["id"] = (
        f"{ticks >> 28:08x}-{ticks >> 12 & 0xFFFF:04x}-6{ticks & 0xFFF:03x}-8000-{random.getrandbits(48):012x}"
    )
    checkpoint["channel_values"] = {"items": items}
    checkpoint["channel_versions"] = {"items": f"{len(items):032}.{random.random():016}"}
    return checkpoint


async def put(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, items: list[Any], *, clock_ms: float = 0.0, **metadata: Any
) -> RunnableConfig:
    """Put a checkpoint with these items after the one that the config names, and return its config."""
    checkpoint = made(items, clock_ms=clock_ms)
    told: Any = {"source": "loop", "step": len(items), "parents": {}, **metadata}
    return await saver.aput(config, checkpoint, told, checkpoint["channel_versions"])


async def read(saver: BaseCheckpointSaver[Any], thread_id: str) -> CheckpointTuple:
    found = await saver.aget_tuple(at(thread_id))
    assert found is not None, f"thread {thread_id} has no checkpoint"
    return found


def items_of(checkpoint: CheckpointTuple) -> list[Any]:
    items = checkpoint.checkpoint["channel_values"]["items"]
    assert isinstance(items, list)
    return items


async def until_somebody_waits(dsn: str, locktype: str = "advisory") -> None:
    """Return when a session of this database waits for a lock of this kind."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

        async def waits() -> bool:
            found = await connection.execute(
                "select from pg_locks join pg_stat_activity using (pid) "
                "where not granted and locktype = %s and datname = current_database()",
                (locktype,),
            )
            return await found.fetchone() is not None

        await eventually_async(waits)
