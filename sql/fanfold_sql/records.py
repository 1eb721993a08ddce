"""What goes into a commit and what comes back: frozen records, all offsets being the next one to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from fanfold_schemas import Outcome, Task

Islands = tuple[tuple[int, int], ...]
"""Finished half-open ranges of offsets above `next_offset`, ascending and apart from each other."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition that is ours under `epoch`. `next_offset` None: nothing was ever finished here."""

    progress_id: int
    epoch: int
    next_offset: int | None
    islands: Islands
    commit_seq: int
    previous_topic_id: str | None


@dataclass(frozen=True, slots=True)
class PartitionCommit:
    """Progress of one partition: everything below `next_offset` and inside `islands` is finished."""

    progress_id: int
    epoch: int
    commit_seq: int
    next_offset: int
    islands: Islands


@dataclass(frozen=True, slots=True)
class Finished:
    """One task's result. `payload` is None exactly when it failed. `topic`: where its fan-out's fold is published."""

    task: Task
    payload: bytes | None
    arg_hash: int = 0
    topic: str | None = None

    @property
    def failed(self) -> bool:
        return self.payload is None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A parked record: its bytes as they were, where it stood, and why. `task` only if it could be decoded."""

    progress_id: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: bytes | None
    code: str
    error: str
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """A record to publish after the commit. `result`: position of the result without which it is not written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes
    result: int | None = None


@dataclass(frozen=True, slots=True)
class CommitBatch:
    """One transaction's worth. `partitions` may be empty: the store without Kafka."""

    results: list[Finished]
    partitions: list[PartitionCommit] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outbox: list[OutboxRecord] = field(default_factory=list)
    owner: UUID | None = None


@dataclass(frozen=True, slots=True)
class CompletedFanOut:
    """A fan-out whose last result came with this commit; `outbox_id` None if it has no fold or no topic."""

    fan_out_id: str
    run: int
    outbox_id: int | None


@dataclass(frozen=True, slots=True)
class CommitReply:
    """One outcome per result and one outbox id (None: not written) per outbox record, in input order."""

    outcomes: list[Outcome]
    completed: list[CompletedFanOut]
    outbox_ids: list[int | None]
    commit_seqs: list[int]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A leased record. `value` None: it is the fold task of `fold_of`."""

    outbox_id: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes | None
    fold_of: FoldOf | None


@dataclass(frozen=True, slots=True)
class FoldOf:
    """What a fold task is made from."""

    fan_out_id: str
    run: int
    thread_id: str
    size: int
    base: dict[str, int]
    fold: str
    quorum: int | None
    deadline_ms: int | None


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as read back; `index` -1 is the fold's own. `payload` None unless `status` is `done`."""

    index: int
    task_id: str
    run: int
    status: str
    payload: bytes | None
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class FanOutState:
    """A fan-out and how far it is.

    `state`: `open`, `folding`, `done`, `failed` (its fold failed), `stale` or `cancelled`.
    `size` 0: cancelled before anybody saw one of its tasks.
    """

    fan_out_id: str
    thread_id: str
    size: int
    remaining: int
    failed: int
    run: int
    base: dict[str, int]
    fold: str | None
    quorum: int | None
    deadline_ms: int | None
    topic: str | None
    state: str
    created_at: datetime
    completed_at: datetime | None
    folded_at: datetime | None


@dataclass(frozen=True, slots=True)
class ThreadState:
    thread_id: str
    clock: dict[str, int]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CancelledThread:
    """What `cancel_thread` did. `clock` None: the thread is unknown."""

    clock: dict[str, int] | None
    fan_out_ids: list[str]


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Progress of a partition as an operator sees it. `idle_seconds`: since its owner last said that it lives."""

    progress_id: int
    group_id: str
    cluster_id: str
    topic: str
    topic_id: str
    partition: int
    epoch: int
    owner: UUID | None
    next_offset: int | None
    islands: Islands
    commit_seq: int
    claimed_at: datetime | None
    seen_at: datetime | None
    idle_seconds: float | None


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    dead_letter_id: int
    group_id: str
    topic: str
    partition: int
    offset: int
    thread_id: str | None
    fan_out_id: str | None
    task_id: str | None
    code: str
    error: str
    key: bytes | None
    value: bytes | None
    headers: bytes | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Pruned:
    fan_outs: int
    results: int
    threads: int
    dead_letters: int


def islands_to_text(islands: Islands) -> str:
    return "{" + ",".join(f"[{low},{high})" for low, high in islands) + "}"


def islands_from_text(text: str) -> Islands:
    """Parse Postgres' canonical form of an int8multirange: `{[3,5),[7,9)}`."""
    pairs = text.strip("{}").replace("[", "").replace(")", "")
    numbers = [int(number) for number in pairs.split(",")] if pairs else []
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def from_row(cls: type[Any], row: tuple[Any, ...]) -> Any:
    """Build a record whose fields are the columns of a reading procedure, in order."""
    return cls(*row)
