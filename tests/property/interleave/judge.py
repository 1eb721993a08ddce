"""Whether the end of a schedule is right: some order of whole transactions must end the same, and keep the guarantees.

The yardstick is the procedures themselves, one after another; that each of those ends is right too is judged by the
scenario's list of outcomes, the guarantees' queries, and the progress that was acknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.property.interleave.explore import NotRepeatable, schedules
from tests.property.interleave.laboratory import Laboratory
from tests.property.interleave.scenario import End, Scenario


@dataclass(frozen=True, slots=True)
class Violation:
    """`schedule`: the steps that led there, or the order of whole transactions."""

    scenario: str
    schedule: str
    what: str

    def __str__(self) -> str:
        return f"{self.scenario}\n  {self.schedule}\n  {self.what}"


@dataclass(frozen=True, slots=True)
class Ran:
    """A scenario that was gone through, in how many orders, and what was wrong in some."""

    scenario: str
    schedules: int
    violations: tuple[Violation, ...]


class Judge:
    """Knows how a scenario may end. Each such end is looked at once; what equals one of them is as right as it is."""

    def __init__(self, laboratory: Laboratory, scenario: Scenario) -> None:
        self._scenario = scenario
        self._right: dict[tuple[str, str], End] = {}
        self.violations: list[Violation] = []
        for order in scenario.serial_orders():
            end = laboratory.run_serially(scenario, order)
            if end.key in self._right:
                continue
            self._right[end.key] = end
            for what in (*laboratory.broken_guarantees(), *self._wrong(end)):
                turns = " then ".join("ABC"[number] for number in order)
                self.violations.append(Violation(scenario.name, f"one after another: {turns}", what))
        unseen = scenario.outcomes - {scenario.outcome(end.answers) for end in self._right.values()}
        if unseen:
            what = f"no order of whole transactions is answered {sorted(unseen)}"
            self.violations.append(Violation(scenario.name, "one after another", what))

    def judge(self, end: End) -> str | None:
        """What is wrong with an end; None: nothing."""
        if end.key in self._right:
            return None
        outcome = self._scenario.outcome(end.answers)
        alike = [right for right in self._right.values() if self._scenario.outcome(right.answers) == outcome]
        if not alike:
            return f"answered {outcome!r}, as no order of whole transactions is"
        return f"answered {outcome!r}, but left {_difference(end, alike[0])}"

    def _wrong(self, end: End) -> Iterator[str]:
        outcome = self._scenario.outcome(end.answers)
        if outcome not in self._scenario.outcomes:
            yield f"answered {outcome!r}; right would be one of {sorted(self._scenario.outcomes)}"
        yield from _lost_progress(self._scenario, end)


def run(laboratory: Laboratory, scenario: Scenario, *, prune: bool | None = None, stop_early: bool = False) -> Ran:
    """Run every order of a scenario and judge each end.

    Args:
        prune: leave out orders that only swap steps which do not meet; by default with three sessions, of which there
            are too many orders otherwise.
        stop_early: at the first violation.
    """
    judge = Judge(laboratory, scenario)
    violations, ran = judge.violations, 0
    prune = len(scenario.sessions) > 2 if prune is None else prune
    try:
        for schedule in () if violations and stop_early else schedules(laboratory, scenario, prune=prune):
            ran += 1
            what = judge.judge(schedule.end)
            if what is not None:
                violations.append(Violation(scenario.name, str(schedule), what))
                if stop_early:
                    break
    except NotRepeatable as error:
        # After a deadlock, of which the server breaks off now this session and now that.
        violations.append(Violation(scenario.name, "while replaying", str(error)))
    return Ran(scenario.name, ran, tuple(violations))


def _lost_progress(scenario: Scenario, end: End) -> Iterator[str]:
    """What was acknowledged is there: the furthest offset, unless it was reset since, and a commit_seq per commit."""
    acknowledged = [
        transaction.progress
        for program, answers in zip(scenario.sessions, end.answers, strict=True)
        for transaction, answer in zip(program, answers, strict=False)
        if isinstance(answer, dict)
    ]
    was_reset = any(transaction.name == "reset_partition" for program in scenario.sessions for transaction in program)
    for row in end.rows("partition_progress"):
        offsets = [progress[row["partition"]] for progress in acknowledged if row["partition"] in progress]
        if row["commit_seq"] != len(offsets):
            yield f"partition {row['partition']}: {len(offsets)} commits heard of, commit_seq is {row['commit_seq']}"
        if offsets and row["next_offset"] != max(offsets) and not was_reset:
            yield f"partition {row['partition']}: offset {max(offsets)} acknowledged, stored is {row['next_offset']}"


def _difference(end: End, right: End) -> str:
    found, wanted = json.loads(end.tables), json.loads(right.tables)
    for table in found:
        if found[table] != wanted[table]:
            extra = [row for row in found[table] if row not in wanted[table]]
            missing = [row for row in wanted[table] if row not in found[table]]
            return f"in {table} {extra} instead of {missing}"
    return "other answers than one of those orders would have given"
