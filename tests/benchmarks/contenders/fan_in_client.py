"""One of the client processes of a fan-in: it hears of a job, gets ready, starts at a given moment and says when each
commit was durable. What differs between the contenders is a `Contender`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple, Protocol

PAYLOAD = bytes(range(200))
FLEET = "fleet"

# Asleep until shortly before the start, awake for the rest: a timer may be a millisecond late, a loop is not.
_AWAKE_S = 0.002

_true_time_ns = time.time_ns
_ahead_ns = ContextVar("ahead_ns", default=0)


@dataclass(frozen=True, slots=True)
class Job:
    """Results for one thread, all of them ready at the same moment.

    Attributes:
        workers: how many share them, spread over the client processes.
        fan_outs: how many fan-outs they belong to, in equal parts, one after another.
        batch_max: results in one commit.
        way: by which of its contender's ways they are stored.
        ahead_ms: so far ahead is the clock of every second worker.
    """

    thread_id: str
    results: int
    workers: int
    fan_outs: int = 1
    batch_max: int = 1
    way: str = FLEET
    ahead_ms: float = 0.0

    @property
    def width(self) -> int:
        """Results of one fan-out."""
        return self.results // self.fan_outs


@dataclass(frozen=True, slots=True)
class Client:
    """Which of the processes this is, and which workers are its own."""

    dsn: str
    number: int
    clients: int
    workers: int

    @property
    def own(self) -> range:
        return range(self.number, self.workers, self.clients)

    def taking_part(self, job: Job) -> range:
        return range(self.number, job.workers, self.clients)


class Commit(NamedTuple):
    """What one commit came to.

    Attributes:
        seconds: from ready to durable.
        write_s: of that, in the calls that stored it, without waiting for a turn that was asked for before them.
        rejections: attempts before that were refused, or overwritten before they were looked at.
    """

    results: int
    seconds: float
    write_s: float
    rejections: int


class Committed(Protocol):
    """Called as soon as a commit is durable."""

    def __call__(self, results: int, write_s: float, rejections: int = 0) -> None: ...


Work = Callable[[Committed], Awaitable[None]]


class Contender(Protocol):
    async def set_up(self) -> None:
        """Once, in the first client, before anything else."""

    async def warm_up(self) -> None:
        """Prepared statements, plans and caches of every connection, on threads that no job has."""

    async def prepare(self, job: Job) -> list[Work]:
        """Everything that is done before a result is ready; a coroutine function per worker. The first client first."""

    async def stored(self, job: Job) -> int:
        """How many of the results a reader finds afterwards."""


Opening = Callable[[Client], AbstractAsyncContextManager[Contender]]


def run_client(opening: Opening) -> None:
    """The program of a client. Asks come as lines of JSON, and are answered so."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()
    client = Client(options.dsn, options.number, options.clients, options.workers)
    give_each_task_a_clock()
    asyncio.run(_serve(opening, client))


async def _serve(opening: Opening, client: Client) -> None:
    async with opening(client) as contender:
        work: list[Work] = []
        job = Job("", 0, 0)
        async for ask, value in _asks():
            answer: Any = None
            if ask == "set_up":
                await contender.set_up()
            elif ask == "warm_up":
                await contender.warm_up()
            elif ask == "prepare":
                job = Job(**value)
                work = await contender.prepare(job)
            elif ask == "start":
                answer = await _run(work, value, job.ahead_ms)
            else:
                answer = await contender.stored(Job(**value))
            print(json.dumps({"answer": answer}), flush=True)


async def _asks() -> AsyncIterator[tuple[str, Any]]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        message = json.loads(line)
        yield message["ask"], message["value"]


def give_each_task_a_clock() -> None:
    """From now on who asks Python for the time gets that of the task's own host: see `put_clock_ahead`."""
    time.time_ns = lambda: _true_time_ns() + _ahead_ns.get()
    time.time = lambda: time.time_ns() / 1e9


def put_clock_ahead(ahead_ms: float) -> None:
    """That of the task that calls it, and of what it starts."""
    _ahead_ns.set(round(ahead_ms * 1e6))


async def _run(work: list[Work], at: float, ahead_ms: float) -> list[Commit]:
    commits: list[Commit] = []
    ready = asyncio.Event()

    def committed(results: int, write_s: float, rejections: int = 0) -> None:
        commits.append(Commit(results, time.monotonic() - at, write_s, rejections))

    async def when_ready(one: Work, ahead_ms: float) -> None:
        put_clock_ahead(ahead_ms)
        await ready.wait()
        await one(committed)

    async with asyncio.TaskGroup() as group:
        for one, ahead in zip(work, cycle((0.0, ahead_ms))):
            group.create_task(when_ready(one, ahead))
        await asyncio.sleep(max(0.0, at - time.monotonic() - _AWAKE_S))
        while time.monotonic() < at:
            pass
        ready.set()
    return commits
