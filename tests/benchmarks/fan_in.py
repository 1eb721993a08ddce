"""Many results into one thread at once: how long each waits until it is durable, and how long for the thread's lock.

All results of a fan-in are ready at the same moment, when its members start, in two client processes. A member has a
connection of its own and commits what it holds as the fleet does: everything that is ready, up to the default limit of
a batch.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import product

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.devstack import temporary_folder
from tests.benchmarks.contenders.fan_in_client import FLEET, Commit, Job
from tests.benchmarks.fan_in_clients import Clients, total_s, waits_s
from tests.benchmarks.fan_in_lock_watch import LockWatch
from tests.benchmarks.machine import is_installed
from tests.benchmarks.measure import interleave, median, percentile, ratio
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack

NAME = "fan_in"

_MEMBERS_MAX = 100
# (results, members). 100,000 by few only: a thread takes one commit at a time, and its batches are full with few, so
# more members would take turns with the same commits.
_SIZES = (*product((100, 1_000, 10_000), (1, 4, 16, 100)), (100_000, 1), (100_000, 4))
_SIZES_QUICK = ((100, 4), (100, 100))
# Fan-ins in a round, by width. The p99 of one fan-in of 100 is nearly its maximum, so it is taken over all of them.
_FAN_INS = {100: 20, 1_000: 5, 10_000: 2, 100_000: 1}
_WATCHED_MAX = 3
# Rounds of the flatness for one of the others: they are short, and a ratio near 1 needs many.
_FLATNESS_ROUNDS = 5

_ONE_BY_ONE = "100 by 4 members, one transaction per result"
_APUT_WRITES = "100 by 100 workers, aput_writes"
_LOCK = "100 by 100 workers, advisory lock + stock saver"
_STOCK = "100 by 100 workers, stock saver without a lock"
_NARROW, _WIDE = "cost per result, 100-wide", "cost per result, 10,000-wide"


@dataclass(slots=True)
class _Case:
    """One contender: a number of like fan-ins a round, each into a thread of its own, and what they measured."""

    clients: Clients
    job: Job
    dsn: str
    totals_ms: list[float] = field(default_factory=list)
    p50s_ms: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)
    lock_shares: list[float] = field(default_factory=list)
    lost: int = 0
    results: int = 0

    def run(self) -> float:
        """A round; its p99."""
        fan_ins = _FAN_INS[self.job.results]
        runs = [self._fan_in() for _ in range(fan_ins)]
        waits_ms = [seconds * 1000 for commits in runs for seconds in waits_s(commits)]
        self.totals_ms.append(median([total_s(commits) * 1000 for commits in runs]))
        self.p50s_ms.append(percentile(waits_ms, 50))
        self.p99s_ms.append(percentile(waits_ms, 99))
        # More of them, because those that are watched cannot be timed.
        with LockWatch(self.dsn) as watch:
            for _ in range(min(fan_ins, _WATCHED_MAX)):
                self._fan_in()
        self.lock_shares.append(watch.share)
        return self.p99s_ms[-1]

    def figures(self, name: str) -> Iterator[Figure | str]:
        yield Figure(NAME, f"{name}, total", "ms", self.totals_ms)
        yield Figure(NAME, f"{name}, p50", "ms", self.p50s_ms)
        yield Figure(NAME, f"{name}, p99", "ms", self.p99s_ms)
        yield Figure(NAME, f"{name}, waiting for the lock", "share", self.lock_shares)
        if self.lost:
            yield f"{NAME}: {name}: {self.lost:,} of {self.results:,} results were lost, without an error"

    def _fan_in(self) -> list[Commit]:
        commits, lost = _fan_in(self.clients, self.job)
        self.lost += lost
        self.results += self.job.results
        return commits


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    dsn = stack.fresh_database()
    folder = temporary_folder("bench-fan-in")
    batch_max = FleetConfig("fan-in", (), stack.kafka).batch_results_max
    savers = {"aput_writes": _APUT_WRITES, "lock": _LOCK} | ({} if quick else {"stock": _STOCK})
    if not is_installed("langgraph.checkpoint.postgres"):
        savers = {}
        yield f"{NAME}: LangGraph's savers were skipped: langgraph-checkpoint-postgres is not installed"
    say("fan_in: connecting and warming up")
    with ExitStack() as opened:

        def clients(program: str) -> Clients:
            started = Clients(program, dsn, _MEMBERS_MAX, env=stack.env(dsn), folder=folder)
            opened.enter_context(started).warm_up()
            return started

        # Every contender keeps its connections from here to the end; who takes no part in a fan-in sits still.
        fanfold = clients("fan_in_fanfold")
        cases = {
            _name(width, members): _Case(fanfold, Job("", width, members, batch_max=batch_max), dsn)
            for width, members in (_SIZES_QUICK if quick else _SIZES)
        }
        # By 100 members that is what ours does anyway: each has one.
        cases[_ONE_BY_ONE] = _Case(fanfold, Job("", 100, 4, batch_max=1), dsn)
        if savers:
            langgraph = clients("fan_in_langgraph")
            cases |= {name: _Case(langgraph, Job("", 100, 100, way=way), dsn) for way, name in savers.items()}
        interleave(
            {name: case.run for name, case in cases.items()}, repetitions, telling(say, NAME, repetitions, "ms p99")
        )
        for name, case in cases.items():
            yield from case.figures(name)
        yield from _ratios(cases)
        yield from _flatness(fanfold, batch_max, repetitions, say)
    stack.drop_database(dsn)


def _ratios(cases: dict[str, _Case]) -> Iterator[Ratio]:
    for name, of, to, bound in (
        ("100 by 4 members, p99 ÷ aput_writes p99", _name(100, 4), _APUT_WRITES, 0.25),
        ("100 by 100 members, p99 ÷ advisory lock + stock saver p99", _name(100, 100), _LOCK, 0.3),
        ("100 by 100 members, p99 ÷ aput_writes p99", _name(100, 100), _APUT_WRITES, None),
        ("100 by 4 members, p99 ÷ one transaction per result p99", _name(100, 4), _ONE_BY_ONE, None),
    ):
        if to in cases:
            yield Ratio(NAME, name, ratio(cases[of].p99s_ms, cases[to].p99s_ms), bound, at_most=True)


def _flatness(
    fanfold: Clients, batch_max: int, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio]:
    """Whether a result costs more in a wide fan-out.

    Cost per result is the total time of a fan-in divided by its results. Both sides are 10,000 results into one thread
    through one member, in equal batches of the default size, as 100 fan-outs of 100 and as one of 10,000; with batches
    of their own, the narrow ones would pay for small commits instead. They still pay for opening and completing 100
    fan-outs, so what width alone does is shown apart: the second half of the wide one, when thousands of its results
    are there, against its first.
    """
    halves: list[float] = []

    def cost_us(fan_outs: int) -> float:
        commits, _ = _fan_in(fanfold, Job("", 10_000, 1, fan_outs, batch_max))
        if fan_outs == 1:
            half_s = total_s(commits[: len(commits) // 2])
            halves.append(total_s(commits) / half_s - 1)
        return total_s(commits) / 10_000 * 1e6

    rounds = repetitions * _FLATNESS_ROUNDS
    costs = interleave(
        {_NARROW: lambda: cost_us(100), _WIDE: lambda: cost_us(1)}, rounds, telling(say, NAME, rounds, "µs")
    )
    for name, values in costs.items():
        yield Figure(NAME, name, "µs", values)
    flat = ratio(costs[_WIDE], costs[_NARROW])
    yield Ratio(NAME, "cost per result, 10,000-wide ÷ 100-wide", flat, 1.2, at_most=True)
    yield Ratio(NAME, "10,000-wide, its second half ÷ its first", median(halves), None, at_most=True)


def _fan_in(clients: Clients, job: Job) -> tuple[list[Commit], int]:
    """A fan-in into a new thread, and how many of its results are not there afterwards: none, if it is ours."""
    job = replace(job, thread_id=f"fan-in-{uuid.uuid4()}")
    commits = clients.fan_in(job)
    lost = job.results - clients.stored(job)
    if lost and job.way == FLEET:
        raise RuntimeError(f"{lost} of the {job.results} results of {job.thread_id} are not there")
    return commits, lost


def _name(width: int, members: int) -> str:
    return f"{width:,} by {members} member{'s' if members > 1 else ''}"
