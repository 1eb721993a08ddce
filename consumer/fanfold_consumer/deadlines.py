"""Deadlines of fan-outs: made known to Postgres when a task is first seen, and acted on when they pass.

The clock is that of Postgres alone: members whose clocks differ must not end work that others still have time for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from fanfold_consumer.assignment import Partition
from fanfold_consumer.events import log
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_schemas import Task
from fanfold_sql import Store, StoreRejected

SWEEP_EVERY_S = 1.0
SWEEP_MAX = 100
OPENED_MAX = 10_000
"""Fan-outs remembered as opened here. One that is forgotten is opened once more, which changes nothing."""


class Deadlines:
    """Opens fan-outs that have a deadline, and ends those, anybody's, whose deadline has passed."""

    def __init__(self, store: Store, patience: Patience, metrics: Metrics) -> None:
        self._store = store
        self._patience = patience
        self._metrics = metrics
        # By claim, because what was opened under one that is void now may be lost with it.
        self._opened: OrderedDict[tuple[Partition, str], None] = OrderedDict()

    async def open(self, tasks: Iterable[tuple[Task, Partition]]) -> None:
        """Note the deadlines of these tasks, which have one, each with where it came from, before any of them runs.

        Without it a fan-out of which nothing ever finishes would be unknown to Postgres, and would never end.
        """
        new = {
            (partition, task.fan_out.id): (task, partition.topic)
            for task, partition in tasks
            if not task.is_fold and (partition, task.fan_out.id) not in self._opened
        }
        if not new:
            return
        try:
            await self._patience.call("open_fan_outs", lambda: self._store.open_fan_outs(list(new.values())))
        except StoreRejected:
            return  # as with check_tasks: the commit can tell which of them it is
        self._opened.update(dict.fromkeys(new))
        while len(self._opened) > OPENED_MAX:
            self._opened.popitem(last=False)
        # Some may be past theirs already, after a long time in the log: their tasks need not begin.
        await self.sweep()

    async def sweep(self) -> None:
        """Act on every deadline that has passed."""
        while True:
            expired = await self._patience.call("expire_fan_outs", lambda: self._store.expire_fan_outs(limit=SWEEP_MAX))
            for fan_out in expired:
                log.info("fan_out.expired", fan_out_id=fan_out.fan_out_id, folds=fan_out.folds)
            self._metrics.expired(len(expired))
            if not expired:
                return

    async def work(self) -> None:
        """Sweep for as long as the fleet lives. All members do, at once: none is needed for it."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            await self.sweep()
