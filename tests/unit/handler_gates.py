"""Handlers that run until a test lets them, and tasks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.assignment import Partition
from fanfold_consumer.work import Work
from tests.support.wait import eventually_async
from tests.unit.executor_bench import BOUND_S
from tests.unit.fleet_records import a_task, some_work


class Gates:
    """A handler that runs until its task's gate is opened."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.most_at_once = 0
        self._gates: dict[int, asyncio.Event] = {}
        self.registry.task("work", retries=0)(self._work)

    def open(self, *indexes: int) -> None:
        for index in indexes:
            self._gate(index).set()

    def _gate(self, index: int) -> asyncio.Event:
        return self._gates.setdefault(index, asyncio.Event())

    async def _work(self, arg: Any, context: TaskContext) -> int:
        self.begun.append(context.index)
        self.most_at_once = max(self.most_at_once, len(self.begun) - len(self.ended) - len(self.cancelled))
        try:
            await self._gate(context.index).wait()
        except asyncio.CancelledError:
            self.cancelled.append(context.index)
            raise
        self.ended.append(context.index)
        return context.index

    async def begin(self, *indexes: int) -> None:
        """Wait until exactly these have begun."""

        async def begun() -> bool:
            return len(self.begun) >= len(indexes)

        await eventually_async(begun, BOUND_S)
        assert sorted(self.begun) == sorted(indexes)


def work_of(*indexes: int, partition: Partition | None = None) -> list[Work]:
    return [some_work(a_task(index=index, size=1000), partition=partition, offset=index) for index in indexes]


def run_bounded(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * BOUND_S):
            await scenario()

    asyncio.run(bounded())


async def turns(count: int = 5) -> None:
    """Let everything that is ready on the loop happen."""
    for _ in range(count):
        await asyncio.sleep(0)
