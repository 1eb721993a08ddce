"""Head-of-line: how long results of cold threads wait, ready to committed, beside a thread that everybody writes to.

Members are the fleet's own committers and stores, without Kafka. Each gets the same stream at a fixed rate, so that
waiting does not thin the load out: some results of cold threads and one of the hot thread at a time. The baseline gets
as many results, all of cold threads.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from uuid import uuid4

import psycopg
from confluent_kafka import Message

from fanfold_consumer.assignment import Partition, Phase
from fanfold_consumer.committer import Committer
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.offsets import Tracker
from fanfold_consumer.patience import Patience
from fanfold_consumer.relay import Publication
from fanfold_consumer.work import Completion, Delivery
from fanfold_schemas import FanOut, Task
from fanfold_schemas.limits import FAN_OUT_SIZE_MAX
from fanfold_sql import Finished, FoldOf, Store
from tests.benchmarks.measure import interleave, percentile, ratio
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack

NAME = "hot_thread"

_MEMBERS = (2, 4, 16)
_ARRIVALS_PER_S = 200
"""Of all members together, each of so many results. On two cores this leaves most of the time idle: what is measured is
waiting, not load."""
_COLD_AT_ONCE = 4
_COLD_THREADS = 64
_COLD = [f"cold-{number}" for number in range(_COLD_THREADS)]
_HOT = "hot"
_WITHOUT = "no hot thread"
_SECONDS = 4.0
_FOREIGN_HOLD_S = 0.2
_END_S = 60.0
_PAYLOAD = b"\xc4\xc8" + bytes(200)
_LOCK_KEY = "select pg_advisory_xact_lock(hashtextextended(%s, 4207))"
"""As in commit_results.sql."""


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    seconds = _SECONDS / 4 if quick else _SECONDS
    for members in _MEMBERS:
        yield from _beside(stack, members, seconds, repetitions, say)


def _beside(
    stack: BenchStack, members: int, seconds: float, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio]:
    held = f"hot thread, held {_FOREIGN_HOLD_S * 1000:.0f} ms at a time"
    scenes = {
        _WITHOUT: Scene(members, seconds, hot=False, held=False),
        "hot thread": Scene(members, seconds, hot=True, held=False),
        held: Scene(members, seconds, hot=True, held=True),
    }
    hot_ms: dict[str, list[float]] = {name: [] for name in scenes}
    cold = interleave(
        {name: partial(_play, stack, scene, hot_ms[name]) for name, scene in scenes.items()},
        repetitions,
        telling(say, f"{NAME}, {members} members", repetitions, "ms p99"),
    )
    for name, samples in cold.items():
        yield Figure(NAME, f"{members} members, {name}: cold p99", "ms", samples)
        if scenes[name].hot:
            yield Figure(NAME, f"{members} members, {name}: its own p99", "ms", hot_ms[name])
            value = ratio(samples, cold[_WITHOUT])
            yield Ratio(NAME, f"{members} members, {name}: cold p99 ÷ without", value, None, True)


@dataclass(frozen=True, slots=True)
class Scene:
    """`hot`: a fifth of the results are of one thread. `held`: another session takes its lock, half of the time."""

    members: int
    seconds: float
    hot: bool
    held: bool


def _play(stack: BenchStack, scene: Scene, hot_ms: list[float]) -> float:
    """p99 of the cold results in ms; that of the hot ones goes to `hot_ms`."""
    with stack.database() as dsn:
        waits = asyncio.run(_waits(dsn, scene))
    if scene.hot:
        hot_ms.append(1000 * percentile(waits.hot_s, 99))
    return 1000 * percentile(waits.cold_s, 99)


@dataclass(slots=True)
class Waits:
    """Ready to committed, of each result."""

    hot_s: list[float] = field(default_factory=list)
    cold_s: list[float] = field(default_factory=list)


class Results:
    """Finished tasks of a fan-out a thread that none of them completes."""

    def __init__(self) -> None:
        self._next: dict[str, Iterator[int]] = {}

    def of(self, thread_id: str) -> Finished:
        index = next(self._next.setdefault(thread_id, count()))
        task = Task(f"{thread_id}:{index}", thread_id, FanOut(f"f-{thread_id}", FAN_OUT_SIZE_MAX), index, "noop")
        return Finished(task, _PAYLOAD)


class Member:
    """A committer with one partition, whose deliveries finish the moment they come."""

    def __init__(self, store: Store, number: int, waits: Waits, *, results_max: int = 1000) -> None:
        self._number = number
        self._store = store
        self._waits = waits
        self._offsets = count()
        self._ready: dict[int, tuple[float, bool]] = {}
        self._owner_id = uuid4()
        self._partition = Partition("bench", number, Phase.RUNNING)
        self._message = Message("bench", number)
        self._committer = Committer(
            store,
            self._owner_id,
            Parking("bench"),
            Patience(),
            Metrics(),
            self,
            results_max=results_max,
            bytes_max=8_000_000,
            lease_ms=30_000,
            settled=self._settled,
            publish=lambda publications: None,
            folds=self,
        )
        self._work: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()

    def begin(self, outbox_id: int, fold: FoldOf, partition: Partition) -> None:
        raise AssertionError("no fan-out of this part is completed")

    def end(self, publication: Publication, *, stored: bool) -> None:
        raise AssertionError("no fan-out of this part is completed")

    async def join(self) -> None:
        claim = await self._store.claim_partition("bench", "cluster", "bench", "topic", self._number, self._owner_id)
        self._partition.progress_id, self._partition.epoch = claim.progress_id, claim.epoch
        self._partition.tracker = Tracker(0)
        self._work = asyncio.create_task(self._committer.work())

    def finish(self, results: Iterable[Finished]) -> None:
        for result in results:
            offset = next(self._offsets)
            self._partition.tracker.deliver(offset)
            self._ready[offset] = (time.perf_counter(), result.task.thread_id == _HOT)
            self._committer.finish(Completion(Delivery(self._partition, offset, self._message, 0), result))

    async def settled(self) -> None:
        """Until everything is committed."""
        assert self._work is not None
        async with asyncio.timeout(_END_S):
            while self._ready:
                self._quiet.clear()
                quiet = asyncio.ensure_future(self._quiet.wait())
                await asyncio.wait([quiet, self._work], return_when=asyncio.FIRST_COMPLETED)
                quiet.cancel()
                if self._work.done():
                    self._work.result()

    async def leave(self) -> None:
        """Once everything is committed."""
        await self.settled()
        assert self._work is not None
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    def on_fenced(self, partitions: Iterable[Partition]) -> None:
        raise RuntimeError(f"fenced, and nobody else is there: {list(partitions)}")

    def on_rewound(self, partitions: Iterable[Partition]) -> None:
        raise RuntimeError(f"rewound, and no server failed: {list(partitions)}")

    def _settled(self, deliveries: Iterable[Delivery]) -> None:
        now = time.perf_counter()
        for delivery in deliveries:
            since, hot = self._ready.pop(delivery.offset)
            (self._waits.hot_s if hot else self._waits.cold_s).append(now - since)
        if not self._ready:
            self._quiet.set()


async def _waits(dsn: str, scene: Scene) -> Waits:
    waits, results, chance = Waits(), Results(), random.Random(1)
    async with Store.open(dsn, pool_size=scene.members * 2) as store:
        members = [Member(store, number, waits) for number in range(scene.members)]
        for member in members:
            await member.join()
        # Opens every fan-out and prepares every connection's statement, so that no first time is measured.
        for thread_id in _COLD:
            for member in members:
                member.finish([results.of(thread_id)])
            await asyncio.sleep(0)
        members[0].finish([results.of(_HOT)])
        await asyncio.gather(*(member.settled() for member in members))
        waits.cold_s.clear()
        waits.hot_s.clear()
        async with _held(dsn) if scene.held else _left_alone():
            every_s = scene.members / _ARRIVALS_PER_S
            await asyncio.gather(
                *(
                    _feed(member, every_s, (n + 1) / _ARRIVALS_PER_S, scene, results, chance)
                    for n, member in enumerate(members)
                )
            )
            for member in members:
                await member.leave()
    return waits


async def _feed(
    member: Member,
    every_s: float,
    first_s: float,
    scene: Scene,
    results: Results,
    chance: random.Random,
) -> None:
    began = time.perf_counter()
    due_s = first_s
    while due_s < scene.seconds:
        await asyncio.sleep(max(0.0, began + due_s - time.perf_counter()))
        member.finish([results.of(thread_id) for thread_id in arrival(scene, chance)])
        due_s += every_s


def arrival(scene: Scene, chance: random.Random) -> list[str]:
    """The threads of what finishes at once: as many in every scene."""
    *others, last = chance.sample(_COLD, _COLD_AT_ONCE + 1)
    return [*others, _HOT if scene.hot else last]


@asynccontextmanager
async def _held(dsn: str) -> AsyncIterator[None]:
    """Another session that takes the hot thread's lock and keeps it for a while, again and again."""

    async def hold() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute(_LOCK_KEY, (_HOT,))
                    await asyncio.sleep(_FOREIGN_HOLD_S)
                await asyncio.sleep(_FOREIGN_HOLD_S)

    holding = asyncio.create_task(hold())
    try:
        yield
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


@asynccontextmanager
async def _left_alone() -> AsyncIterator[None]:
    yield
