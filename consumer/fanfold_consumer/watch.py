"""Tasks that take longer are asked about again: what nobody needs any more is stopped, wherever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fanfold_consumer.assignment import Partition
from fanfold_consumer.events import log
from fanfold_consumer.execute import Executor
from fanfold_consumer.intake import CHECK_TASKS_MAX
from fanfold_consumer.work import Work

LOOK_EVERY_S = 1.0


class Watch:
    """Looks after what the executor has in hand. Its fan-out was cancelled, say, or superseded, or has its quorum.

    Only tasks that were there at the look before are asked about, so a short one costs nothing; and one of them speaks
    for its fan-out until there is something to say, so a thousand that are queued cost no more than one.

    Args:
        verdicts: per task why its handler need not run, or None. It waits for a store that is away; a verdict is as
            good when it comes late, because it does not change.
    """

    def __init__(self, executor: Executor, verdicts: Callable[[list[Work]], Awaitable[list[str | None]]]) -> None:
        self._executor = executor
        self._verdicts = verdicts
        self._seen: set[tuple[Partition, int, str]] = set()

    async def work(self) -> None:
        """Look once a second, for as long as the fleet lives."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Stop what was there at the last look and is not needed any more."""
        # Kept by place: the work itself would keep its record in memory for a second after it is done.
        in_hand = {_place(work): work for work in self._executor.in_hand()}
        fan_outs: dict[object, list[Work]] = {}
        for place in self._seen & in_hand.keys():
            fan_outs.setdefault(_fan_out(in_hand[place]), []).append(in_hand[place])
        self._seen = set(in_hand)
        ended = await self._ask([of_one[0] for of_one in fan_outs.values()])
        needless = await self._ask([work for first in ended for work in fan_outs[_fan_out(first)]])
        # A conflict is the commit's to park; it may also turn out stale by then.
        stopped = self._executor.stop({work: why for work, why in needless.items() if why != "conflict"})
        for why, tasks in stopped.items():
            log.info("task.stopped", why=why, tasks=tasks)

    async def _ask(self, works: list[Work]) -> dict[Work, str]:
        """Those that need not run, and why."""
        found: dict[Work, str] = {}
        for start in range(0, len(works), CHECK_TASKS_MAX):
            page = works[start : start + CHECK_TASKS_MAX]
            verdicts = await self._verdicts(page)
            found |= {work: why for work, why in zip(page, verdicts, strict=True) if why is not None}
        return found


def _place(work: Work) -> tuple[Partition, int, str]:
    """With the task's id, because folds in place have no offset of their own."""
    return work.delivery.partition, work.delivery.offset, work.task.task_id


def _fan_out(work: Work) -> object:
    """What its verdict depends on, but for its own result. A fold is none of the tasks that it comes after."""
    return work.task.fan_out.id, work.task.run, work.task.is_fold
