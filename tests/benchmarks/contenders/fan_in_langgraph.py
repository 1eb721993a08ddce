"""Fan-in with LangGraph's own saver, three ways.

- `aput_writes`: as LangGraph keeps the results of a step itself, as pending writes of the step's checkpoint. A saver
  per task on a pool, because one saver serialises its calls.
- `lock`: each worker adds its result to a channel of the newest checkpoint and puts that as the next one, under an
  advisory lock for the thread, with a saver on the connection that has it. A connection per worker.
- `stock`: the same without the lock, as the saver's interface invites to. It loses results.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.contenders.fan_in_client import PAYLOAD, Client, Committed, Job, Work, run_client

# As the saver's documentation sets up its connections.
_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
# For each process; 2, 4, 16 and 50 were no faster: most of the time goes into the client, and the same for each.
_POOL_SIZE = 8
_CHANNEL = "results"
_WARM_UPS = 8


class _PendingWrites:
    def __init__(self, client: Client, pool: AsyncConnectionPool[Any]) -> None:
        self._client = client
        self._pool = pool

    async def set_up(self) -> None:
        await AsyncPostgresSaver(self._pool).setup()

    async def warm_up(self) -> None:
        config = await _begin(AsyncPostgresSaver(self._pool), f"warm-{uuid.uuid4()}")
        await asyncio.gather(*(self._put(config, str(uuid.uuid4())) for _ in range(_WARM_UPS * _POOL_SIZE)))

    async def prepare(self, job: Job) -> list[Work]:
        saver = AsyncPostgresSaver(self._pool)
        if self._client.number == 0:
            await _begin(saver, job.thread_id)
        parent = await saver.aget_tuple(_config(job.thread_id))
        assert parent is not None
        return [self._worker(parent.config, job, number) for number in self._client.taking_part(job)]

    async def stored(self, job: Job) -> int:
        found = await AsyncPostgresSaver(self._pool).aget_tuple(_config(job.thread_id))
        assert found is not None
        return len({write[0] for write in found.pending_writes or ()})

    def _worker(self, config: Any, job: Job, number: int) -> Work:
        task_ids = _task_ids(job, number)

        async def put_all(committed: Committed) -> None:
            for task_id in task_ids:
                await self._put(config, task_id)
                committed(1)

        return put_all

    async def _put(self, config: Any, task_id: str) -> None:
        await AsyncPostgresSaver(self._pool).aput_writes(config, [(_CHANNEL, PAYLOAD)], task_id)


class _Puts:
    """`lock` and `stock`."""

    def __init__(self, client: Client, connections: dict[int, psycopg.AsyncConnection[Any]], *, locked: bool) -> None:
        self._client = client
        self._connections = connections
        self._locked = locked

    async def set_up(self) -> None:
        await AsyncPostgresSaver(self._connections[0]).setup()

    async def warm_up(self) -> None:
        await asyncio.gather(*(self._warm_up(connection) for connection in self._connections.values()))

    async def prepare(self, job: Job) -> list[Work]:
        if self._client.number == 0:
            await _begin(AsyncPostgresSaver(self._connections[0]), job.thread_id)
        return [self._worker(job, number) for number in self._client.taking_part(job)]

    async def stored(self, job: Job) -> int:
        newest = await AsyncPostgresSaver(self._connections[0]).aget_tuple(_config(job.thread_id))
        assert newest is not None
        return len({task_id for task_id, _ in newest.checkpoint["channel_values"][_CHANNEL]})

    def _worker(self, job: Job, number: int) -> Work:
        connection = self._connections[number]
        task_ids = _task_ids(job, number)

        async def put_all(committed: Committed) -> None:
            for task_id in task_ids:
                await self._add(connection, job.thread_id, task_id)
                committed(1)

        return put_all

    async def _add(self, connection: psycopg.AsyncConnection[Any], thread_id: str, task_id: str) -> None:
        if not self._locked:
            await _put_next(connection, thread_id, task_id)
            return
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (thread_id,))
            await _put_next(connection, thread_id, task_id)

    async def _warm_up(self, connection: psycopg.AsyncConnection[Any]) -> None:
        thread_id = f"warm-{uuid.uuid4()}"
        await _begin(AsyncPostgresSaver(connection), thread_id)
        for _ in range(_WARM_UPS):
            await self._add(connection, thread_id, str(uuid.uuid4()))


async def _put_next(connection: psycopg.AsyncConnection[Any], thread_id: str, task_id: str) -> None:
    saver = AsyncPostgresSaver(connection)
    parent = await saver.aget_tuple(_config(thread_id))
    assert parent is not None
    versions = parent.checkpoint["channel_versions"]
    version = saver.get_next_version(str(versions[_CHANNEL]), None)
    checkpoint = parent.checkpoint.copy()
    checkpoint["id"] = str(uuid6())
    checkpoint["channel_versions"] = {**versions, _CHANNEL: version}
    results = [*parent.checkpoint["channel_values"][_CHANNEL], (task_id, PAYLOAD)]
    checkpoint["channel_values"] = {_CHANNEL: results}
    step = parent.metadata["step"] + 1
    await saver.aput(parent.config, checkpoint, {"source": "loop", "step": step, "parents": {}}, {_CHANNEL: version})


async def _begin(saver: AsyncPostgresSaver, thread_id: str) -> Any:
    """The first checkpoint of a thread: the step whose tasks the results are of."""
    checkpoint = empty_checkpoint()
    version = saver.get_next_version(None, None)
    checkpoint["channel_values"] = {_CHANNEL: []}
    checkpoint["channel_versions"] = {_CHANNEL: version}
    metadata: Any = {"source": "input", "step": 0, "parents": {}}
    return await saver.aput(_config(thread_id), checkpoint, metadata, {_CHANNEL: version})


def _config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def _task_ids(job: Job, number: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(number, job.results, job.workers)]


@asynccontextmanager
async def _open_pending_writes(client: Client) -> AsyncIterator[_PendingWrites]:
    async with AsyncConnectionPool(
        client.dsn, min_size=_POOL_SIZE, max_size=_POOL_SIZE, kwargs=_CONNECTION, open=False
    ) as pool:
        yield _PendingWrites(client, pool)


@asynccontextmanager
async def _open_puts(client: Client, *, locked: bool) -> AsyncIterator[_Puts]:
    async with AsyncExitStack() as stack:
        connections: dict[int, psycopg.AsyncConnection[Any]] = {}
        for number in client.own:
            connection = await psycopg.AsyncConnection.connect(client.dsn, **_CONNECTION)
            connections[number] = await stack.enter_async_context(connection)
        yield _Puts(client, connections, locked=locked)


if __name__ == "__main__":
    run_client(
        {
            "aput_writes": _open_pending_writes,
            "lock": lambda client: _open_puts(client, locked=True),
            "stock": lambda client: _open_puts(client, locked=False),
        }
    )
