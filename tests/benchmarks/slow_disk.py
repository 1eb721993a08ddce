"""Slow disks: a commit holds its thread's lock until it is on disk. What group commit makes of that, and what it gives
to release the lock earlier (`--early-lock-release`; how is in commit_results_early.sql).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import psycopg
from psycopg import sql

from fanfold_sql import Store
from tests.benchmarks.hot_thread import Member, Results, Waits
from tests.benchmarks.measure import interleave, median, ratio
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack

NAME = "slow_disk"

_FLUSH_MS = (0, 1, 4)
_MEMBERS = 16
_RESULTS = 100
_FLUSHES = 9
_WITH = ", early release"
_FLUSH = "select pg_logical_emit_message(true, 'fanfold', '')"


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    for flush_ms in _FLUSH_MS[1:] if quick else _FLUSH_MS:
        yield from _on_disk(stack, flush_ms, repetitions, say)
    yield (
        f"{NAME}: a slower disk is `commit_delay`, a wait before each flush; what comes meanwhile goes with it, and"
        " would go with the next on a disk that is slow by itself"
    )


def _on_disk(
    stack: BenchStack, flush_ms: int, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio]:
    disk = f"flush {flush_ms} ms slower" if flush_ms else "this disk"
    flushes_ms: list[float] = []
    contenders = {
        f"{way}{name}": partial(_play, stack, flush_ms, flushes_ms, results_max, early)
        for way, results_max in (("one by one", 1), ("group commit", 1000))
        for name, early in (("", False), (_WITH, True))
    }
    found = interleave(
        contenders,
        repetitions,
        telling(say, f"{NAME}, {disk}", repetitions, "ms"),
    )
    yield Figure(NAME, f"{disk}: one flush", "ms", flushes_ms)
    for name, samples in found.items():
        yield Figure(NAME, f"{disk}: {_RESULTS} into one thread by {_MEMBERS}, {name}", "ms", samples)
    for way in ("one by one", "group commit"):
        value = ratio(found[way], found[f"{way}{_WITH}"])
        yield Ratio(NAME, f"{disk}: {way} ÷ the same with early release", value, None, False)


def _play(stack: BenchStack, flush_ms: int, flushes_ms: list[float], results_max: int, early: bool) -> float:
    """How long it takes until the last of the results is acknowledged, in ms."""
    with stack.database() as dsn:
        name = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
        for setting, value in (("commit_delay", flush_ms * 1000), ("commit_siblings", 0)):
            statement = sql.SQL("alter database {} set {} = {}").format(name, sql.SQL(setting), sql.Literal(value))
            stack.execute(dsn, statement)
        flushes_ms.append(_flush_ms(dsn))
        return 1000 * asyncio.run(_seconds(dsn, results_max, early))


def _flush_ms(dsn: str) -> float:
    """What one flush takes, so that it can be seen that the disk is as slow as it is said to be."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        taken: list[float] = []
        for _ in range(_FLUSHES):
            began = time.perf_counter()
            connection.execute(_FLUSH)
            taken.append(1000 * (time.perf_counter() - began))
        return median(taken)


async def _seconds(dsn: str, results_max: int, early: bool) -> float:
    waits, results = Waits(), Results()
    async with Store.open(dsn, pool_size=_MEMBERS, early_lock_release=early) as store:
        members = [Member(store, number, waits, results_max=results_max) for number in range(_MEMBERS)]
        for member in members:
            await member.join()
        for _ in range(4):  # connections are opened and statements prepared
            for member in members:
                member.finish([results.of("warm-up")])
            await asyncio.gather(*(member.settled() for member in members))
        began = time.perf_counter()
        for number in range(_RESULTS):
            members[number % _MEMBERS].finish([results.of("hot")])
        await asyncio.gather(*(member.settled() for member in members))
        seconds = time.perf_counter() - began
        for member in members:
            await member.leave()
    return seconds
