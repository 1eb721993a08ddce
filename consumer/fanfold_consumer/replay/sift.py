"""Which records of the log are the tasks that a replay asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from fanfold_consumer.replay.log_reader import LogRecord
from fanfold_schemas import SchemaError, Task, decode_task, header_text
from fanfold_schemas.headers import THREAD_ID


@dataclass(frozen=True, slots=True)
class Selection:
    """What to publish again. `thread_id`: only its tasks. `rerun`: with a new run, which overwrites."""

    thread_id: str | None
    rerun: bool


@dataclass(slots=True)
class Tally:
    """What was found, and what became of it. A rerun leaves `stale` and `conflicts` out; see `rerun.py`."""

    records: int = 0
    undecodable: int = 0
    other_threads: int = 0
    folds: int = 0
    repeated: int = 0
    stale: int = 0
    conflicts: int = 0
    tasks: int = 0
    queued: int = 0
    fan_out_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Found:
    """A task that was asked for, and the record it stands in."""

    task: Task
    record: LogRecord


class Sieve:
    """Lets through each task that was asked for once, however often the log has it.

    Memory grows with the range, by some 100 bytes a task: 1 GB for ten million.
    """

    def __init__(self, selection: Selection, tally: Tally) -> None:
        self._selection = selection
        self._tally = tally
        self._seen: set[bytes] = set()

    def sift(self, records: Iterable[LogRecord]) -> list[Found]:
        return [found for record in records if (found := self._find(record)) is not None]

    def _find(self, record: LogRecord) -> Found | None:
        tally, wanted = self._tally, self._selection.thread_id
        tally.records += 1
        if wanted is not None and header_text(record.headers, THREAD_ID) not in (wanted, None):
            tally.other_threads += 1
            return None
        try:
            task = decode_task(record.value)
        except SchemaError:
            tally.undecodable += 1
            return None
        if wanted is not None and task.thread_id != wanted:
            tally.other_threads += 1
            return None
        if task.is_fold and self._selection.rerun:
            # Its fan-out queues it again when the tasks are in; an older one would be refused as stale.
            tally.folds += 1
            return None
        if self._repeated(task):
            tally.repeated += 1
            return None
        return Found(task, record)

    def _repeated(self, task: Task) -> bool:
        # A repair must bring the latest run, which may be the only one its fan-out still waits for; a rerun
        # gives all of them a new one.
        run = "" if self._selection.rerun else str(task.run)
        name = hashlib.blake2b(f"{task.thread_id}\0{task.task_id}\0{run}".encode(), digest_size=16).digest()
        if name in self._seen:
            return True
        self._seen.add(name)
        return False
