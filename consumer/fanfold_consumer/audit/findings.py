"""What an audit found: a state for every task of the log, and findings for what is not accounted for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

State = Literal["done", "failed", "dead", "refused", "waiting", "pruned", "missing", "conflicting"]
STATES: tuple[State, ...] = ("done", "failed", "dead", "refused", "waiting", "pruned", "missing", "conflicting")
Kind = Literal[
    "missing",
    "conflicting",
    "undecodable",
    "altered",
    "unexplained",
    "extra",
    "unpublished",
    "count",
    "fold",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not accounted for. `at`: topic-partition@offset, where it is about one record."""

    kind: Kind
    what: str
    do: str
    at: str | None = None
    thread_id: str | None = None
    fan_out_id: str | None = None
    task_id: str | None = None
    index: int | None = None


@dataclass(slots=True)
class Report:
    """Counts of everything, and at most `limit` findings in full.

    Attributes:
        tasks, folds, undecodable: records of the log by state; a task's repetitions are in `repeated` only.
        notes: what explains something that would be a finding otherwise, and what could not be judged.
    """

    limit: int
    records: int = 0
    repeated: int = 0
    fan_outs: int = 0
    tasks: Counter[State] = field(default_factory=Counter)
    folds: Counter[State] = field(default_factory=Counter)
    undecodable: Counter[State] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_followed: int = 0

    @property
    def is_clean(self) -> bool:
        return not self.kinds and not self.not_followed

    def add(self, finding: Finding) -> None:
        self.kinds[finding.kind] += 1
        if len(self.findings) < self.limit:
            self.findings.append(finding)
