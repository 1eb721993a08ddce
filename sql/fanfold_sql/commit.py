"""The arguments of `commit_results` and `check_tasks`: records in, parallel arrays out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fanfold_schemas import Outcome, Task
from fanfold_sql.arrays import Bools, Byteas, Int4s, Int8s, Jsonbs, Texts
from fanfold_sql.records import CommitBatch, CommitReply, CompletedFanOut, islands_to_text

_PARAMETERS = (
    "%s::uuid,"
    "%s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::text[],"
    "%s::text[], %s::text[], %s::int4[], %s::jsonb[], %s::text[], %s::int4[], %s::int4[], %s::int8[], %s::text[],"
    " %s::text[],"
    "%s::int4[], %s::text[], %s::int4[], %s::int4[], %s::bool[], %s::int8[], %s::bytea[],"
    "%s::int8[], %s::int8[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::bytea[],"
    " %s::bytea[],"
    "%s::int4[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int4[], %s::int4, %s::int4, %s::int8[]"
)
COMMIT_RESULTS = (
    "select outcomes, completed_fan_out_ids, completed_runs, completed_outbox_ids, outbox_ids, commit_seqs"  # noqa: S608
    " from fanfold.commit_results(" + _PARAMETERS + ")"
)
COMMIT_RESULTS_EARLY = "call fanfold.commit_results_early(" + _PARAMETERS + ", null, null, null, null, null, null)"
"""The same arguments and answer; the nulls stand for its six parts."""

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
        # The first task seen of each fan-out, and its position: nearly all others of it say the same to the letter, and
        # comparing them is far cheaper than making a key of each.
        self._first: dict[str, tuple[Task, int]] = {}
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
        known = self._first.get(task.fan_out.id)
        if known is not None:
            first, position = known
            if task.fan_out == first.fan_out and task.base == first.base and task.thread_id == first.thread_id:
                return position
        position = self._add(task, topic)
        self._first.setdefault(task.fan_out.id, (task, position))
        return position

    def _add(self, task: Task, topic: str | None) -> int:
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


def commit_parameters(batch: CommitBatch, lease_ms: int, wait_ms: int | None = None) -> list[Any]:
    """Parameters of `COMMIT_RESULTS`, in its order."""
    fan_outs = FanOutColumns()
    fan = [fan_outs.add(result.task, result.topic) for result in batch.results]
    for task, topic in batch.opens:
        fan_outs.add(task, topic)
    tasks = [result.task for result in batch.results]
    parts, dead, out = batch.partitions, batch.dead_letters, batch.outbox
    return [
        batch.owner,
        Int8s([p.progress_id for p in parts]),
        Int8s([p.epoch for p in parts]),
        Int8s([p.commit_seq for p in parts]),
        Int8s([p.next_offset for p in parts]),
        Texts([islands_to_text(p.islands) for p in parts]),
        Texts(fan_outs.ids),
        Texts(fan_outs.thread_ids),
        Int4s(fan_outs.sizes),
        Jsonbs(fan_outs.bases),
        Texts(fan_outs.folds),
        Int4s(fan_outs.quorums),
        Int4s(fan_outs.max_failures),
        Int8s(fan_outs.deadlines_ms),
        Texts(fan_outs.on_deadlines),
        Texts(fan_outs.topics),
        Int4s(fan),
        Texts([task.task_id for task in tasks]),
        Int4s([task.index for task in tasks]),
        Int4s([task.run for task in tasks]),
        Bools([result.payload is None for result in batch.results]),
        Int8s([result.arg_hash for result in batch.results]),
        Byteas([result.payload for result in batch.results]),
        Int8s([d.progress_id for d in dead]),
        Int8s([d.offset for d in dead]),
        Texts([d.task.task_id if d.task else None for d in dead]),
        Texts([d.task.thread_id if d.task else None for d in dead]),
        Texts([d.task.fan_out.id if d.task else None for d in dead]),
        Texts([d.code for d in dead]),
        Texts([_storable(d.error) for d in dead]),
        Byteas([d.key for d in dead]),
        Byteas([d.value for d in dead]),
        Byteas([d.headers for d in dead]),
        Int4s([0 if o.result is None else o.result + 1 for o in out]),
        Texts([o.topic for o in out]),
        Byteas([o.key for o in out]),
        Byteas([o.value for o in out]),
        Byteas([o.headers for o in out]),
        Int4s([o.delay_ms for o in out]),
        lease_ms,
        wait_ms,
        Int8s(batch.spent_outbox_ids),
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
        Texts(fan_outs.ids),
        Texts(fan_outs.thread_ids),
        Jsonbs(fan_outs.bases),
        Int4s(fan),
        Texts([task.task_id for task in tasks]),
        Int4s([task.index for task in tasks]),
        Int4s([task.run for task in tasks]),
        Int8s(arg_hashes),
    ]
