"""What a fan-out's own numbers say about it: the guarantees 1 to 4, for those that an audit reads. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fanfold_consumer.audit.findings import Finding, Kind
from fanfold_schemas import Task
from fanfold_sql import AuditedFanOut

_REPORT = (
    "only a write around the procedures, or a fault of ours, does that: keep a copy of the fan-out's rows and report it"
)


def contradictions(found: AuditedFanOut) -> Iterator[Finding]:
    """Counts that do not match, and folds that may not be, from one snapshot of the tables."""
    for kind, what in _problems(found):
        yield Finding(kind, what, _REPORT, thread_id=found.thread_id, fan_out_id=found.id)


def _problems(found: AuditedFanOut) -> Iterator[tuple[Kind, str]]:
    settled = found.done + found.failed_results
    if found.misplaced:
        yield "extra", f"{found.misplaced} results beyond its size of {found.size}, or under another thread"
    if found.remaining != found.size - settled and not (found.size == 0 and settled == 0):
        yield "count", f"remaining {found.remaining}, but of {found.size} tasks {settled} have a result"
    if found.failed != found.failed_results:
        yield "count", f"failed {found.failed}, but {found.failed_results} results failed"
    if found.complete:
        short = found.remaining > 0 and found.fan_out.quorum is None and found.fan_out.on_deadline is None
        if short:
            yield "count", f"complete, but {found.remaining} results are missing"
    elif found.remaining == 0 and found.size > 0 and found.ended_by is None:
        yield "count", "every result is there, but it is not complete"
    if found.fold_run is not None and (
        found.fold_run > found.run or (not found.complete and found.fold_run == found.run)
    ):
        state = f"in run {found.run}" if found.complete else "open"
        yield "fold", f"folded in run {found.fold_run}, but it is {state}"
    if found.folds_queued > 1:
        yield "fold", f"its fold is queued {found.folds_queued} times"


def lacks_fold(found: AuditedFanOut) -> bool:
    """Whether it is complete and its fold is neither there nor in the outbox. Its record may be in the log."""
    return (
        found.complete
        and found.ended_by is None
        and found.fan_out.fold is not None
        and found.topic is not None
        and found.fold_run != found.run
        and not found.folds_queued
    )


def differs(task: Task, found: AuditedFanOut) -> bool:
    """Whether a task says something else about its fan-out than what is stored."""
    stored = (found.fan_out, found.thread_id, found.base)
    return found.size > 0 and (task.fan_out, task.thread_id, task.base) != stored
