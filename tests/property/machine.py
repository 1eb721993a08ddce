"""The commit against a plain oracle: a random fleet on a real database, all tables and guarantees checked at each step.

    python -m tests.property.machine --seconds 60 --seed 1

goes on with new seeds for so long. On a violation it prints the shortest sequence of steps that shows it, and exits 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from fanfold_sql import migrate
from tests.property.model import steps
from tests.property.model.checked import CheckedStore, Database
from tests.property.model.fleet import BATCH_MAX, MEMBERS, Fate, Fleet
from tests.property.model.healing import heal
from tests.property.model.members import PARTITIONS
from tests.property.model.steps import Step
from tests.support.servers import running_postgres

STEPS = 50
EPISODES_A_BATCH = 25

_NUMBER = st.integers(0, 11)
_MEMBER = st.integers(0, MEMBERS - 1)
_PARTITION = st.integers(0, PARTITIONS - 1)
_THREAD = st.sampled_from(("t0", "t1"))
_BASE = st.sampled_from(
    ((), (), (), (), (), (), (("a", 1),), (("a", 2),), (("a", 1), ("b", 1)), (("b", 1),), (("b", 2),)),
)
_MOSTLY = st.sampled_from((True, True, False))
_SELDOM = st.sampled_from((False, False, False, True))
_PUBLISH = st.builds(
    steps.Publish,
    thread=_THREAD,
    size=st.integers(1, 3),
    children=st.sampled_from((0, 0, 1, 2)),
    fold=_MOSTLY,
    quorum=st.sampled_from((None, None, None, 1, 2)),
    max_failures=st.sampled_from((None, None, None, 0, 1)),
    deadline=st.sampled_from((None, None, None, "fail", "fold")),
    base=_BASE,
    torn=_SELDOM,
)
_FATE = st.sampled_from((Fate.ANSWERED, Fate.ANSWERED, Fate.ANSWERED, Fate.REPLY_LOST, Fate.REQUEST_LOST))


# How often each is chosen, of the sum of them: what gets work done first.
_WEIGHTS: Sequence[tuple[int, st.SearchStrategy[Step]]] = (
    (8, _PUBLISH),
    (2, st.builds(steps.PublishAgain, _NUMBER, _PARTITION, st.integers(0, 2))),
    (
        2,
        st.builds(
            steps.PublishWrong,
            _NUMBER,
            st.sampled_from(("arg", "arg", "bytes", "index", "task_id", "size", "thread")),
            _PARTITION,
        ),
    ),
    (28, st.builds(steps.Work, _NUMBER, _FATE, st.sampled_from((None, None, None, 0, 1)), _SELDOM, _MOSTLY)),
    (6, st.builds(steps.Poll, _NUMBER, st.integers(1, 4))),
    (6, st.builds(steps.Finish, _NUMBER, st.integers(1, 3), st.sampled_from((False, False, True)))),
    (6, st.builds(steps.Commit, _MEMBER, st.sampled_from((1, 2, BATCH_MAX)), _FATE)),
    (1, st.builds(steps.LateCopy, _NUMBER)),
    (3, st.builds(steps.Claim, _MEMBER, _PARTITION)),
    (1, st.builds(steps.Release, _NUMBER)),
    (2, st.builds(steps.Renew, _MEMBER)),
    (1, st.builds(steps.Crash, _MEMBER)),
    (8, st.builds(steps.Relay, _MEMBER, st.sampled_from((0, 1, 3, 3)), _MOSTLY, _MOSTLY)),
    (2, st.builds(steps.Replay, _PARTITION, _NUMBER, st.sampled_from((0, 0, 0, 1)))),
    (4, st.builds(steps.Rerun, _NUMBER, st.integers(1, 7))),
    (2, st.builds(steps.CommitWithoutKafka, _NUMBER)),
    (1, st.builds(steps.Cancel, _NUMBER, st.none() | _THREAD)),
    (1, st.builds(steps.Supersede, _THREAD, _BASE)),
    (1, st.builds(steps.CancelThread, _THREAD)),
    (2, st.builds(steps.Expire)),
    (6, st.builds(steps.FailOver, _MOSTLY)),
)
_STEP = st.sampled_from([strategy for weight, strategy in _WEIGHTS for _ in range(weight)]).flatmap(lambda s: s)


@dataclass(slots=True)
class Count:
    episodes: int = 0
    steps: int = 0
    steps_to_violation: int = 0
    violation: str | None = None


class Machine(RuleBasedStateMachine):
    """One episode: random steps, a look at everything after each, and in the end a fleet without faults."""

    database: Database
    count: Count

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(CheckedStore(self.database))
        self.survivors = False
        self._around = sys.exc_info()[1]
        self.count.episodes += 1

    @initialize(survivors=st.booleans(), first=_PUBLISH, second=_PUBLISH)
    def begin(self, survivors: bool, first: Step, second: Step) -> None:
        self.survivors = survivors
        first.play(self.fleet)
        second.play(self.fleet)
        for partition in range(PARTITIONS):
            self.fleet.claim(self.fleet.members[partition % 2], partition)
        self._look()

    # One rule for all: Hypothesis leaves out half of the rules in an episode, and without work there is nothing to see.
    @rule(step=_STEP)
    def play(self, step: Step) -> None:
        step.play(self.fleet)
        self._look()

    def _look(self) -> None:
        self.count.steps += 1
        self.fleet.verify()

    def teardown(self) -> None:
        # Hypothesis calls this too when a step failed.
        failure = sys.exc_info()[1]
        try:
            if failure is self._around:
                failure = None
                heal(self.fleet, survivors=self.survivors)
        except Exception as error:
            failure = error
            raise
        finally:
            if isinstance(failure, Exception) and not self.count.steps_to_violation:
                self.count.steps_to_violation = self.count.steps


@dataclass(frozen=True, slots=True)
class Report:
    """`steps`: all of them, or up to the violation; its text ends with the steps that lead to it."""

    episodes: int
    steps: int
    violation: str | None
    seconds: float


def run(
    dsn: str, seconds: float, seed: int, *, shrink: bool = False, on_batch: Callable[[Count], None] = lambda _: None
) -> Report:
    """Play on a migrated database, which must be nobody else's, until the time is over or something is violated.

    Args:
        shrink: look for the shortest sequence of steps that shows it, which takes longer than finding one.
    """
    started = time.monotonic()
    database = Database(dsn)
    count = Count()
    try:
        batch = 0
        while count.violation is None and time.monotonic() - started < seconds:
            machine = episodes(database, count)
            try:
                run_state_machine_as_test(
                    hypothesis.seed(seed * 1_000_000 + batch)(machine), settings=machine_settings(shrink=shrink)
                )
            except Exception as error:
                # Its notes are the steps that lead to it.
                count.violation = "".join(traceback.format_exception_only(error))
            batch += 1
            on_batch(count)
    finally:
        database.close()
    steps = count.steps if count.violation is None else count.steps_to_violation
    return Report(count.episodes, steps, count.violation, time.monotonic() - started)


def episodes(database: Database, count: Count) -> type[Machine]:
    """The machine on a database. A class, because Hypothesis makes an instance an episode and gives it no arguments."""
    return type("Episode", (Machine,), {"database": database, "count": count})


def machine_settings(
    *, shrink: bool, episodes: int = EPISODES_A_BATCH, derandomize: bool = False
) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=episodes,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=derandomize,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _show(count: Count) -> None:
    print(f"machine: {count.episodes} episodes, {count.steps} steps", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="machine", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with running_postgres() as server, server.temporary_database() as name:
        migrate(server.dsn_for(name))
        report = run(server.dsn_for(name), options.seconds, options.seed, shrink=True, on_batch=_show)
    if report.violation is not None:
        print(report.violation, file=sys.stderr)
    violations = int(report.violation is not None)
    print(f"machine: episodes={report.episodes} steps={report.steps} violations={violations}")
    return violations


if __name__ == "__main__":
    sys.exit(main())
