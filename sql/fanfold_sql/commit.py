"""The arguments of `commit_results` and `check_tasks`: records in, parallel arrays out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fanfold_schemas import Outcome, Task
from fanfold_sql.records import CommitBatch, CommitReply, CompletedFanOut, islands_to_text

COMMIT_RESULTS = (
    "select outcomes, completed_fan_out_ids, completed_runs, completed_outbox_ids, outbox_ids, commit_seqs"
    " from fanfold.commit_results(%s::uuid,"
    "%s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::text[],"
    "%s::text[], %s::text[], %s::int4[], %s::jsonb[], %s::text[], %s::int4[], %s::int4[], %s::int8[], %s::text[],"
    " %s::text[],"
    "%s::int4[], %s::text[], %s::int4[], %s::int4[], %s::bool[], %s::int8[], %s::bytea[],"
    "%s::int8[], %s::int8[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::bytea[],"
    " %s::bytea[],"
    "%s::int4[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int4[], %s::int4)"
)

CHECK_TASKS = (
    "select fanfold.check_tasks(%s::text[], %s::text[], %s::jsonb[],"
    " %s::int4[], %s::text[], %s::int4[], %s::int4[], %s::int8[])"
)


class FanOutColumns:
    """The distinct fan-outs of a batch; `add` gives the 1-based position that results refer to.

    Tasks that say different things about one fan-out get an entry each, so that the procedure sees the
    contradiction and nobody's word is dropped here.
    """

    def __init__(self) -> None:
        self._position: dict[Any, int] = {}
        self.ids: list[str] = []
        self.thread_ids: list[str] = []
        self.sizes: list[int] = []
        self.bases: list[str] = []
        self.folds: list[str | None] = []
        self.quorums: list[int | None] = []
        self.max_failures: list[int | None] = []
        self.deadlines_ms: list[int | None] = []
        self.on_deadlines: list[str | None] = []
        self.topics: list[str | None] = []

    def add(self, task: Task, topic: str | None) -> int:
        # Sorted, because writers order maps as they like and still mean one base.
        base = json.dumps(task.base, sort_keys=True) if task.base else "{}"
        key = (task.fan_out, task.thread_id, base)
        position = self._position.get(key)
        if position is None:
            fan_out = task.fan_out
            self.ids.append(fan_out.id)
            self.thread_ids.append(task.thread_id)
            self.sizes.append(fan_out.size)
            self.bases.append(base)
            self.folds.append(fan_out.fold)
            self.quorums.append(fan_out.quorum)
            self.max_failures.append(fan_out.max_failures)
            self.deadlines_ms.append(fan_out.deadline_ms)
            self.on_deadlines.append(fan_out.on_deadline)
            self.topics.append(topic)
            position = self._position[key] = len(self.ids)
        return position


def commit_parameters(batch: CommitBatch, lease_ms: int) -> list[Any]:
    """Parameters of `COMMIT_RESULTS`, in its order."""
    fan_outs = FanOutColumns()
    fan = [fan_outs.add(result.task, result.topic) for result in batch.results]
    for task, topic in batch.opens:
        fan_outs.add(task, topic)
    tasks = [result.task for result in batch.results]
    parts, dead, out = batch.partitions, batch.dead_letters, batch.outbox
    return [
        batch.owner,
        [p.progress_id for p in parts],
        [p.epoch for p in parts],
        [p.commit_seq for p in parts],
        [p.next_offset for p in parts],
        [islands_to_text(p.islands) for p in parts],
        fan_outs.ids,
        fan_outs.thread_ids,
        fan_outs.sizes,
        fan_outs.bases,
        fan_outs.folds,
        fan_outs.quorums,
        fan_outs.max_failures,
        fan_outs.deadlines_ms,
        fan_outs.on_deadlines,
        fan_outs.topics,
        fan,
        [task.task_id for task in tasks],
        [task.index for task in tasks],
        [task.run for task in tasks],
        [result.failed for result in batch.results],
        [result.arg_hash for result in batch.results],
        [result.payload for result in batch.results],
        [d.progress_id for d in dead],
        [d.offset for d in dead],
        [d.task.task_id if d.task else None for d in dead],
        [d.task.thread_id if d.task else None for d in dead],
        [d.task.fan_out.id if d.task else None for d in dead],
        [d.code for d in dead],
        [_storable(d.error) for d in dead],
        [d.key for d in dead],
        [d.value for d in dead],
        [d.headers for d in dead],
        [0 if o.result is None else o.result + 1 for o in out],
        [o.topic for o in out],
        [o.key for o in out],
        [o.value for o in out],
        [o.headers for o in out],
        [o.delay_ms for o in out],
        lease_ms,
    ]


def _storable(text: str) -> str:
    """Any text as Postgres takes it: an error message with a NUL or half a surrogate pair must not stop a partition."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def commit_reply(row: tuple[Any, ...], results: int) -> CommitReply:
    outcomes, fan_out_ids, runs, fold_outbox_ids, outbox_ids, commit_seqs = row
    return CommitReply(
        outcomes=[Outcome.APPLIED] * results if outcomes is None else [Outcome(word) for word in outcomes],
        completed=[CompletedFanOut(*entry) for entry in zip(fan_out_ids, runs, fold_outbox_ids, strict=True)],
        outbox_ids=outbox_ids,
        commit_seqs=commit_seqs,
    )


def check_parameters(tasks: Sequence[Task], arg_hashes: Sequence[int]) -> list[Any]:
    """Parameters of `CHECK_TASKS`, in its order."""
    fan_outs = FanOutColumns()
    fan = [fan_outs.add(task, None) for task in tasks]
    return [
        fan_outs.ids,
        fan_outs.thread_ids,
        fan_outs.bases,
        fan,
        [task.task_id for task in tasks],
        [task.index for task in tasks],
        [task.run for task in tasks],
        list(arg_hashes),
    ]
