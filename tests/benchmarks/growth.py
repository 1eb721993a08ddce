"""What a commit costs as the tables grow: 10,000 to 10,000,000 results, 100,000 threads, on one server, in turns.

Every sample begins with a checkpoint, so that the first change of each page is written to the WAL as a whole page: the
worst that a large table can do. Small tables are copied for each sample, or they would grow from one to the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.benchmarks.commits import PAYLOADS, WARM_UP, committing, fan_outs, in_batches, repeated, write_all
from tests.benchmarks.growth_tables import BASE, WIDTH, Footprint, fill, thread_id
from tests.benchmarks.measure import interleave, median, ratio
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack
from tests.support.kafka import unique_name
from tests.support.wait import eventually

NAME = "growth"

_SIZES, _SIZES_QUICK = (10_000, 100_000, 1_000_000, 10_000_000), (10_000, 100_000)
_THREADS = 100_000
_COPIED_MAX = 100_000
# Results in a batch, and commits in a sample: few, because they make a small table two or three times as large.
_COMMITS = {500: 20, 2_000: 7}
# A fan-out is spread over so many commits, as those of a topic with several partitions are.
_SPREAD = 4
_BOUND = 1.3
# A sample takes a fraction of a second, in which a machine may be busy with something else.
_SAMPLES_A_REPETITION = 2


@dataclass(slots=True)
class _Case:
    """Batches of one size into tables of one size."""

    stack: BenchStack
    dsn: str
    rows: int
    batch: int
    footprints: list[Footprint] = field(default_factory=list)

    @property
    def results(self) -> int:
        """In a sample, the warm-up included."""
        return self.batch * (_COMMITS[self.batch] + WARM_UP)

    def run(self) -> float:
        """Microseconds per result, of the median commit."""
        if self.rows > _COPIED_MAX:
            return self._measure(self.dsn)
        copy = _copied(self.stack, self.dsn)
        try:
            return self._measure(copy)
        finally:
            self.stack.drop_database(copy)

    def _measure(self, dsn: str) -> float:
        threads = (thread_id(random.randrange(_THREADS)) for _ in range(self.results // WIDTH))
        made = fan_outs(repeated(PAYLOADS, self.results), WIDTH, threads=threads, base=BASE)
        batches = in_batches(made, self.batch, spread=_SPREAD)
        with closing(psycopg.connect(dsn, autocommit=True)) as connection:
            connection.execute("checkpoint")
            before = Footprint.of(connection)
            _, each_s = write_all(committing, dsn, batches)
            # A backend reports its last counts when it ends.
            eventually(lambda: _is_alone(connection), what="the backend that committed ended")
            self.footprints.append(Footprint.of(connection).since(before))
        return median(each_s) / self.batch * 1e6

    def wal(self) -> Figure:
        values = [each.wal_bytes / self.results for each in self.footprints]
        return Figure(NAME, f"WAL, {_parameters(self.batch, self.rows)}", "bytes/result", values)

    def details(self) -> Iterator[Figure]:
        found = self.footprints
        where = f"batches of {self.batch:,} at {self.rows:,} rows"
        for name, unit, values in (
            ("pages in the WAL", "1/1,000 results", [each.wal_pages / self.results * 1e3 for each in found]),
            ("heap-only updates of fan-outs", "share", [each.fan_out_hot / each.fan_out_updates for each in found]),
            ("heap-only updates of progress", "share", [each.progress_hot / each.progress_updates for each in found]),
            ("growth of the result table", "bytes/result", [each.heap_bytes / self.results for each in found]),
            ("growth of its indexes", "bytes/result", [each.index_bytes / self.results for each in found]),
        ):
            yield Figure(NAME, f"{name}, {where}", unit, values)


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    sizes = _SIZES_QUICK if quick else _SIZES
    tables = {rows: stack.fresh_database() for rows in sizes}
    for rows, dsn in tables.items():
        say(f"{NAME}: filling a table of {rows:,} results")
        fill(dsn, rows, _THREADS, lambda text: say(f"{NAME}: {text}"))
    cases = {
        f"commit, {_parameters(batch, rows)}": _Case(stack, dsn, rows, batch)
        for batch in _COMMITS
        for rows, dsn in tables.items()
    }
    rounds = repetitions * _SAMPLES_A_REPETITION
    costs = interleave(
        {name: case.run for name, case in cases.items()},
        rounds,
        telling(say, NAME, rounds, "µs/result"),
    )
    for name, values in costs.items():
        yield Figure(NAME, name, "µs/result", values)
    for case in cases.values():
        yield case.wal()
    smallest, largest = sizes[0], sizes[-1]
    for case in cases.values():
        if case.rows in (smallest, largest):
            yield from case.details()
    for batch in _COMMITS:
        cost = ratio(*(costs[f"commit, {_parameters(batch, rows)}"] for rows in (largest, smallest)))
        yield Ratio(
            NAME,
            f"commit cost at {_power(largest)} rows ÷ at {_power(smallest)}, batches of {batch:,}",
            cost,
            _BOUND,
            True,
        )
    for dsn in tables.values():
        stack.drop_database(dsn)


def _parameters(batch: int, rows: int) -> str:
    return f"batches of {batch:,}, {rows:,} rows"


def _power(of_ten: int) -> str:
    return "10" + str(len(str(of_ten)) - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _copied(stack: BenchStack, dsn: str) -> str:
    """The DSN of a copy of a database that nobody is connected to."""
    name = unique_name("growth").replace("-", "_")
    template = conninfo_to_dict(dsn)["dbname"]
    create = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(str(template)))
    stack.execute(stack.postgres.dsn, create)
    return make_conninfo(dsn, dbname=name)


def _is_alone(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(
        "select count(*) = 1 from pg_stat_activity"
        " where datname = current_database() and backend_type = 'client backend'"
    ).fetchone()
    return row is not None and bool(row[0])
