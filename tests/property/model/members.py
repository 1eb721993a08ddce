"""The log, and the members that read it: everything about a fleet that the database does not know.

Members count offsets with the product's own tracker and publish with its own records; what runs in them is a function
of the task, but for whether it fails.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from fanfold_consumer.offsets import Tracker
from fanfold_producer.fan_out import build_fan_out
from fanfold_producer.record import Record
from fanfold_schemas import (
    SchemaError,
    Task,
    arg_hash,
    decode_task,
    derive_child_fan_out_id,
    encode_payload,
    pack_headers,
)
from fanfold_sql import CommitBatch, DeadLetter, Finished, OutboxRecord, PartitionCommit
from tests.sql.support import TOPIC

PARTITIONS = 2


@dataclass(frozen=True, slots=True)
class Logged:
    """A record where it stands. `task` None: its bytes are no task."""

    partition: int
    offset: int
    value: bytes
    task: Task | None

    @property
    def place(self) -> tuple[int, int]:
        return self.partition, self.offset


@dataclass(slots=True)
class Log:
    """A topic. Offsets have gaps, as transaction markers and compaction leave them."""

    partitions: list[list[Logged]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    ends: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    def append(self, value: bytes, partition: int, *, gap: int = 0) -> None:
        try:
            task = decode_task(value)
        except SchemaError:
            task = None
        offset = self.ends[partition] + gap
        self.partitions[partition].append(Logged(partition, offset, value, task))
        self.ends[partition] = offset + 1

    def publish(self, record: Record) -> None:
        assert record.key is not None
        assert record.value is not None
        self.append(record.value, zlib.crc32(record.key) % PARTITIONS)

    def tasks(self) -> Iterator[Task]:
        return (logged.task for records in self.partitions for logged in records if logged.task is not None)

    def names(self) -> list[str]:
        """The fan-outs of which something is here."""
        return sorted({task.fan_out.id for task in self.tasks()})

    def complete_fan_outs(self) -> set[str]:
        """Those whose tasks are all here, and on which all records agree: nobody may keep them from completing."""
        said: dict[str, set[object]] = {}
        places: dict[str, set[tuple[int, str]]] = {}
        sizes: dict[str, int] = {}
        for task in self.tasks():
            name = task.fan_out.id
            said.setdefault(name, set()).add((task.fan_out, task.thread_id, tuple(sorted(task.base.items()))))
            sizes[name] = task.fan_out.size
            if not task.is_fold:
                places.setdefault(name, set()).add((task.index, task.task_id))
        return {
            name
            for name, found in places.items()
            if len(said[name]) == 1
            and sorted(index for index, _ in found) == list(range(sizes[name]))
            and len({task_id for _, task_id in found}) == sizes[name]
        }


@dataclass(slots=True, eq=False)
class Holding:
    """One claim of one partition, as its member believes it to be."""

    partition: int
    progress_id: int
    epoch: int
    commit_seq: int
    tracker: Tracker
    position: int
    lost: bool = False

    def progress(self) -> PartitionCommit:
        next_offset = self.tracker.next_offset
        assert next_offset is not None
        return PartitionCommit(self.progress_id, self.epoch, self.commit_seq, next_offset, self.tracker.islands())


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A record on its way through a member."""

    holding: Holding
    logged: Logged
    task: Task


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """A record that needs nothing but a commit."""

    holding: Holding
    logged: Logged
    result: Finished | None = None
    letter: DeadLetter | None = None
    outbox: tuple[OutboxRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A commit on its way: what the member waits to hear about."""

    batch: CommitBatch
    live: list[Completion]
    holdings: list[Holding]


@dataclass(frozen=True, slots=True)
class Publication:
    outbox_id: int
    record: Record


@dataclass(slots=True, eq=False)
class Member:
    owner: UUID
    holdings: dict[int, Holding] = field(default_factory=dict)
    running: list[Work] = field(default_factory=list)
    finished: list[Completion] = field(default_factory=list)
    sent: Sent | None = None
    # Outbox rows that are ours to publish, and those that are published and not acknowledged yet.
    leased: list[Publication] = field(default_factory=list)
    published: list[int] = field(default_factory=list)

    def lose(self, holding: Holding) -> None:
        holding.lost = True
        if self.holdings.get(holding.partition) is holding:
            del self.holdings[holding.partition]
        self.running = [work for work in self.running if not work.holding.lost]
        self.finished = [completion for completion in self.finished if not completion.holding.lost]


def park(holding: Holding, logged: Logged, code: str, task: Task | None, *, counts: bool = False) -> Completion:
    """A completion that parks a record; `counts`: its fan-out counts it as failed."""
    letter = DeadLetter(holding.progress_id, logged.offset, None, logged.value, None, code, "why", task)
    result = Finished(task, None, arg_hash(task), TOPIC) if task is not None and counts else None
    return Completion(holding, logged, result, letter)


def run(work: Work, number: int) -> Completion:
    """What a handler makes of a task: a value, and Sends if its arg asks for some."""
    task = work.task
    outbox: tuple[OutboxRecord, ...] = ()
    if isinstance(task.arg, int) and task.arg > 0 and not task.is_fold:
        built = build_fan_out(
            task.thread_id,
            [("work", 0)] * task.arg,
            topic=TOPIC,
            fan_out_id=derive_child_fan_out_id(task.task_id, task.run),
            fold="sum",
            base=task.base,
        )
        outbox = tuple(OutboxRecord(r.topic, r.key, r.value, pack_headers(r.headers)) for r in built.records)
    result = Finished(task, encode_payload(number), arg_hash(task), TOPIC)
    return Completion(work.holding, work.logged, result, None, outbox)


def batch_of(member: Member, live: list[Completion], holdings: list[Holding]) -> CommitBatch:
    """What a commit of these completions sends, in the order of the product's committer."""
    batch = CommitBatch(results=[], owner=member.owner)
    for completion in live:
        position = None
        if completion.result is not None:
            position = len(batch.results)
            batch.results.append(completion.result)
        if completion.letter is not None:
            batch.dead_letters.append(completion.letter)
        batch.outbox.extend(
            OutboxRecord(record.topic, record.key, record.value, record.headers, position)
            for record in completion.outbox
        )
    batch.partitions.extend(holding.progress() for holding in holdings)
    return batch
