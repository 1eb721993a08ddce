"""Fan-in as the fleet does it: `commit_results` with the progress of a claimed partition, everything that is ready at
once, up to the limit of a batch. With a limit of one it is one transaction per result."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from psycopg_pool import AsyncConnectionPool

from fanfold_schemas import FanOut, Task, derive_task_id
from fanfold_sql import CommitBatch, Finished, PartitionCommit, Store
from fanfold_sql.pool import connection_settings
from tests.benchmarks.contenders.fan_in_client import PAYLOAD, Client, Committed, Job, Work, run_client

_TOPIC = "bench.fan-in.v1"
_BASE = {"main": 1}
# Statements are prepared after three calls, and the procedure's own when it first comes to them.
_WARM_UPS = 8
_PAGE = 1000


class _Member:
    """One member: its connection, its partition and how far that is."""

    def __init__(self, store: Store, number: int) -> None:
        self._store = store
        self._number = number
        self._owner = uuid.uuid4()
        self._progress_id = 0
        self._epoch = 0
        self._commit_seq = 0
        self._offset = 0

    async def warm_up(self, topic_id: str) -> None:
        claim = await self._store.claim_partition("fan-in", "bench", _TOPIC, topic_id, self._number, self._owner)
        self._progress_id, self._epoch, self._commit_seq = claim.progress_id, claim.epoch, claim.commit_seq
        for _ in range(_WARM_UPS):
            job = Job(f"warm-{uuid.uuid4()}", results=2, workers=1)
            await self.commit(_results(job, range(2)))

    async def commit(self, results: list[Finished]) -> None:
        self._offset += len(results)
        progress = PartitionCommit(self._progress_id, self._epoch, self._commit_seq, self._offset, ())
        reply = await self._store.commit(CommitBatch(results, [progress], owner=self._owner))
        (self._commit_seq,) = reply.commit_seqs

    def work(self, job: Job) -> Work:
        finished = _results(job, range(self._number, job.results, job.workers))
        batches = [finished[at : at + job.batch_max] for at in range(0, len(finished), job.batch_max)]

        async def commit_all(committed: Committed) -> None:
            for batch in batches:
                began = time.monotonic()
                await self.commit(batch)
                committed(len(batch), time.monotonic() - began)

        return commit_all


class _Fanfold:
    def __init__(self, client: Client, members: dict[int, _Member], store: Store) -> None:
        self._client = client
        self._members = members
        self._store = store

    async def set_up(self) -> None:
        """The tables are there."""

    async def warm_up(self) -> None:
        topic_id = str(uuid.uuid4())
        await asyncio.gather(*(member.warm_up(topic_id) for member in self._members.values()))

    async def prepare(self, job: Job) -> list[Work]:
        return [self._members[number].work(job) for number in self._client.taking_part(job)]

    async def stored(self, job: Job) -> int:
        """Only of complete fan-outs: a result that was not counted down is as good as lost."""
        found = 0
        for fan_out in await self._store.list_fan_outs(thread_id=job.thread_id, limit=job.fan_outs):
            after = -1
            while fan_out.completed_at and (
                page := await self._store.read_results(fan_out.fan_out_id, after=after, limit=_PAGE)
            ):
                found += len(page)
                after = page[-1].index
        return found


def _results(job: Job, positions: range) -> list[Finished]:
    fan_outs = [FanOut(f"{job.thread_id}.{number}", job.width, fold="count") for number in range(job.fan_outs)]
    finished = []
    for position in positions:
        number, index = divmod(position, job.width)
        fan_out = fan_outs[number]
        task = Task(derive_task_id(fan_out.id, index), job.thread_id, fan_out, index, "work", base=_BASE)
        finished.append(Finished(task, PAYLOAD, arg_hash=index, topic=_TOPIC))
    return finished


@asynccontextmanager
async def _open(client: Client) -> AsyncIterator[_Fanfold]:
    async with AsyncExitStack() as stack:

        async def store() -> Store:
            # One connection, since a committer has one commit on its way at a time. The store's own pool would let go
            # of it while the other contenders have their turn, and it would come back cold.
            pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
                client.dsn, min_size=1, max_size=1, kwargs=connection_settings(), open=False
            )
            return Store(await stack.enter_async_context(pool))

        members = {number: _Member(await store(), number) for number in client.own}
        yield _Fanfold(client, members, await store())


if __name__ == "__main__":
    run_client(_open)
