"""Handlers are run again on tasks of the log, and what they come to is compared with what is stored.

Nothing is committed, published or parked: it is the fleet's own executor, with other ends. Whatever handlers do
outside, they do again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fanfold_consumer.assignment import Partition, Phase
from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.config import FleetConfig
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.errors import FanfoldError
from fanfold_consumer.execute import Executor
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.registry import Registry
from fanfold_consumer.relay import fold_task
from fanfold_consumer.replay.differences import payload_difference
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.sift import Found, Selection, Sieve, Tally
from fanfold_consumer.work import Completion, Delivery, Work, as_message
from fanfold_producer.claim_store import ClaimStore
from fanfold_schemas import ClaimCheck, arg_hash, decode_task, derive_child_fan_out_id
from fanfold_schemas.claim_check import claim_check_for
from fanfold_sql import FoldOf, OutboxRecord, Place, Store

_DEFAULTS: Any = FleetConfig.__dataclass_fields__
SHOWN = 100
"""Differences that are kept; all are counted."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks to verify.

    Attributes:
        limit: no more than these, the first that are found.
        sample: so many of all, chosen at random by `seed`; they are kept in memory until all are read.
    """

    topic: str
    cluster_id: str
    topic_id: str
    thread_id: str | None = None
    fan_out_id: str | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A task whose handler does not come to what is stored. `kind`: `result`, `sends` or `failure`."""

    kind: str
    at: str
    thread_id: str
    fan_out_id: str
    task_id: str
    index: int
    node: str
    what: str


@dataclass(slots=True)
class Verified:
    """What was compared. `skipped`: why tasks were not, by reason."""

    tally: Tally = field(default_factory=Tally)
    tasks: int = 0
    folds: int = 0
    same: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        return not self.kinds


class DryClaimStore(ClaimStore):
    """Values are fetched from it and never put into it: what the claim check of one would be is known without."""

    async def put(self, fan_out_id: str, data: bytes) -> ClaimCheck:
        return claim_check_for(data)


class Verifier:
    """Runs handlers, at most `concurrency` at once, and compares. `claim_store`: a dry one."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        claim_store: ClaimStore | None,
        wanted: Wanted,
        *,
        concurrency: int,
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._concurrency = concurrency
        self._ends: dict[int, asyncio.Future[Completion]] = {}
        # Those that were come across, each as a fan-out and its run.
        self._folds: set[tuple[str, int]] = set()
        self.report = Verified()
        self._executor = Executor(
            registry,
            store,
            Parking("verify"),
            Patience(),
            Metrics(),
            ClaimChecks(claim_store, Patience("claim store"), bytes_max=_DEFAULTS["in_flight_bytes_max"].default),
            concurrency=concurrency,
            sync_workers=min(concurrency, _DEFAULTS["sync_workers"].default),
            process_workers=_DEFAULTS["process_workers"].default,
            retry_in_place_s=_DEFAULTS["retry_in_place_s"].default,
            finish=self._finish,
            failed=self._fail,
        )

    async def run(self, reader: LogReader, on_read: Callable[[Tally], None] = lambda _: None) -> Verified:
        """Verify what `reader` was started on.

        Raises:
            StoreUnavailable, BrokerUnavailable, BrokerRefused, ReplayRefused: begin again; nothing was changed.
        """
        report, wanted = self.report, self._wanted
        sieve = Sieve(Selection(wanted.thread_id, rerun=False), report.tally)
        chance = random.Random(wanted.seed)
        kept: list[Found] = []
        eligible = 0
        try:
            while records := await asyncio.to_thread(reader.read):
                batch = await self._with_result(self._with_folds(sieve.sift(records)))
                on_read(report.tally)
                if wanted.sample is None:
                    left = len(batch) if wanted.limit is None else wanted.limit - eligible
                    await self._verify(batch[:left])
                    eligible += len(batch[:left])
                    if wanted.limit is not None and eligible >= wanted.limit:
                        break
                    continue
                for entry in batch:
                    # Each of all seen so far is among the kept with the same chance.
                    eligible += 1
                    if len(kept) < wanted.sample:
                        kept.append(entry)
                    elif (place := chance.randrange(eligible)) < wanted.sample:
                        kept[place] = entry
            await self._verify(kept)
        finally:
            await self._executor.close()
        return report

    def _with_folds(self, found: Sequence[Found]) -> list[Found]:
        """With the fold of each run of a fan-out, once: it has a record of its own only if it did not run in place."""
        tasks = []
        for entry in found:
            task = entry.task
            if not task.is_fold:
                tasks.append(entry)
            fold = (task.fan_out.id, task.run)
            if task.fan_out.fold is not None and fold not in self._folds:
                self._folds.add(fold)
                of = FoldOf(task.fan_out, task.run, task.thread_id, task.base)
                tasks.append(Found(fold_task(of), entry.record))
        return tasks

    async def _with_result(self, found: Sequence[Found]) -> list[Found]:
        """The tasks whose result of this very run is stored."""
        wanted, skipped = self._wanted, self.report.skipped
        if wanted.fan_out_id is not None:
            found = [entry for entry in found if entry.task.fan_out.id == wanted.fan_out_id]
        places = [Place(f.record.partition, f.record.offset, f.task, arg_hash(f.task)) for f in found]
        stored = await self._store.audit_tasks(wanted.cluster_id, wanted.topic_id, [], places) if places else []
        with_result = []
        for entry, known in zip(found, stored, strict=True):
            if known.status is None:
                if not entry.task.is_fold:  # of a fan-out that is not complete there is none
                    skipped["without a result"] += 1
            elif not known.matches:
                skipped["contradict what is stored"] += 1
            elif known.run != entry.task.run:
                skipped["of another run than the result"] += 1
            elif known.status != "done":
                skipped["failed" if known.status == "failed" else "reopened"] += 1
            else:
                with_result.append(entry)
        return with_result

    async def _verify(self, entries: Sequence[Found]) -> None:
        children = await self._store.existing_fan_outs([_child_id(entry) for entry in entries]) if entries else set()
        # Results may be large: no more of them in memory than handlers that run.
        for start in range(0, len(entries), self._concurrency):
            page = entries[start : start + self._concurrency]
            await asyncio.gather(*(self._compare(entry, _child_id(entry) in children) for entry in page))

    async def _compare(self, entry: Found, has_child: bool) -> None:
        report, task = self.report, entry.task
        found = await self._store.read_results(task.fan_out.id, after=task.index - 1, limit=1)
        stored = found[0].payload if found and (found[0].task_id, found[0].run) == (task.task_id, task.run) else None
        if stored is None:
            report.skipped["reopened"] += 1
            return
        completion = await self._run(entry)
        result = completion.result
        if task.is_fold:
            report.folds += 1
        else:
            report.tasks += 1
        if completion.dead_letter is not None:
            self._differs("failure", entry, f"{completion.dead_letter.code}: {completion.dead_letter.error[:300]}")
        elif result is None and completion.outbox:
            self._differs("failure", entry, "failed, and asked to be tried again later")
        elif result is None or result.payload is None:
            report.skipped["reopened"] += 1
        else:
            value = await asyncio.to_thread(payload_difference, stored, result.payload)
            sends = await self._sends_difference(entry, completion.outbox, has_child)
            if value is not None:
                self._differs("result", entry, value)
            if sends is not None:
                self._differs("sends", entry, sends)
            report.same += value is None and sends is None

    async def _sends_difference(self, entry: Found, records: Sequence[OutboxRecord], has_child: bool) -> str | None:
        """How the fan-out that a handler asks for now differs from the one that is stored, as far as that is known."""
        if not records:
            return "it asked for a fan-out, now for none" if has_child else None
        asked = [decode_task(record.value) for record in records]
        known = await self._store.read_fan_out(asked[0].fan_out.id)
        if known is None:
            self.report.skipped["sends of which no result is stored"] += 1
            return None
        fan_out = asked[0].fan_out
        if known.size > 0 and (known.size, known.fold) != (fan_out.size, fan_out.fold):
            return f"{known.size} sends with fold {known.fold!r} are stored, now {fan_out.size} with {fan_out.fold!r}"
        wanted = self._wanted
        places = [Place(0, -1, child, arg_hash(child)) for child in asked if not child.is_fold]
        stored = await self._store.audit_tasks(wanted.cluster_id, wanted.topic_id, [], places)
        for place, found in zip(places, stored, strict=True):
            differs = found.holder is not None or (found.status is not None and not found.matches)
            if differs and place.task is not None:
                return f"send {place.task.index} is for another node, arg or task_id than the one that is stored"
        return None

    def _differs(self, kind: str, entry: Found, what: str) -> None:
        report, task, record = self.report, entry.task, entry.record
        report.kinds[kind] += 1
        if len(report.differences) < SHOWN:
            at = f"{self._wanted.topic}-{record.partition}@{record.offset}"
            report.differences.append(
                Difference(kind, at, task.thread_id, task.fan_out.id, task.task_id, task.index, task.node, what)
            )

    async def _run(self, entry: Found) -> Completion:
        record = entry.record
        partition = Partition(self._wanted.topic, record.partition, Phase.RUNNING)
        message = as_message(record.key, record.value, record.headers)
        delivery = Delivery(partition, record.offset, message, len(record.value or b""))
        end: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._ends[id(delivery)] = end
        self._executor.submit(Work(delivery, entry.task, arg_hash(entry.task)))
        return await end

    def _finish(self, completion: Completion) -> None:
        end = self._ends.pop(id(completion.delivery))
        if not end.done():
            end.set_result(completion)

    def _fail(self, error: BaseException) -> None:
        for end in self._ends.values():
            if not end.done():
                end.set_exception(FanfoldError(f"cannot verify: {type(error).__name__}: {error}"))


def _child_id(entry: Found) -> str:
    """The id of the fan-out that the task's handler asked for, if it did."""
    return derive_child_fan_out_id(entry.task.task_id, entry.task.run)
