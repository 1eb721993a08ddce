"""One run of a contender that reads a topic, by the same method for all, so that nobody's start-up counts.

Its processes join on an empty topic, take a small warm-up, and are stopped (SIGSTOP) while the backlog is published.
The clock runs from SIGCONT to the moment at which the last result is durable.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psycopg

from fanfold_producer.record import Record
from tests.benchmarks.backlog import publish
from tests.benchmarks.child import Child, ContenderFailed
from tests.benchmarks.machine import cpu_seconds, descendants
from tests.benchmarks.servers import BenchStack
from tests.support.kafka import unique_name

T = TypeVar("T")

PARTITIONS = 8
_JOIN_S = 60.0
_RUN_S = 300.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """What one run came to. Processor time is per task, in microseconds, of all processes of a kind together."""

    tasks_per_s: float
    consumers_us: float
    postgres_us: float
    broker_us: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A program of `tests.benchmarks.contenders` and how to tell what it has done.

    Attributes:
        schema: what its database needs besides our tables.
        stored: a query for the number of results that are stored; None: it stores nothing.
        done: for the fleet, a query for the number of tasks that are done; the others say `{"done": n}`.
        env: what its environment has besides that of all contenders.
    """

    program: str
    arguments: tuple[str, ...] = ()
    schema: str | None = None
    stored: str | None = None
    done: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def race(
    stack: BenchStack, contender: Contender, warm_up: Sequence[Record], backlog: Sequence[Record], processes: int
) -> Run:
    """Run it once, in a database and on a topic of its own.

    Raises:
        ContenderFailed: it ended, hung, or lost something.
    """
    database, topic = stack.fresh_database(), stack.fresh_topic(PARTITIONS)
    try:
        with (
            psycopg.connect(database, autocommit=True) as connection,
            _started(stack, contender, database, topic, processes) as children,
        ):
            if contender.schema is not None:
                connection.execute(contender.schema.encode())
            progress = _Progress(contender, connection, children)
            _wait(progress.all_joined, _JOIN_S, children, f"{processes} processes joined")
            publish(stack.kafka, topic, warm_up)
            _wait(lambda: progress.done() >= len(warm_up), _JOIN_S, children, "the warm-up done")
            for child in children:
                child.pause()
            publish(stack.kafka, topic, backlog)
            run = _timed(stack, children, progress, len(warm_up), len(backlog))
            _check(contender, connection, len(warm_up) + len(backlog))
            return run
    finally:
        stack.drop_database(database)
        stack.drop_topic(topic)


@contextmanager
def _started(
    stack: BenchStack, contender: Contender, database: str, topic: str, processes: int
) -> Iterator[list[Child]]:
    arguments = (*contender.arguments, "--topic", topic, "--group", unique_name("bench"))
    env = {**stack.env(database), **contender.env}
    with tempfile.TemporaryDirectory(prefix="fanfold-bench-") as folder, ExitStack() as running:
        yield [
            running.enter_context(Child(contender.program, *arguments, env=env, log=Path(folder, f"{number}.log")))
            for number in range(processes)
        ]


class _Progress:
    """How far a contender is: what its processes say, or what the fleet's tables say."""

    def __init__(self, contender: Contender, connection: psycopg.Connection, children: Sequence[Child]) -> None:
        self._done = contender.done
        self._connection = connection
        self._children = children

    def all_joined(self) -> bool:
        if self._done is not None:
            members = self._ask("select count(distinct owner) from fanfold.partition_progress")
            claimed = self._ask("select count(owner) from fanfold.partition_progress")
            return members == len(self._children) and claimed == PARTITIONS
        shares = [_last(child, "assigned") for child in self._children]
        return sum(shares) == PARTITIONS and all(shares)

    def done(self) -> int:
        if self._done is not None:
            return self._ask(self._done)
        return sum(_last(child, "done") for child in self._children)

    def done_at(self, total: int) -> float | None:
        """When so many were durable (`time.perf_counter`); None: not yet."""
        if self.done() < total:
            return None
        if self._done is not None:
            return time.perf_counter()
        # The line that said so last arrived then, however long ago we looked.
        return max(float(line["at"]) for child in self._children for line in child.lines[-1:])

    def _ask(self, query: str) -> int:
        row = self._connection.execute(query.encode()).fetchone()
        return 0 if row is None else int(row[0])


def _last(child: Child, field: str) -> int:
    # A copy of the list, because the reader appends to it; backwards, because the last one counts.
    return next((int(line[field]) for line in reversed(list(child.lines)) if field in line), 0)


def _timed(stack: BenchStack, children: Sequence[Child], progress: _Progress, before: int, tasks: int) -> Run:
    def used() -> tuple[float, float, float]:
        consumers = cpu_seconds(child.pid for child in children)
        return consumers, cpu_seconds(descendants(stack.postgres_pid)), cpu_seconds(stack.kafka_pids)

    used_before = used()
    began = time.perf_counter()
    for child in children:
        child.resume()
    ended = _wait(lambda: progress.done_at(before + tasks), _RUN_S, children, f"{tasks:,} tasks done")
    per_task = [(after - earlier) / tasks * 1e6 for after, earlier in zip(used(), used_before, strict=True)]
    return Run(tasks / (ended - began), *per_task)


def _wait(condition: Callable[[], T | None], timeout_s: float, children: Sequence[Child], what: str) -> T:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise ContenderFailed(f"{children[0].name}: not within {timeout_s:g} s: {what}")
        time.sleep(_POLL_S)
    return value


def _check(contender: Contender, connection: psycopg.Connection, expected: int) -> None:
    """A figure of a run that lost something is none."""
    if contender.stored is None:
        return
    row = connection.execute(contender.stored.encode()).fetchone()
    stored = 0 if row is None else int(row[0])
    if stored != expected:
        raise ContenderFailed(f"{contender.program} stored {stored:,} of {expected:,} results")
