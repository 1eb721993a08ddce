"""Natural group commit: one commit on its way, and whatever finished meanwhile goes with the next. It never waits for a
batch to fill, so what a crash makes run again is what was in flight plus one commit.

Nor does it wait long for a thread that others commit to: what belongs to a busy one is held back while everything else
goes on, and tried again with each commit.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from itertools import chain, repeat
from typing import Protocol
from uuid import UUID

from fanfold_consumer.assignment import Partition
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.events import log
from fanfold_consumer.intake import CONFLICT
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.relay import Publication, row_record
from fanfold_consumer.work import Completion, Delivery
from fanfold_schemas import Outcome
from fanfold_sql import (
    Busy,
    CommitBatch,
    CommitReply,
    Conflict,
    Fenced,
    FoldOf,
    Rewound,
    Store,
    StoreRejected,
)

WAIT_COMMITS = 4
WAIT_MS_MIN, WAIT_MS_MAX = 25, 100
"""So long a commit waits for a thread before it goes on without it: so many times the quickest of the last commits,
within these bounds. Members share most threads for a moment, and what is held back costs another call."""


class Owner(Protocol):
    """Who hears what a commit found out about our partitions. Both mark the claims as lost."""

    def on_fenced(self, partitions: Iterable[Partition]) -> None: ...
    def on_rewound(self, partitions: Iterable[Partition]) -> None: ...


class Folds(Protocol):
    """Who runs the folds of the fan-outs that a commit completed, and hears what became of those in place."""

    def begin(self, outbox_id: int, fold: FoldOf, partition: Partition) -> None: ...
    def end(self, publication: Publication, *, stored: bool) -> None: ...


class Committer:
    """Commits completions in batches.

    Args:
        settled: given each delivery that is committed or dropped: it is in flight no more.
        publish: given what the outbox now holds for us to publish.
    """

    def __init__(
        self,
        store: Store,
        owner_id: UUID,
        parking: Parking,
        patience: Patience,
        metrics: Metrics,
        owner: Owner,
        *,
        results_max: int,
        bytes_max: int,
        lease_ms: int,
        settled: Callable[[list[Delivery]], None],
        publish: Callable[[list[Publication]], None],
        folds: Folds,
    ) -> None:
        self._store = store
        self._owner_id = owner_id
        self._parking = parking
        self._patience = patience
        self._metrics = metrics
        self._owner = owner
        self._results_max = results_max
        self._bytes_max = bytes_max
        self._lease_ms = lease_ms
        self._settled = settled
        self._publish = publish
        self._folds = folds
        self._finished: deque[Completion] = deque()
        # Held back: others were committing to their threads.
        self._busy: deque[Completion] = deque()
        # How long the last commits took, without those that were refused.
        self._lately_s: deque[float] = deque([0.0], maxlen=16)
        self._moved: set[Partition] = set()
        self._arrived = asyncio.Event()

    def finish(self, completion: Completion) -> None:
        """Queue a completion for the next commit."""
        if completion.delivery.in_place is not None and completion.result is None and not completion.outbox:
            completion = Completion(completion.delivery, dropped=True)
        self._finished.append(completion)
        self._arrived.set()

    def move(self, partition: Partition) -> None:
        """Commit the progress of a partition that moved without a completion."""
        self._moved.add(partition)
        self._arrived.set()

    async def work(self) -> None:
        """Commit for as long as the fleet lives."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._finished or self._moved or self._busy:
                await self._commit_some()

    async def _commit_some(self) -> None:
        if not self._finished and not self._moved:
            await self._commit(self._take(self._busy), set(), wait_ms=self._wait_ms())
            return
        if self._busy:
            await self._commit(self._take(self._busy), set(), wait_ms=0)
        batch = self._take(self._finished)
        if self._busy:  # still: what belongs to their threads is not waited for a second time
            known = {_thread_id(completion) for completion in self._busy}
            self._busy.extend(completion for completion in batch if _thread_id(completion) in known)
            batch = [completion for completion in batch if _thread_id(completion) not in known]
        moved, self._moved = self._moved, set()
        await self._commit(batch, moved, wait_ms=self._wait_ms())

    def _wait_ms(self) -> int:
        return round(min(WAIT_MS_MAX, max(WAIT_MS_MIN, 1000 * WAIT_COMMITS * min(self._lately_s))))

    def _take(self, queue: deque[Completion]) -> list[Completion]:
        batch: list[Completion] = []
        size = 0
        while queue and len(batch) < self._results_max and size < self._bytes_max:
            completion = queue.popleft()
            size += completion.payload_bytes
            batch.append(completion)
        return batch

    async def _commit(self, completions: list[Completion], moved: set[Partition], *, wait_ms: int) -> None:
        live = completions
        busy: list[Completion] = []
        while True:
            live = [c for c in live if not c.dropped and not c.delivery.partition.lost]
            moved = {partition for partition in moved if not partition.lost}
            if not live and not moved:
                break
            partitions, batch = self._batch(live, moved)
            started = asyncio.get_running_loop().time()
            try:
                reply = await self._patience.call("commit", self._send(batch, wait_ms))
            except Busy as error:
                busy += [completion for completion in live if _thread_id(completion) in error.thread_ids]
                live = [completion for completion in live if _thread_id(completion) not in error.thread_ids]
                wait_ms = 0
            except Fenced as error:
                self._owner.on_fenced([p for p in partitions if p.progress_id in error.progress_ids])
            except Rewound as error:
                self._owner.on_rewound([p for p in partitions if p.progress_id in error.progress_ids])
            except Conflict as error:
                live = self._park_conflicts(live, error.positions)
            except StoreRejected as error:
                live = await self._park_rejected(live, error)
            else:
                for completion in live:
                    if completion.delivery.in_place is None:
                        completion.delivery.partition.tracker.finish(completion.delivery.offset)
                self._note(live, partitions, batch, reply, asyncio.get_running_loop().time() - started)
                break
        self._busy.extend(busy)
        # By their deliveries, because one that was parked on the way is another completion now.
        held_back = {completion.delivery for completion in busy}
        settled = [completion.delivery for completion in completions if completion.delivery not in held_back]
        stored = {completion.delivery for completion in live}
        for delivery in settled:
            if delivery.in_place is not None:
                self._folds.end(delivery.in_place, stored=delivery in stored)
        self._settled(settled)

    def _send(self, batch: CommitBatch, wait_ms: int) -> Callable[[], Awaitable[CommitReply]]:
        # Once an answer was lost this very batch may be stored, and with it progress that must not go back: after that
        # it is waited for as it is, also for threads that others commit to.
        waits_ms = chain((wait_ms,), repeat(None))
        return lambda: self._store.commit(batch, lease_ms=self._lease_ms, wait_ms=next(waits_ms))

    def _try(self, batch: CommitBatch) -> Callable[[], Awaitable[None]]:
        return lambda: self._store.try_commit(batch)

    def _batch(
        self, live: Iterable[Completion], moved: Iterable[Partition] = ()
    ) -> tuple[list[Partition], CommitBatch]:
        finishing: dict[Partition, set[int]] = {partition: set() for partition in moved}
        batch = CommitBatch(results=[], owner=self._owner_id)
        for completion in live:
            delivery = completion.delivery
            offsets = finishing.setdefault(delivery.partition, set())
            if delivery.in_place is None:
                offsets.add(delivery.offset)
            else:
                batch.spent_outbox_ids.append(delivery.in_place.outbox_id)
            position = None
            if completion.result is not None:
                position = len(batch.results)
                batch.results.append(completion.result)
            if completion.dead_letter is not None:
                batch.dead_letters.append(completion.dead_letter)
                position = None  # a dead letter's copy goes out whatever becomes of its result
            for record in completion.outbox:
                batch.outbox.append(replace(record, result=position))
        for partition, finished in finishing.items():
            progress = partition.progress(finished)
            assert progress is not None  # something of it was delivered, or there were no completion
            batch.partitions.append(progress)
        return list(finishing), batch

    def _note(
        self,
        live: list[Completion],
        partitions: list[Partition],
        batch: CommitBatch,
        reply: CommitReply,
        seconds: float,
    ) -> None:
        for partition, progress, commit_seq in zip(partitions, batch.partitions, reply.commit_seqs, strict=True):
            partition.commit_seq = commit_seq
            partition.committed_offset = progress.next_offset
            if partition.tracker.at_rest and partition.tracker.next_offset != progress.next_offset:
                self.move(partition)  # to the end of the log, which was reached while this was on its way
        for letter in batch.dead_letters:
            self._metrics.parked(letter.code)
            log.warning("record.parked", code=letter.code, offset=letter.offset, progress_id=letter.progress_id)
        self._lately_s.append(seconds)
        self._metrics.committed(Counter(reply.outcomes), seconds)
        self._metrics.completed(len(reply.completed))
        publications = [
            Publication(outbox_id, row_record(record))
            for record, outbox_id in zip(batch.outbox, reply.outbox_ids, strict=True)
            if outbox_id is not None and not record.delay_ms
        ]
        if publications:
            self._publish(publications)
        if reply.completed:
            with_result = [(c.result, c.delivery.partition) for c in live if c.result is not None]
            # A stale one may be of another base, and the fold with it.
            results = {
                result.task.fan_out.id: (result, partition)
                for (result, partition), outcome in zip(with_result, reply.outcomes, strict=True)
                if outcome is Outcome.APPLIED
            }
            for done in reply.completed:
                log.debug("fan_out.completed", fan_out_id=done.fan_out_id, run=done.run)
                result, partition = results[done.fan_out_id]
                task = result.task
                if done.outbox_id is not None and task.fan_out.fold is not None:
                    fold = FoldOf(task.fan_out, done.run, task.thread_id, task.base)
                    self._folds.begin(done.outbox_id, fold, partition)

    def _park_conflicts(self, live: list[Completion], positions: frozenset[int]) -> list[Completion]:
        """The batch with the contradicting results turned into dead letters that no fan-out counts."""
        with_result = [completion for completion in live if completion.result is not None]
        conflicting = {id(with_result[position]) for position in positions}
        return [self._parked(c, "E_CONFLICT", CONFLICT) if id(c) in conflicting else c for c in live]

    async def _park_rejected(self, live: list[Completion], error: StoreRejected) -> list[Completion]:
        """The batch with what Postgres cannot take turned into dead letters.

        Found by halving, each half tried and rolled back: nothing is stored, and no progress moves, until the whole
        batch goes through.
        """
        log.warning("commit.split", results=len(live), sqlstate=error.sqlstate)
        rejected: set[int] = set()
        halves = [live]
        while halves:
            part = halves.pop()
            _, batch = self._batch(part)
            try:
                await self._patience.call("try_commit", self._try(batch))
            except (Fenced, Rewound, Conflict):
                continue  # the next try of the whole batch meets it, and knows what to do
            except StoreRejected:
                if len(part) == 1:
                    rejected.add(id(part[0]))
                else:
                    middle = len(part) // 2
                    halves += [part[:middle], part[middle:]]
        if not rejected or any(id(c) in rejected and c.result is None for c in live):
            # Not one result's fault (or a dead letter itself): going on would lose records, so the member stops.
            raise error
        return [await self._refused(c, error) if id(c) in rejected else c for c in live]

    async def _refused(self, completion: Completion, error: StoreRejected) -> Completion:
        """A completion that parks a result which Postgres cannot take. Its fan-out counts it as failed, unless Postgres
        refuses that as well: then it is the fan-out itself that it cannot take."""
        text = f"Postgres refused the result: {error}"
        counted = self._parked(completion, "E_COMMIT", text, counts=True)
        _, batch = self._batch([counted])
        try:
            await self._patience.call("try_commit", self._try(batch))
        except (Fenced, Rewound, Conflict):
            pass  # the next try of the whole batch meets it, and knows what to do
        except StoreRejected:
            return self._parked(completion, "E_COMMIT", text)
        return counted

    def _parked(self, completion: Completion, code: str, text: str, *, counts: bool = False) -> Completion:
        result = completion.result
        if completion.delivery.in_place is not None:
            return Completion(completion.delivery, dropped=True)
        if result is None:
            return self._parking.park(completion.delivery, code, text)
        return self._parking.park(
            completion.delivery, code, text, task=result.task, arg_hash=result.arg_hash, counts=counts
        )


def _thread_id(completion: Completion) -> str | None:
    """Whose lock its commit needs; none without a result."""
    return None if completion.result is None else completion.result.task.thread_id
