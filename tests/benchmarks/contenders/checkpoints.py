"""Workers that add their results to one channel of a thread's checkpoints, as fan-in: what the ways to do so share."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base import id as ids
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.contenders.fan_in_client import PAYLOAD, Client, Committed, Job, Work

CHANNEL = "results"
WARM_UPS = 8

# As the saver's documentation sets up its connections.
_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
_CONNECTIONS_MAX = 50
_CONNECTION_S = 300.0

Pool = AsyncConnectionPool[Any]


@dataclass(frozen=True, slots=True)
class Added:
    """As in `Commit`."""

    write_s: float
    rejections: int = 0


Add = Callable[[Pool, CheckpointTuple, str], Awaitable[Added]]
"""Add the result of a task whose work began from that checkpoint."""


class Way(Protocol):
    async def warm_up(self) -> None: ...

    async def add(self, parent: CheckpointTuple, task_id: str) -> Added: ...

    async def stored(self, thread_id: str) -> int: ...


class Puts:
    """A way that puts each result into a checkpoint of its own."""

    def __init__(self, pool: Pool, saver: type[AsyncPostgresSaver], add: Add) -> None:
        self._pool = pool
        self._saver = saver
        self._add = add

    async def warm_up(self) -> None:
        """Every connection once, since all of them are asked for at the same time."""
        await asyncio.gather(*(self._warm_up() for _ in range(self._pool.max_size)))

    async def add(self, parent: CheckpointTuple, task_id: str) -> Added:
        return await self._add(self._pool, parent, task_id)

    async def stored(self, thread_id: str) -> int:
        return len(task_ids(await newest(self._saver(self._pool), thread_id)))

    async def _warm_up(self) -> None:
        async with self._pool.connection() as connection:
            saver = self._saver(connection)
            thread_id = f"warm-{uuid.uuid4()}"
            await begin(saver, thread_id)
            for _ in range(WARM_UPS):
                await put_next(saver, await newest(saver, thread_id), str(uuid.uuid4()))


class Workers:
    """The contender: its workers all begin from a thread's first checkpoint."""

    def __init__(self, client: Client, saver: AsyncPostgresSaver, ways: Mapping[str, Way]) -> None:
        self._client = client
        self._saver = saver
        self._ways = ways

    async def set_up(self) -> None:
        await self._saver.setup()

    async def warm_up(self) -> None:
        for way in self._ways.values():
            await way.warm_up()

    async def prepare(self, job: Job) -> list[Work]:
        if self._client.number == 0:
            await begin(self._saver, job.thread_id)
        parent = await newest(self._saver, job.thread_id)
        return [self._worker(parent, job, number) for number in self._client.taking_part(job)]

    async def stored(self, job: Job) -> int:
        return await self._ways[job.way].stored(job.thread_id)

    def _worker(self, parent: CheckpointTuple, job: Job, number: int) -> Work:
        way = self._ways[job.way]
        own_ids = [str(uuid.uuid4()) for _ in range(number, job.results, job.workers)]

        async def add_all(committed: Committed) -> None:
            for task_id in own_ids:
                added = await way.add(parent, task_id)
                committed(1, added.write_s, added.rejections)

        return add_all


def pool_for(client: Client, size: int | None = None) -> Pool:
    """Connections of this process; without a size one for each worker, up to what a server likes to have."""
    size = size or min(len(client.own), _CONNECTIONS_MAX)
    # To wait for one is no error here; it is part of what is measured.
    return AsyncConnectionPool(
        client.dsn, min_size=size, max_size=size, timeout=_CONNECTION_S, kwargs=_CONNECTION, open=False
    )


async def begin(saver: AsyncPostgresSaver, thread_id: str) -> None:
    """The first checkpoint of a thread, of the step whose tasks the results are of."""
    checkpoint = empty_checkpoint()
    version = saver.get_next_version(None, None)
    checkpoint["channel_values"] = {CHANNEL: []}
    checkpoint["channel_versions"] = {CHANNEL: version}
    metadata: Any = {"source": "input", "step": 0, "parents": {}}
    await saver.aput(_config(thread_id), checkpoint, metadata, {CHANNEL: version})


async def newest(saver: AsyncPostgresSaver, thread_id: str) -> CheckpointTuple:
    found = await saver.aget_tuple(_config(thread_id))
    assert found is not None
    return found


async def put_next(saver: AsyncPostgresSaver, parent: CheckpointTuple, task_id: str) -> None:
    """The checkpoint after `parent`, with one more result. Its id is the one that LangGraph would give it."""
    versions = parent.checkpoint["channel_versions"]
    version = saver.get_next_version(str(versions[CHANNEL]), None)
    checkpoint = parent.checkpoint.copy()
    # Within a process ids ascend whatever the clock does. Each worker stands for a process, on a host of its own.
    ids._last_v6_timestamp = None
    checkpoint["id"] = str(ids.uuid6())
    checkpoint["channel_versions"] = {**versions, CHANNEL: version}
    results = [*parent.checkpoint["channel_values"][CHANNEL], (task_id, PAYLOAD)]
    checkpoint["channel_values"] = {CHANNEL: results}
    step = parent.metadata["step"] + 1
    await saver.aput(parent.config, checkpoint, {"source": "loop", "step": step, "parents": {}}, {CHANNEL: version})


async def read_and_put(saver: AsyncPostgresSaver, thread_id: str, task_id: str) -> None:
    """For who has the thread's lock."""
    await put_next(saver, await newest(saver, thread_id), task_id)


async def put_at_once(saver: AsyncPostgresSaver, parent: CheckpointTuple, task_id: str) -> Added:
    """Without looking whether somebody else went on from the same checkpoint."""
    began = time.monotonic()
    await put_next(saver, parent, task_id)
    return Added(time.monotonic() - began)


def task_ids(checkpoint: CheckpointTuple) -> set[str]:
    """Whose results are in it."""
    return {task_id for task_id, _ in checkpoint.checkpoint["channel_values"][CHANNEL]}


def thread_of(checkpoint: CheckpointTuple) -> str:
    return str(checkpoint.config["configurable"]["thread_id"])


def _config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
