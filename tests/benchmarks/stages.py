"""Where the processor time of a task goes: each stage of a member by itself, and the server's part of its two calls.

Processor time and not wall time, so that a busy machine changes little. What reading from Kafka costs is in
`throughput`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import ormsgpack
from confluent_kafka import Message

from fanfold_consumer import Registry
from fanfold_consumer.assignment import Partition, Phase
from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.execute import Executor
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.work import Completion, Delivery, Work
from fanfold_schemas import Task, arg_hash, decode_task
from fanfold_sql import CommitBatch, Finished, PartitionCommit, Store
from tests.benchmarks.backlog import NODE, build_backlog
from tests.benchmarks.report import Figure
from tests.benchmarks.servers import BenchStack

NAME = "stages"

_BATCH = 1_000
_BATCHES = 5
# Plans are made in the first calls of a connection.
_WARM_UP = 2


def run(stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]) -> Iterator[Figure | str]:
    found: dict[str, list[float]] = {}
    dsn = stack.fresh_database()
    for number in range(repetitions):
        say(f"{NAME}: round {number + 1} of {repetitions}")
        for stage, microseconds in asyncio.run(_measure(dsn, 1 if quick else _BATCHES)).items():
            found.setdefault(stage, []).append(microseconds)
    stack.drop_database(dsn)
    for stage, values in found.items():
        yield Figure(NAME, stage, "CPU us/task", values)
    yield f"{NAME}: batches of {_BATCH:,} tasks in fan-outs of 100, args of 200 bytes, which the handler returns"


class _Clock:
    """Processor time by stage, of this thread or of a server's process."""

    def __init__(self, backend_pid: int) -> None:
        self._backend = Path(f"/proc/{backend_pid}/schedstat")
        self.seconds: dict[str, float] = {}

    @contextmanager
    def member(self, stage: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        self._add(stage, time.thread_time() - began)

    @contextmanager
    def server(self, stage: str) -> Iterator[None]:
        began = self._server_s()
        yield
        self._add(stage, self._server_s() - began)

    def _server_s(self) -> float:
        return int(self._backend.read_text().split()[0]) / 1e9

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


async def _measure(dsn: str, batches: int) -> dict[str, float]:
    """Microseconds a task, by stage."""
    async with Store.open(dsn, pool_size=1) as store:
        async with store.transaction() as connection:
            clock = _Clock(connection.info.backend_pid)
        owner = uuid4()
        claim = await store.claim_partition("bench", "bench", "bench", "bench", 0, owner)
        commit_seq, next_offset = claim.commit_seq, claim.next_offset or 0
        for number in range(_WARM_UP + batches):
            if number == _WARM_UP:
                clock.seconds.clear()
            values = [record.value or b"" for record in build_backlog(_BATCH)]
            with clock.member("msgpack alone (in decode)"):
                for value in values:
                    ormsgpack.unpackb(value)
            with clock.member("decode"):
                tasks = [decode_task(value) for value in values]
            with clock.member("fingerprint of the arg"):
                hashes = [arg_hash(task) for task in tasks]
            with clock.member("check, member"), clock.server("check, server"):
                await store.check_tasks(tasks, hashes)
            works = _works(values, tasks, hashes)
            with clock.member("run"):
                results = await _results(store, works)
            next_offset += _BATCH
            progress = PartitionCommit(claim.progress_id, claim.epoch, commit_seq, next_offset, ())
            with clock.member("commit, member"), clock.server("commit, server"):
                reply = await store.commit(CommitBatch(results, [progress], owner=owner))
            (commit_seq,) = reply.commit_seqs
    return {stage: seconds / (batches * _BATCH) * 1e6 for stage, seconds in clock.seconds.items()}


def _works(values: Sequence[bytes], tasks: Sequence[Task], hashes: Sequence[int]) -> list[Work]:
    partition = Partition("bench", 0, Phase.RUNNING)
    messages = [Message("bench", 0, offset, None, value, None) for offset, value in enumerate(values)]
    return [
        Work(Delivery(partition, offset, message, len(message)), task, fingerprint)
        for offset, (message, task, fingerprint) in enumerate(zip(messages, tasks, hashes, strict=True))
    ]


async def _results(store: Store, works: Sequence[Work]) -> list[Finished]:
    """Through an executor, as the fleet has it."""
    registry = Registry()

    @registry.task(NODE)
    async def noop(arg: Any) -> Any:
        return arg

    results: list[Finished] = []
    done = asyncio.Event()

    def finish(completion: Completion) -> None:
        assert completion.result is not None
        results.append(completion.result)
        if len(results) == len(works):
            done.set()

    patience = Patience()
    executor = Executor(
        registry,
        store,
        Parking("bench"),
        patience,
        Metrics(),
        ClaimChecks(None, patience, bytes_max=1 << 30),
        concurrency=256,
        sync_workers=1,
        process_workers=1,
        retry_in_place_s=0.0,
        finish=finish,
        failed=lambda error: done.set(),
    )
    for work in works:
        executor.submit(work)
    await done.wait()
    await executor.close()
    return results
