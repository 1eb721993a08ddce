"""From what was counted to the summary and the last line. Pure: nothing is looked up here."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from examples.stdlib_index import audit
from examples.stdlib_index.audit import Call, Stored

Metrics = dict[str, float]
_FILE = "a file that handlers append to"
_ROWS = "rows in Postgres"
_METRICS = "members' /metrics"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted.

    Attributes:
        published: Sends that the broker acknowledged.
        done_at_kill: results stored when the victim was dead.
        victim: the metrics of the killed member, shortly before.
        before: the metrics of the others, when the fold was in and before the replay.
        after: the same when the replay was through.
        calls_before: handler calls at the time of `before`.
        calls: all of them.
        exit_statuses: of all members, at the end.
        expected: the answer of a single process.
    """

    published: int
    done_at_kill: int
    victim: Metrics
    before: list[Metrics]
    after: list[Metrics]
    calls_before: list[Call]
    calls: list[Call]
    stored: Stored
    exit_statuses: list[int | None]
    expected: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last line. `redelivered`: records that reached a member although they were begun or finished before."""

    tasks: int
    lost: int
    duplicates: int
    folds: int
    redelivered: int
    killed: int
    equal: bool
    seconds: float

    def __str__(self) -> str:
        return (
            f"demo: tasks={self.tasks} lost={self.lost} duplicates={self.duplicates} folds={self.folds} "
            f"redelivered={self.redelivered} killed={self.killed} equal={'yes' if self.equal else 'no'} "
            f"seconds={self.seconds:.1f}"
        )

    def is_right(self, published: int) -> bool:
        counts = (self.tasks, self.lost, self.duplicates, self.folds, self.killed)
        # The replay alone delivers every record again: if it did not, nothing was put to the test.
        return counts == (published, 0, 0, 1, 1) and self.redelivered >= published and self.equal


def judge(evidence: Evidence) -> Verdict:
    stored, answer = evidence.stored, evidence.stored.answer or {}
    # A task counts twice if a table has it twice, if the fold got it twice, or if a rerun that nobody asked for
    # put a second effect over the first.
    duplicates = stored.doubled + int(answer.get("counted_twice", 0)) + (stored.highest_run > 1)
    return Verdict(
        tasks=stored.results,
        lost=stored.lost,
        duplicates=duplicates,
        # One row is as it should be; then what could still be wrong is how often its handler ran.
        folds=audit.fold_calls(evidence.calls) if stored.folds == 1 else stored.folds,
        redelivered=audit.skipped([*evidence.after, evidence.victim]) + audit.calls_again(evidence.calls),
        killed=evidence.exit_statuses.count(-signal.SIGKILL),
        equal=stored.answer == evidence.expected,
        seconds=evidence.seconds,
    )


def summary(evidence: Evidence) -> list[tuple[str, int, str]]:
    """What happened, how often, and where the number comes from."""
    e, stored = evidence, evidence.stored
    before_skipped = audit.skipped(e.before)
    return [
        ("Sends published, as one fan-out", e.published, "acknowledged by the broker"),
        ("results stored", stored.results, _ROWS),
        ("  of these when a member was killed", e.done_at_kill, _ROWS),
        ("handler calls until the fold", len(e.calls_before) - audit.fold_calls(e.calls_before), _FILE),
        ("  of these again, because of the kill", audit.calls_again(e.calls_before), _FILE),
        ("finished records met again after the kill, skipped", before_skipped, _METRICS),
        ("claims taken from live members by the replay", audit.fenced(e.after) - audit.fenced(e.before), _METRICS),
        ("records that the replay delivered again, skipped", audit.skipped(e.after) - before_skipped, _METRICS),
        ("handler calls by the replay", len(e.calls) - len(e.calls_before), _FILE),
        ("folds", stored.folds, _ROWS),
        ("fold handler calls", audit.fold_calls(e.calls), _FILE),
        ("members that left in order", e.exit_statuses.count(0), "exit status"),
    ]
