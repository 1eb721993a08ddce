"""From records to work: each delivery is noted, decoded, and asked about in Postgres before any handler runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from confluent_kafka import Message

from fanfold_consumer.assignment import Assignment, Partition, Phase
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.deadlines import Deadlines
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.work import Completion, Delivery, Work
from fanfold_schemas import SchemaError, arg_hash, decode_task
from fanfold_sql import Store, StoreRejected

CHECK_TASKS_MAX = 1000


class Intake:
    """Takes batches from the poller and hands on what must run.

    Args:
        run: given each task whose handler must run.
        finish: given each delivery that needs no handler.
    """

    def __init__(
        self,
        assignment: Assignment,
        store: Store,
        parking: Parking,
        patience: Patience,
        metrics: Metrics,
        deadlines: Deadlines,
        *,
        run: Callable[[Work], None],
        finish: Callable[[Completion], None],
    ) -> None:
        self._assignment = assignment
        self._store = store
        self._parking = parking
        self._patience = patience
        self._metrics = metrics
        self._deadlines = deadlines
        self._run = run
        self._finish = finish
        self._deliveries: deque[Delivery] = deque()
        self._arrived = asyncio.Event()

    def accept(self, messages: list[Message]) -> tuple[int, int]:
        """Note deliveries of partitions that are ours; what is of another claim, or finished, is let go here.

        Returns how many are in flight from here on, and the bytes of their values.
        """
        partition: Partition | None = None
        before = len(self._deliveries)
        bytes_accepted = 0
        for message in messages:
            topic, number, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert number is not None
            assert offset is not None
            if partition is None or partition.number != number or partition.topic != topic:
                partition = self._assignment.get((topic, number))
            if partition is None or partition.phase is not Phase.RUNNING:
                continue
            if not partition.tracker.deliver(offset):
                self._metrics.skipped("finished")
                continue
            size = len(message)
            bytes_accepted += size
            partition.in_flight += 1
            self._deliveries.append(Delivery(partition, offset, message, size))
        self._arrived.set()
        return len(self._deliveries) - before, bytes_accepted

    async def work(self) -> None:
        """Decode and check, for as long as the fleet lives."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._deliveries:
                count = min(CHECK_TASKS_MAX, len(self._deliveries))
                await self._take([self._deliveries.popleft() for _ in range(count)])

    async def _take(self, deliveries: list[Delivery]) -> None:
        work: list[Work] = []
        for delivery in deliveries:
            if not delivery.partition.may_begin:
                self._finish(Completion(delivery, dropped=True))
                continue
            try:
                task = decode_task(delivery.message.value())
            except SchemaError as error:
                self._finish(self._parking.park(delivery, error.code, str(error)))
            else:
                work.append(Work(delivery, task, arg_hash(task)))
        if not work:
            return
        await self._deadlines.open(
            [(item.task, item.delivery.partition) for item in work if item.task.fan_out.deadline_ms is not None]
        )
        for item, verdict in zip(work, await self.verdicts(work), strict=True):
            if not item.delivery.partition.may_begin:  # given up while we asked
                self._finish(Completion(item.delivery, dropped=True))
            elif verdict is None:
                self._run(item)
            elif verdict == "conflict":
                self._finish(
                    self._parking.park(
                        item.delivery,
                        "E_CONFLICT",
                        CONFLICT,
                        task=item.task,
                        arg_hash=item.arg_hash,
                        counts=False,
                    )
                )
            else:
                self._metrics.skipped(verdict)
                self._finish(Completion(item.delivery))

    async def verdicts(self, work: list[Work]) -> list[str | None]:
        """Per task why its handler need not run, or None; at most CHECK_TASKS_MAX. Waits for a store that is away."""
        tasks, hashes = [item.task for item in work], [item.arg_hash for item in work]
        try:
            return await self._patience.call("check_tasks", lambda: self._store.check_tasks(tasks, hashes))
        except StoreRejected:
            # The check only saves work; the commit decides, and can tell which result it is that Postgres cannot take.
            return [None] * len(work)


CONFLICT = (
    "the task contradicts what is stored: the same task_id with another arg or index, "
    "or a fan-out of another size, fold, base or thread"
)
