"""What became of each fan-out, against what had to become of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from fanfold_schemas import derive_task_id
from tests.fault.chaos.evidence import Evidence, Published, Row
from tests.fault.chaos.finding import Finding, Sort
from tests.fault.chaos.plan import FOLD, Plan, tally_of

Findings = Iterator[Finding]
_OPEN = ("open", "folding")


@dataclass(frozen=True, slots=True)
class _Case:
    """A plan with what there is of it. `certain`: it must be there; else it may be, in part or not at all."""

    plan: Plan
    certain: bool
    state: str | None
    ended_by: str | None
    rows: dict[int, Row]

    @property
    def id(self) -> str:
        return self.plan.fan_out_id

    @property
    def tasks(self) -> dict[int, Row]:
        return {index: row for index, row in self.rows.items() if index >= 0}

    def done(self) -> list[int]:
        return sorted(index for index, row in self.tasks.items() if row.status == "done")

    def failed(self) -> list[int]:
        return sorted(index for index, row in self.tasks.items() if row.status == "failed")

    def __str__(self) -> str:
        return (
            f"{self.plan.kind} fan-out {self.id} ({self.plan.way}, {len(self.tasks)} of {self.plan.size}, {self.state})"
        )


def judge(evidence: Evidence) -> Findings:
    """Every fan-out that a producer meant to publish, and those that tasks opened."""
    contested = {
        forged["fan_out_id"] for forged in evidence.forged.values() if not evidence.history.kept(forged["mark"])
    }
    digests: dict[str, set[str]] = defaultdict(set)
    for note in evidence.notes:
        if note.what == "fold":
            digests[note.detail["fan_out_id"]].add(note.detail["digest"])
    for published in evidence.published.values():
        case = _case(evidence, published.plan, evidence.kept(published))
        if case.id in contested:
            continue  # its task was done on a timeline that is gone: either arg may have won the second time
        yield from _judge_values(case)
        yield from _JUDGES[published.plan.kind](evidence, published, case)
        if published.plan.kind == "whole" and len(digests[case.id]) > 1:
            yield Finding(4, "wrong", f"{case} was folded from different inputs: {digests[case.id]}")
        for index, child in enumerate(published.plan.child_plans()):
            opened = index in case.tasks and case.tasks[index].status == "done"
            child_case = _case(evidence, child, opened)
            yield from _judge_values(child_case)
            yield from _judge_whole(evidence, published, child_case)


def _case(evidence: Evidence, plan: Plan, certain: bool) -> _Case:
    row = evidence.fan_outs.get(plan.fan_out_id)
    rows = evidence.results.get(plan.fan_out_id, {})
    return _Case(plan, certain, row.state if row else None, row.ended_by if row else None, rows)


def _judge_values(case: _Case) -> Findings:
    values = case.plan.values()
    for index, row in case.tasks.items():
        if row.task_id != derive_task_id(case.id, index):
            yield Finding(1, "wrong", f"{case}: index {index} is held by task {row.task_id}")
        if row.status == "done" and row.value != values.get(index):
            yield Finding(1, "wrong", f"{case}: result {index} is {row.value}, not {values.get(index)}")
        if row.status == "failed" and index in values:
            yield Finding(1, "wrong", f"{case}: task {index} ({row.task_id}) failed and had no reason to")
    fold = case.rows.get(-1)
    if fold is not None and case.plan.fold == FOLD:
        missing = [index for index in range(case.plan.size) if index not in case.tasks]
        expected = tally_of((case.tasks[index].value for index in case.done()), case.failed(), missing)
        if fold.status != "done" or fold.value != expected:
            yield Finding(4, "wrong", f"{case}: its fold is {fold.status} {fold.value}, not {expected}")


def _judge_whole(_: Evidence, __: Published, case: _Case) -> Findings:
    if not case.certain:
        return
    missing = case.plan.size - len(case.tasks)
    if missing:
        yield Finding(5, "lost", f"{case} was acknowledged and lacks {missing} results", missing)
    if case.state is None or case.state in _OPEN:
        yield Finding(14, "stuck", f"{case} has not ended")
    elif case.state != "done":
        yield Finding(14, "wrong", f"{case} had to be done")
    elif case.plan.fold is not None and -1 not in case.rows:
        yield Finding(4, "lost", f"{case} has no fold")


def _judge_quorum(_: Evidence, __: Published, case: _Case) -> Findings:
    if not case.certain:
        return
    if case.state != "done":
        yield Finding(14, "stuck", f"{case} has not ended")
    elif len(case.done()) != case.plan.quorum or case.failed():
        yield Finding(4, "wrong", f"{case}: {len(case.done())} successes for a quorum of {case.plan.quorum}")


def _judge_failures(_: Evidence, __: Published, case: _Case) -> Findings:
    if case.certain and (case.state, case.ended_by) != ("failed", "failures"):
        sort: Sort = "stuck" if case.state in (None, *_OPEN) else "wrong"
        yield Finding(14, sort, f"{case} had to end by its failures")
    if -1 in case.rows:
        yield Finding(4, "wrong", f"{case} was folded")


def _judge_deadline(_: Evidence, __: Published, case: _Case) -> Findings:
    if case.plan.size - 1 in case.tasks:
        yield Finding(1, "wrong", f"{case} has a result of a task that was not published")
    expected = "done" if case.plan.on_deadline == "fold" else "failed"
    if case.certain and case.state != expected:
        sort: Sort = "stuck" if case.state in (None, *_OPEN) else "wrong"
        yield Finding(14, sort, f"{case} had to be {expected} by its deadline")


def _judge_cancelled(evidence: Evidence, published: Published, case: _Case) -> Findings:
    if not case.certain:
        return
    for answer, mark in published.cancels:
        if evidence.history.kept(mark):
            if answer == "cancelled" and (case.state != "cancelled" or -1 in case.rows):
                yield Finding(14, "wrong", f"{case}: its cancel was acknowledged")
            if answer == "done" and case.state != "done":
                yield Finding(14, "wrong", f"{case}: it was done when it was to be cancelled")
    if case.state in (None, *_OPEN):
        yield Finding(14, "stuck", f"{case} has not ended")
    if case.state == "done":
        yield from _judge_whole(evidence, published, case)


def _judge_older(evidence: Evidence, published: Published, case: _Case) -> Findings:
    if case.certain and case.state in _OPEN:
        yield Finding(14, "stuck", f"{case} is neither done nor stale")
    if case.state == "done":
        yield from _judge_whole(evidence, published, case)


def _judge_stale(evidence: Evidence, published: Published, case: _Case) -> Findings:
    if evidence.history.kept(published.relies_on):
        if case.state is not None or case.rows:
            yield Finding(10, "wrong", f"{case}: its thread had moved on before it was published")
    else:
        yield from _judge_older(evidence, published, case)


def _judge_rolled_back(case: _Case) -> Findings:
    if case.state is not None or case.rows:
        yield Finding(5, "wrong", f"{case}: its transaction was rolled back")


def _whole_unless_rolled_back(evidence: Evidence, published: Published, case: _Case) -> Findings:
    if case.plan.way == "rolled_back":
        yield from _judge_rolled_back(case)
    else:
        yield from _judge_whole(evidence, published, case)


_JUDGES = {
    "whole": _whole_unless_rolled_back,
    "quorum": _judge_quorum,
    "failures": _judge_failures,
    "deadline": _judge_deadline,
    "cancelled": _judge_cancelled,
    "older": _judge_older,
    "stale": _judge_stale,
}
