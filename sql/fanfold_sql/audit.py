"""What an audit reads of the tables; see the procedures of these names. Read-only, and nothing here has a payload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fanfold_schemas import FanOut, Task
from fanfold_sql.records import Islands, islands_from_text

AUDIT_TASKS = (
    "select status, run, matches, committed_at, holder, letter_sha256, explained from fanfold.audit_tasks("
    "%s, %s, %s::text[], %s::int4[], %s::int8[], %s::text[], %s::text[], %s::text[], %s::int4[], %s::int8[])"
)
AUDIT_OUTBOX = "select fanfold.audit_outbox(%s, %s::bytea[], %s::text[])"
AUDIT_FAN_OUTS = "select * from fanfold.audit_fan_outs(%s::text[])"
LIST_TOPIC_FAN_OUTS = "select * from fanfold.list_topic_fan_outs(%s, %s::text, %s, %s::int4)"

Sha256s = tuple[bytes | None, bytes | None, bytes | None]
"""Of a record's key, value and packed headers; None where it has none."""


@dataclass(frozen=True, slots=True)
class Place:
    """A record of a topic. `task` None: it could not be decoded."""

    partition: int
    offset: int
    task: Task | None
    arg_hash: int


@dataclass(frozen=True, slots=True)
class AuditedTask:
    """What is stored about one record; see `audit_tasks.sql`."""

    status: str | None
    run: int | None
    matches: bool
    committed_at: datetime | None
    holder: str | None
    letter: Sha256s | None
    explained: bool


@dataclass(frozen=True, slots=True)
class AuditedFanOut:
    """A fan-out and what was counted of it, in one snapshot; see `audit_fan_outs.sql`."""

    fan_out: FanOut
    thread_id: str
    base: dict[str, int]
    topic: str | None
    remaining: int
    failed: int
    run: int
    complete: bool
    ended_by: str | None
    done: int
    failed_results: int
    pending: int
    misplaced: int
    indexes: Islands
    fold_run: int | None
    folds_queued: int

    @property
    def id(self) -> str:
        return self.fan_out.id

    @property
    def size(self) -> int:
        """0: cancelled before anybody saw one of its tasks."""
        return self.fan_out.size


def task_parameters(cluster_id: str, topic_id: str, groups: Sequence[str], places: Sequence[Place]) -> list[Any]:
    """Parameters of `AUDIT_TASKS`, in its order."""
    tasks = [place.task for place in places]
    return [
        cluster_id,
        topic_id,
        list(groups),
        [place.partition for place in places],
        [place.offset for place in places],
        [task and task.thread_id for task in tasks],
        [task and task.fan_out.id for task in tasks],
        [task and task.task_id for task in tasks],
        [task and task.index for task in tasks],
        [place.arg_hash for place in places],
    ]


def audited_task(row: tuple[Any, ...]) -> AuditedTask:
    status, run, matches, committed_at, holder, letter, explained = row
    return AuditedTask(status, run, matches, committed_at, holder, None if letter is None else tuple(letter), explained)


def audited_fan_out(row: tuple[Any, ...]) -> AuditedFanOut:
    (
        fan_out_id,
        thread_id,
        size,
        remaining,
        failed,
        run,
        base,
        fold,
        quorum,
        max_failures,
        deadline_ms,
        on_deadline,
        topic,
        complete,
        ended_by,
        done,
        failed_results,
        pending,
        misplaced,
        indexes,
        fold_run,
        folds_queued,
    ) = row
    return AuditedFanOut(
        FanOut(fan_out_id, size, fold, quorum, deadline_ms, max_failures, on_deadline),
        thread_id,
        base,
        topic,
        remaining,
        failed,
        run,
        complete,
        ended_by,
        done,
        failed_results,
        pending,
        misplaced,
        islands_from_text(indexes),
        fold_run,
        folds_queued,
    )
