"""Fan-in with LangGraph's own saver, four ways.

- `aput_writes`: as LangGraph keeps the results of a step itself, as pending writes of the step's checkpoint. A saver
  per task on a pool, because one saver serialises its calls.
- `stock`: each worker adds its result to a channel of the checkpoint that its work began from, and puts that as the
  next one, as the saver's interface invites to. It loses nearly all of them.
- `optimistic`: the same, but it looks whether that checkpoint is still the newest before it puts, and whether its
  result is in the newest afterwards; else it backs off and tries again, for half a minute. Others may come between the
  look and the put.
- `lock`: reads the newest checkpoint and puts the next under an advisory lock for the thread, with a saver on the
  connection that has it.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from tests.benchmarks.contenders.checkpoints import (
    CHANNEL,
    WARM_UPS,
    Added,
    Pool,
    Puts,
    Way,
    Workers,
    begin,
    newest,
    pool_for,
    put_at_once,
    read_and_put,
    task_ids,
    thread_of,
)
from tests.benchmarks.contenders.fan_in_client import PAYLOAD, Client, run_client

# For each process; 2, 4, 16 and 50 were no faster: most of the time goes into the client, and the same for each.
_WRITES_POOL_SIZE = 8
# From 0.05 to 2 s lost more, 0.2 to 5 s and 0.5 to 5 s took longer, and 0.01 to 0.5 s did both.
_BACK_OFF_S, _BACK_OFF_MAX_S = 0.2, 2.0
_GIVE_UP_S = 30.0


class _Writes:
    """`aput_writes`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def warm_up(self) -> None:
        thread_id = f"warm-{uuid.uuid4()}"
        await begin(AsyncPostgresSaver(self._pool), thread_id)
        parent = await newest(AsyncPostgresSaver(self._pool), thread_id)
        await asyncio.gather(*(self.add(parent, str(uuid.uuid4())) for _ in range(WARM_UPS * _WRITES_POOL_SIZE)))

    async def add(self, parent: CheckpointTuple, task_id: str) -> Added:
        began = time.monotonic()
        await AsyncPostgresSaver(self._pool).aput_writes(parent.config, [(CHANNEL, PAYLOAD)], task_id)
        return Added(time.monotonic() - began)

    async def stored(self, thread_id: str) -> int:
        head = await newest(AsyncPostgresSaver(self._pool), thread_id)
        return len({write[0] for write in head.pending_writes or ()})


async def _stock(pool: Pool, parent: CheckpointTuple, task_id: str) -> Added:
    return await put_at_once(AsyncPostgresSaver(pool), parent, task_id)


async def _optimistic(pool: Pool, parent: CheckpointTuple, task_id: str) -> Added:
    saver, thread_id = AsyncPostgresSaver(pool), thread_of(parent)
    write_s, rejections = 0.0, 0
    give_up_at = time.monotonic() + _GIVE_UP_S
    while True:
        head = await newest(saver, thread_id)
        if task_id in task_ids(head) or time.monotonic() > give_up_at:
            return Added(write_s, rejections)
        if head.checkpoint["id"] == parent.checkpoint["id"]:
            write_s = (await put_at_once(saver, parent, task_id)).write_s
            continue
        await asyncio.sleep(random.uniform(0, min(_BACK_OFF_MAX_S, _BACK_OFF_S * 2.0**rejections)))
        rejections += 1
        parent = await newest(saver, thread_id)


async def _lock(pool: Pool, parent: CheckpointTuple, task_id: str) -> Added:
    thread_id = thread_of(parent)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (thread_id,))
        began = time.monotonic()
        await read_and_put(AsyncPostgresSaver(connection), thread_id, task_id)
    return Added(time.monotonic() - began)


@asynccontextmanager
async def _open(client: Client) -> AsyncIterator[Workers]:
    async with pool_for(client, _WRITES_POOL_SIZE) as for_writes, pool_for(client) as for_puts:
        ways: dict[str, Way] = {
            "aput_writes": _Writes(for_writes),
            "stock": Puts(for_puts, AsyncPostgresSaver, _stock),
            "optimistic": Puts(for_puts, AsyncPostgresSaver, _optimistic),
            "lock": Puts(for_puts, AsyncPostgresSaver, _lock),
        }
        yield Workers(client, AsyncPostgresSaver(for_writes), ways)


if __name__ == "__main__":
    run_client(_open)
