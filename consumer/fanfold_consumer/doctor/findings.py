"""What a check is, and what it finds. Checks are data: docs/doctor.md and the command show the same list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Literal, NamedTuple, TypeVar

from fanfold_consumer.config import FleetConfig

Status = Literal["ok", "warn", "fail", "skipped"]
_WORST_FIRST: tuple[Status, ...] = ("fail", "warn", "skipped", "ok")

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `why` and `fix` are the check's own; they matter when the status is not `ok`."""

    check: str
    status: Status
    value: str
    bound: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleet that the servers are to carry.

    Attributes:
        members: how many there are, or will be.
        config: the settings of each.
        database_cores: of the database server; None: not known.
        prune_after: the age that `fanfold prune --older-than` is given; None: not said.
    """

    members: int
    config: FleetConfig
    database_cores: int | None = None
    prune_after: timedelta | None = None


class Verdict(NamedTuple):
    """`bound` None: as the check says in general."""

    status: Status
    value: str
    bound: str | None = None


class Unknown(Exception):
    """A fact cannot be had; the text says why. Its check is skipped."""


@dataclass(frozen=True, slots=True)
class Check(Generic[Facts]):
    """One question to a server, and what to do about the wrong answer. `judge` is pure."""

    name: str
    judge: Callable[[Facts, Plan], Verdict]
    bound: str
    why: str
    fix: str

    def find(self, facts: Facts, plan: Plan) -> Finding:
        try:
            return self.make(*self.judge(facts, plan))
        except Unknown as reason:
            return self.make("skipped", str(reason))

    def make(self, status: Status, value: str, bound: str | None = None) -> Finding:
        return Finding(self.name, status, value, bound or self.bound, self.why, self.fix)


def examine(checks: Sequence[Check[Facts]], facts: Facts | str, plan: Plan, *, away: Status = "fail") -> list[Finding]:
    """One finding a check. `facts` as a text: why there are none; the first check is `away` then, the rest skipped."""
    if not isinstance(facts, str):
        return [check.find(facts, plan) for check in checks]
    first, *rest = checks
    return [first.make(away, facts), *(check.make("skipped", f"see {first.name}") for check in rest)]


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.status))
