"""What goes into a commit and what comes back: frozen records, all offsets being the next one to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from fanfold_schemas import FanOut, Outcome, Task

Islands = tuple[tuple[int, int], ...]
"""Finished half-open ranges of offsets above `next_offset`, ascending and apart from each other."""


Stopped = Literal["gone", "unreadable"]
"""Why a partition is not read on: the log lost the next offset, or has a batch there that cannot be read."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition that is ours under `epoch`.

    `next_offset` None: nothing was ever finished here. `stopped_because`: not to be read until an operator decided.
    """

    progress_id: int
    epoch: int
    next_offset: int | None
    islands: Islands
    commit_seq: int
    previous_topic_id: str | None
    stopped_because: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionCommit:
    """Progress of one partition: everything below `next_offset` and inside `islands` is finished."""

    progress_id: int
    epoch: int
    commit_seq: int
    next_offset: int
    islands: Islands


class Finished(msgspec.Struct, frozen=True, gc=False):
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
    """A record to publish after the commit.

    Attributes:
        result: position of the result without which it is not written.
        delay_ms: not before so long from now, by whichever relay is there then; 0: by whoever commits it, at once.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes
    result: int | None = None
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class CommitBatch:
    """One transaction's worth. `partitions` may be empty: the store without Kafka.

    `opens`: tasks, with their topics, whose fan-outs are opened ahead of their first result. `spent_outbox_ids`: rows
    that it takes out, because what they ask for is in it.
    """

    results: list[Finished]
    partitions: list[PartitionCommit] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outbox: list[OutboxRecord] = field(default_factory=list)
    owner: UUID | None = None
    opens: list[tuple[Task, str]] = field(default_factory=list)
    spent_outbox_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExpiredFanOut:
    """A fan-out that its deadline ended. `folds`: completed with what it has; else it failed."""

    fan_out_id: str
    folds: bool


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
    """What a fold task is made from. `fan_out` has a fold."""

    fan_out: FanOut
    run: int
    thread_id: str
    base: dict[str, int]


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

    `state`: `open`, `folding`, `done`, `failed`, `stale` or `cancelled`.
    `ended_by`: why it failed: `failures` or `deadline`; None: its fold failed.
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
    max_failures: int | None
    deadline_ms: int | None
    on_deadline: Literal["fold"] | None
    topic: str | None
    state: str
    ended_by: str | None
    created_at: datetime
    completed_at: datetime | None
    folded_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it, unless somebody reopens it."""
        return self.state not in ("open", "folding")


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
    """Progress of a partition as an operator sees it.

    `idle_seconds`: since its owner last said that it lives. `stopped`: nobody reads on, and why.
    """

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
    stopped: Stopped | None = None
    stopped_because: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters. What is None lets all pass; of several `codes`, any.

    Attributes:
        since, until: when they were parked, the latter excluded.
        unresolved: only those that were neither redriven nor dropped.
    """

    ids: Sequence[int] | None = None
    topic: str | None = None
    group_id: str | None = None
    thread_id: str | None = None
    fan_out_id: str | None = None
    task_id: str | None = None
    codes: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    unresolved: bool = False


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A parked record as read back.

    Attributes:
        value_bytes: size of its value; None: it has none.
        key, value, headers: None also if they were not asked for.
        resolution: `redriven` or `dropped`; None: neither.
    """

    dead_letter_id: int
    group_id: str
    cluster_id: str
    topic: str
    topic_id: str
    partition: int
    offset: int
    thread_id: str | None
    fan_out_id: str | None
    task_id: str | None
    code: str
    error: str
    value_bytes: int | None
    key: bytes | None
    value: bytes | None
    headers: bytes | None
    created_at: datetime
    resolved_at: datetime | None
    resolution: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterCount:
    """How many there are of one code, and the highest of their ids."""

    code: str
    count: int
    newest_id: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a dead letter's task stands now; see `judge_dead_letters.sql`."""

    dead_letter_id: int
    resolution: str | None
    newer_id: int | None
    ended_by: str | None
    fan_out_run: int | None
    complete: bool
    refused: int
    status: str | None
    run: int | None
    index: int | None
    arg_hash: int | None


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
