"""One of the client processes of a fan-in: it hears of a job, gets ready, starts at a given moment and says when each
commit was durable. What differs between the contenders is a `Contender`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

PAYLOAD = bytes(range(200))

# Asleep until shortly before the start, awake for the rest: a timer may be a millisecond late, a loop is not.
_AWAKE_S = 0.002


@dataclass(frozen=True, slots=True)
class Job:
    """Results for one thread, all of them ready at the same moment.

    Attributes:
        workers: how many share them, spread over the client processes.
        fan_outs: how many fan-outs they belong to, in equal parts, one after another.
        batch_max: results in one commit.
    """

    thread_id: str
    results: int
    workers: int
    fan_outs: int = 1
    batch_max: int = 1

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


Committed = Callable[[int], None]
"""Called with the number of results of a commit as soon as that is durable."""

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


def run_client(ways: Mapping[str, Opening]) -> None:
    """The program of a client, by one of the ways that it knows. Asks come as lines of JSON, and are answered so."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=list(ways))
    parser.add_argument("dsn")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()
    client = Client(options.dsn, options.number, options.clients, options.workers)
    asyncio.run(_serve(ways[options.way], client))


async def _serve(opening: Opening, client: Client) -> None:
    async with opening(client) as contender:
        work: list[Work] = []
        async for ask, value in _asks():
            answer: Any = None
            if ask == "set_up":
                await contender.set_up()
            elif ask == "warm_up":
                await contender.warm_up()
            elif ask == "prepare":
                work = await contender.prepare(Job(**value))
            elif ask == "start":
                answer = await _run(work, value)
            else:
                answer = await contender.stored(Job(**value))
            print(json.dumps({"answer": answer}), flush=True)


async def _asks() -> AsyncIterator[tuple[str, Any]]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        message = json.loads(line)
        yield message["ask"], message["value"]


async def _run(work: list[Work], at: float) -> list[tuple[int, float]]:
    """(results, seconds from ready to durable) of every commit."""
    commits: list[tuple[int, float]] = []
    ready = asyncio.Event()

    def committed(results: int) -> None:
        commits.append((results, time.monotonic() - at))

    async def when_ready(one: Work) -> None:
        await ready.wait()
        await one(committed)

    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(when_ready(one))
        await asyncio.sleep(max(0.0, at - time.monotonic() - _AWAKE_S))
        while time.monotonic() < at:
            pass
        ready.set()
    return commits
