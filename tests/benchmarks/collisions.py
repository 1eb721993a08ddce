"""Many workers that add a result each to one thread at once: what is lost, what is refused, and how long it takes.

All of them are done at the same moment, and each has read the thread before its work began. Where clocks differ, those
of half the workers run ahead: LangGraph's newest checkpoint is the one with the largest id, and an id begins with the
time of the worker that made it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from rich import box
from rich.table import Table

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.devstack import temporary_folder
from tests.benchmarks.contenders.fan_in_client import FLEET, Job
from tests.benchmarks.fan_in_clients import Clients, waits_s
from tests.benchmarks.machine import is_installed
from tests.benchmarks.measure import interleave, median, percentile, ratio
from tests.benchmarks.report import NOT_MEASURED, Figure, Ratio, Report, readable, telling
from tests.benchmarks.servers import BenchStack

NAME = "collisions"

_WORKERS = 100
"""In a quick run, and in the last line."""
# Rounds for one of the wide ones: narrow ones are short, and the p99 of few workers is that of the slowest.
_ROUNDS = {10: 4, _WORKERS: 2, 1_000: 1}
_MEMBERS = 4
_MEMBERS_MAX = 100
_AHEAD_MS = 10.0
_AHEAD = f", {_AHEAD_MS:g} ms skew"

_LOST, _REJECTED, _WRITE, _P50, _P99 = "lost", "first-try rejections", "mean write", "p50", "p99"
_UNITS = {_LOST: "results", _REJECTED: "workers", _WRITE: "ms", _P50: "ms", _P99: "ms"}


@dataclass(frozen=True, slots=True)
class _Way:
    """How results are added.

    Attributes:
        program: of `tests.benchmarks.contenders`.
        way: of that program's.
        ours: it must not lose any.
        members: who add the workers' results for them; None: each adds its own.
        workers_max: more would need more connections than a server has.
    """

    program: str
    way: str
    ours: bool = False
    ahead_ms: float = 0.0
    members: int | None = None
    workers_max: int = max(_ROUNDS)

    def job(self, workers: int, batch_max: int) -> Job:
        adding = self.members or workers
        return Job("", workers, adding, batch_max=batch_max, way=self.way, ahead_ms=self.ahead_ms)


_STOCK = _Way("fan_in_langgraph", "stock")
_SAVER = _Way("fan_in_saver", "locked", ours=True)
_FLEET = _Way("fan_in_fanfold", FLEET, ours=True)
_NAIVE, _LOCK, _APUT_WRITES = "stock saver, naive", "advisory lock + stock saver", "aput_writes"
_LOCKED, _REFUSED = "FanfoldSaver, locked", "FanfoldSaver, refused first"
_COMMIT, _COMMIT_EACH = f"commit path by {_MEMBERS} members", "commit path by each worker"
_WAYS = {
    _NAIVE: _STOCK,
    "stock saver, optimistic retries": replace(_STOCK, way="optimistic"),
    _LOCK: replace(_STOCK, way="lock"),
    _LOCK + _AHEAD: replace(_STOCK, way="lock", ahead_ms=_AHEAD_MS),
    _APUT_WRITES: replace(_STOCK, way="aput_writes"),
    _LOCKED: _SAVER,
    _LOCKED + _AHEAD: replace(_SAVER, ahead_ms=_AHEAD_MS),
    _REFUSED: replace(_SAVER, way="refused"),
    _REFUSED + _AHEAD: replace(_SAVER, way="refused", ahead_ms=_AHEAD_MS),
    _COMMIT: replace(_FLEET, members=_MEMBERS),
    _COMMIT + _AHEAD: replace(_FLEET, members=_MEMBERS, ahead_ms=_AHEAD_MS),
    _COMMIT_EACH: replace(_FLEET, workers_max=_MEMBERS_MAX),
    _COMMIT_EACH + _AHEAD: replace(_FLEET, workers_max=_MEMBERS_MAX, ahead_ms=_AHEAD_MS),
}


class ResultsLost(Exception):
    """By a way that must not lose any."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One way, and what each of its fan-ins came to."""

    clients: Clients
    job: Job
    values: dict[str, list[float]] = field(default_factory=lambda: {what: [] for what in _UNITS})

    def run(self) -> float:
        """A fan-in into a new thread; its p99."""
        job = replace(self.job, thread_id=f"collisions-{uuid.uuid4()}")
        commits = self.clients.fan_in(job)
        waits_ms = [seconds * 1000 for seconds in waits_s(commits)]
        found = {
            _LOST: job.results - self.clients.stored(job),
            _REJECTED: sum(commit.results for commit in commits if commit.rejections),
            _WRITE: sum(commit.results * commit.write_s for commit in commits) / job.results * 1000,
            _P50: percentile(waits_ms, 50),
            _P99: percentile(waits_ms, 99),
        }
        for what, value in found.items():
            self.values[what].append(value)
        return found[_P99]


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    if not is_installed("langgraph.checkpoint.postgres"):
        yield f"{NAME} was skipped: langgraph-checkpoint-postgres is not installed; `make bench` installs it"
        return
    folder = temporary_folder("bench-collisions")
    batch_max = FleetConfig(NAME, (), stack.kafka).batch_results_max
    lost: list[str] = []
    say(f"{NAME}: connecting and warming up")
    with ExitStack() as opened:
        # Every contender keeps its connections from here to the end; who takes no part in a fan-in sits still.
        clients: dict[str, Clients] = {}
        for program, workers in _programs().items():
            # A database each: the tables of LangGraph's saver get a trigger from ours.
            dsn = opened.enter_context(stack.database())
            clients[program] = opened.enter_context(Clients(program, dsn, workers, env=stack.env(dsn), folder=folder))
            clients[program].warm_up()
        for workers in (_WORKERS,) if quick else _ROUNDS:
            cases = {
                name: _Case(clients[way.program], way.job(workers, batch_max))
                for name, way in _WAYS.items()
                if workers <= way.workers_max
            }
            rounds = repetitions * _ROUNDS[workers]
            telling_each = telling(say, f"{NAME}, {workers:,} workers", rounds, "ms p99")
            interleave({name: case.run for name, case in cases.items()}, rounds, telling_each)
            for name, case in cases.items():
                for what, values in case.values.items():
                    yield Figure(NAME, _figure(workers, name, what), _UNITS[what], values)
                if _WAYS[name].ours and any(case.values[_LOST]):
                    lost.append(f"{_figure(workers, name, _LOST)}: {sum(case.values[_LOST]):,.0f} in {rounds} rounds")
            yield from _ratios(workers, cases)
    if lost:
        raise ResultsLost("; ".join(lost))


def table(report: Report) -> Table:
    """The medians, a line for each way, as it is pasted into a page."""
    found = Table("workers", "way", box=box.MARKDOWN)
    for what, unit in _UNITS.items():
        found.add_column(f"{what}, ms" if unit == "ms" else what, justify="right")
    for workers in _ROUNDS:
        for name in _WAYS:
            values = [_values(report, workers, name, what) for what in _UNITS]
            if all(values):
                found.add_row(f"{workers:,}", name, *(readable(median(of_one)) for of_one in values))
    return found


def last_line(report: Report) -> str:
    """For programs. What ours lost is counted over all rounds, what the stock saver lost is its median."""

    def lost(*, ahead: bool) -> str:
        ours = [name for name, way in _WAYS.items() if way.ours and bool(way.ahead_ms) is ahead]
        values = [value for name in ours for value in _values(report, _WORKERS, name, _LOST)]
        return f"{sum(values):.0f}" if values else NOT_MEASURED

    def middle(name: str, what: str, digits: int) -> str:
        values = _values(report, _WORKERS, name, what)
        return f"{median(values):.{digits}f}" if values else NOT_MEASURED

    def versus(name: str) -> str:
        found = report.ratio(NAME, _ratio(_WORKERS, name))
        return f"{found.value:.2f}" if found else NOT_MEASURED

    return (
        f"{NAME}: workers={_WORKERS} lost={lost(ahead=False)} skew_lost={lost(ahead=True)}"
        f" p99_ms={middle(_COMMIT, _P99, 1)} vs_aput_writes={versus(_APUT_WRITES)} vs_lock_saver={versus(_LOCK)}"
        f" naive_lost={middle(_NAIVE, _LOST, 0)}"
    )


def _programs() -> dict[str, int]:
    """Those that are needed, and how many add results in each at most."""
    most = sorted((way.members or way.workers_max, way.program) for way in _WAYS.values())
    return {program: adding for adding, program in most}


def _ratios(workers: int, cases: Mapping[str, _Case]) -> Iterator[Ratio]:
    for name in (_APUT_WRITES, _LOCK):
        value = ratio(cases[_COMMIT].values[_P99], cases[name].values[_P99])
        yield Ratio(NAME, _ratio(workers, name), value, 1.0, at_most=True)


def _figure(workers: int, way: str, what: str) -> str:
    return f"{workers:,} workers, {way}: {what}"


def _ratio(workers: int, way: str) -> str:
    return f"{workers:,} workers, {_COMMIT} p99 ÷ {way} p99"


def _values(report: Report, workers: int, way: str, what: str) -> list[float]:
    found = report.figure(NAME, _figure(workers, way, what))
    return found.values if found else []
