"""Fan-in with FanfoldSaver, two ways.

- `locked`: reads the head and puts the next checkpoint in a transaction that holds the thread's lock.
- `refused`: puts a checkpoint after the one that its work began from, as a graph would; if somebody else was first,
  that is refused, and it does as above.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from langgraph.checkpoint.base import CheckpointTuple

from fanfold_consumer.langgraph import FanfoldSaver, ForkRefused
from tests.benchmarks.contenders.checkpoints import (
    Added,
    Pool,
    Puts,
    Way,
    Workers,
    pool_for,
    put_at_once,
    read_and_put,
    thread_of,
)
from tests.benchmarks.contenders.fan_in_client import Client, run_client


async def _locked(pool: Pool, parent: CheckpointTuple, task_id: str) -> Added:
    thread_id = thread_of(parent)
    async with FanfoldSaver(pool).locked(thread_id) as saver:
        began = time.monotonic()
        await read_and_put(saver, thread_id, task_id)
    return Added(time.monotonic() - began)


async def _refused(pool: Pool, parent: CheckpointTuple, task_id: str) -> Added:
    try:
        return await put_at_once(FanfoldSaver(pool), parent, task_id)
    except ForkRefused:
        return replace(await _locked(pool, parent, task_id), rejections=1)


@asynccontextmanager
async def _open(client: Client) -> AsyncIterator[Workers]:
    async with pool_for(client) as pool:
        ways: dict[str, Way] = {
            "locked": Puts(pool, FanfoldSaver, _locked),
            "refused": Puts(pool, FanfoldSaver, _refused),
        }
        yield Workers(client, FanfoldSaver(pool), ways)


if __name__ == "__main__":
    run_client(_open)
