"""The books of an audit: every task in one state, every suspect once, findings where something is not in order."""

from __future__ import annotations

from fanfold_consumer.audit import advice
from fanfold_consumer.audit.fan_outs import contradictions, lacks_fold
from fanfold_consumer.audit.findings import Report, State
from fanfold_consumer.audit.judge import Fate, Read
from fanfold_consumer.audit.scope import Scope
from fanfold_consumer.audit.tables import Suspect
from fanfold_schemas import FOLD_INDEX, Task, derive_fold_task_id
from fanfold_sql import AuditedFanOut

SUSPECTS_MAX = 100_000

_STATES: dict[Fate, State] = {
    "done": "done",
    "failed": "failed",
    "dead": "dead",
    "refused": "refused",
    "waiting": "waiting",
    "pruned": "pruned",
    "open": "missing",
    "conflicting": "conflicting",
    "undecodable": "missing",
    "altered": "dead",
    "unexplained": "failed",
}


class Ledger:
    """Writes the report. `suspects`: what is still to be looked for, at most `SUSPECTS_MAX`; the rest is counted."""

    def __init__(self, scope: Scope, report: Report) -> None:
        self._scope = scope
        self.report = report
        self.suspects: dict[tuple[str, str], Suspect] = {}

    def settle(self, read: Read, fate: Fate, *, first: bool) -> None:
        """Count a record whose fate is known. A finding is one for each record, a state one for each task."""
        if fate in ("conflicting", "undecodable", "altered", "unexplained"):
            self.report.add(advice.of_record(self._scope, fate, read))
        self._count(read.task, _STATES[fate], first=first or fate == "conflicting")

    def suspect(self, suspect: Suspect) -> None:
        """Note a task to look for at the end; its further records are repetitions."""
        known = self.suspects.get(suspect.key)
        if known is not None and known.read is not None:
            self.report.repeated += suspect.read is not None
        elif known is None and len(self.suspects) >= SUSPECTS_MAX:
            self.report.not_followed += 1
        else:
            self.suspects[suspect.key] = suspect

    def clear(self, suspect: Suspect, fate: Fate) -> None:
        """A suspect that turned out to be accounted for, or (`open`) not to be."""
        if suspect.read is not None and fate != "open":
            self.settle(suspect.read, fate, first=suspect.first)
            return
        if fate == "open":
            self.report.add(advice.missing(self._scope, suspect.task, suspect.read))
        if suspect.read is not None:
            self._count(suspect.task, "missing", first=suspect.first)

    def check(self, found: AuditedFanOut) -> None:
        """Hold a fan-out's own numbers against each other; a fold that is nowhere is a suspect."""
        for finding in contradictions(found):
            self.report.add(finding)
        if lacks_fold(found):
            task_id, node = derive_fold_task_id(found.id), found.fan_out.fold or ""
            fold = Task(task_id, found.thread_id, found.fan_out, FOLD_INDEX, node, None, found.base, found.run)
            self.suspect(Suspect(fold, None, first=True))

    def _count(self, task: Task | None, state: State, *, first: bool) -> None:
        report = self.report
        if task is None:
            report.undecodable[state] += 1
        elif task.is_fold:
            report.folds[state] += 1
        elif first:
            report.tasks[state] += 1
        else:
            report.repeated += 1
