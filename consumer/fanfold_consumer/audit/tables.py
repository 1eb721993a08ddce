"""What an audit asks the tables, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fanfold_consumer.audit.judge import Read
from fanfold_consumer.audit.scope import Scope
from fanfold_schemas import Task
from fanfold_sql import AuditedFanOut, AuditedTask, Place, Store

FAN_OUTS_PAGE = 500
RESULTS_PAGE = 100_000
"""Results that are counted through in one call at most, but for a fan-out that is as wide by itself."""
ASK_MAX = 500


@dataclass(frozen=True, slots=True)
class Suspect:
    """A task that nothing accounts for so far.

    Attributes:
        task: without its arg, so that many of them are no burden.
        read: its record; None: a fold that was never seen, but ought to be somewhere.
        first: whether the task is not counted in any state yet.
    """

    task: Task
    read: Read | None
    first: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.task.thread_id, self.task.task_id


class Tables:
    """The questions of one audit."""

    def __init__(self, store: Store, scope: Scope) -> None:
        self.store = store
        self._scope = scope

    async def of_records(self, reads: Sequence[Read]) -> list[tuple[AuditedTask, str | None]]:
        """Per record, what is stored about it, and what would become of it now."""
        scope = self._scope
        tasks = [(read.task, read.arg_hash) for read in reads if read.task is not None]
        # Verdicts first: what is committed in between is then stored as well, but not the other way round.
        found = iter(await self.store.check_tasks([t for t, _ in tasks], [h for _, h in tasks]) if tasks else [])
        verdicts = [None if read.task is None else next(found) for read in reads]
        places = [Place(read.partition, read.offset, read.task, read.arg_hash) for read in reads]
        stored = await self.store.audit_tasks(scope.cluster_id, scope.topic_id, scope.passed.groups, places)
        return list(zip(stored, verdicts, strict=True))

    async def in_outbox(self, suspects: Sequence[Suspect]) -> list[bool]:
        """Which tasks wait to be published: a retry, a rerun, or a fold that is still to be made."""
        # A fold that was not seen has the key that the relay gives it.
        asked = [(s.task.thread_id.encode() if s.read is None else s.read.key, s.task.task_id) for s in suspects]
        waits = await self.store.audit_outbox(self._scope.topic, asked)
        folds = {s.task.fan_out.id: s.task.fan_out.size for s in suspects if s.task.is_fold}
        queued = {found.id for found in await self.fan_outs(folds) if found.folds_queued}
        return [
            wait or (suspect.task.is_fold and suspect.task.fan_out.id in queued)
            for wait, suspect in zip(waits, suspects, strict=True)
        ]

    async def fan_outs(self, sizes: Mapping[str, int]) -> list[AuditedFanOut]:
        """Those of {fan-out: its size, about} that there are, counted through."""
        found: list[AuditedFanOut] = []
        page: list[str] = []
        results = 0
        for fan_out_id, size in sizes.items():
            if page and (len(page) >= FAN_OUTS_PAGE or results + size > RESULTS_PAGE):
                found += await self.store.audit_fan_outs(page)
                page, results = [], 0
            page.append(fan_out_id)
            results += size
        return found + (await self.store.audit_fan_outs(page) if page else [])
