"""The curves that choose the size of a commit: results per second and milliseconds by results in a batch, through one
connection and two, against the same rows inserted raw; and what a fan-out costs beside its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg

from fanfold_sql import Finished
from tests.benchmarks.commits import (
    PAYLOADS,
    WARM_UP,
    Opener,
    committing,
    fan_outs,
    in_batches,
    inserting,
    make_raw_table,
    repeated,
    write_all,
)
from tests.benchmarks.measure import interleave, median, ratio
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack

NAME = "batches"

_SIZES, _SIZES_QUICK = (1, 10, 100, 500, 1_000, 2_000, 5_000), (1, 100, 500, 2_000)
_CONNECTIONS = (1, 2)
_WIDTH = 100
_NARROW = (1, 10)
_NARROW_BATCH = 500
# So many results a sample and connection, but no more commits than that: small ones are slow, and alike.
_RESULTS, _COMMITS_MIN, _COMMITS_MAX = 10_000, 4, 150


@dataclass(slots=True)
class _Case:
    """One point of a curve."""

    dsn: str
    opener: Opener
    size: int
    connections: int
    width: int
    ms: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Results per second."""
        commits = max(_COMMITS_MIN, min(_COMMITS_MAX, _RESULTS // self.size))
        lots = [self._lot(commits) for _ in range(self.connections)]
        passed_s, each_s = write_all(self.opener, self.dsn, *lots)
        self.ms.append(median(each_s) * 1000)
        return commits * self.connections * self.size / passed_s

    def _lot(self, commits: int) -> list[list[Finished]]:
        results = (commits + WARM_UP) * self.size
        return in_batches(fan_outs(repeated(PAYLOADS, results), self.width), self.size)


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    sizes = _SIZES_QUICK if quick else _SIZES
    dsn = stack.fresh_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        make_raw_table(connection)
    cases: dict[str, _Case] = {}
    for connections in _CONNECTIONS:
        for size in sizes:
            cases[_named("commit", size, connections)] = _Case(dsn, committing, size, connections, _WIDTH)
            cases[_named("raw insert", size, connections)] = _Case(dsn, inserting, size, connections, _WIDTH)
    for width in _NARROW:
        cases[_narrow(width)] = _Case(dsn, committing, _NARROW_BATCH, 1, width)
    rates = interleave(
        {name: case.run for name, case in cases.items()},
        repetitions,
        telling(say, NAME, repetitions, "results/s"),
    )
    for name, case in cases.items():
        yield Figure(NAME, name, "results/s", rates[name])
        yield Figure(NAME, f"{name}, each commit", "ms", case.ms)
    for connections in _CONNECTIONS:
        for size in sizes:
            of_raw = ratio(rates[_named("commit", size, connections)], rates[_named("raw insert", size, connections)])
            yield Ratio(NAME, f"commit ÷ raw insert, {_parameters(size, connections)}", of_raw, None, at_most=False)
    for width in _NARROW:
        cost = ratio(rates[_named("commit", _NARROW_BATCH, 1)], rates[_narrow(width)])
        yield Ratio(NAME, f"cost per result, {width}-wide ÷ {_WIDTH}-wide", cost, None, at_most=True)
    stack.drop_database(dsn)


def _named(contender: str, size: int, connections: int) -> str:
    return f"{contender}, {_parameters(size, connections)}"


def _parameters(size: int, connections: int) -> str:
    return f"batches of {size:,}, {connections} connection{'s' if connections > 1 else ''}"


def _narrow(width: int) -> str:
    return f"commit, fan-outs of {width}, batches of {_NARROW_BATCH}"
