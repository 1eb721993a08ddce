"""Handlers that mostly wait, as for a model's answer: what a task in flight costs in memory and processor time, and how
late its handler is, in the fleet and in a hand-written asyncio consumer.

Tasks that sleep 1 to 5 s come at a constant rate, so that a given number of them is in flight all the time. Each
result says when its handler began and went on, by the clock that all processes share.
"""

from __future__ import annotations

import bisect
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import ormsgpack
import psycopg

from fanfold_consumer.devstack import temporary_folder
from tests.benchmarks.child import Child
from tests.benchmarks.contenders.fleet_member import ENV_SETTINGS
from tests.benchmarks.contenders.handwritten_sleep import TABLES
from tests.benchmarks.machine import cpu_seconds
from tests.benchmarks.measure import interleave, median, percentile, ratio
from tests.benchmarks.records import TEXT, Mould, Plain
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack
from tests.support.wait import eventually

NAME = "sleeping"

_IN_FLIGHT = (1000, 10_000)
_SLEEP_S = (1.0, 5.0)
_PARTITIONS = 4
_HOLD_S = 6.0
"""How long that many are in flight, after the first of them have ended."""
_WIDTH = 100
_SAMPLE_S = 0.1
_TIMEOUT_S = 60.0
_FULL = 0.9
"""A sample of the memory counts if at least this share was in flight of what there was at most."""
_BOUND_KIB = 20.0

_FLEET, _HANDWRITTEN = "fleet", "hand-written"
_PROGRAMS = {_FLEET: "fleet_member", _HANDWRITTEN: "handwritten_sleep"}
_COUNTS: Mapping[str, LiteralString] = {
    _FLEET: "select count(*) from fanfold.result",
    _HANDWRITTEN: "select count(*) from slept",
}
_RESULTS: Mapping[str, LiteralString] = {
    _FLEET: "select fan_out_id, payload from fanfold.result",
    _HANDWRITTEN: "select fan_out_id, payload from slept",
}


@dataclass(slots=True)
class _Seen:
    """What was seen of one run, one value a run in each list.

    Attributes:
        resident_kib, unique_kib: memory above idle per task in flight: what the process has resident, and what of it no
            other process shares.
        late_ms: from the end of a sleep to its handler going on (p50, p99).
        begun_ms: from writing a task to its handler beginning (p50, p99).
    """

    resident_kib: list[float] = field(default_factory=list)
    unique_kib: list[float] = field(default_factory=list)
    late_ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    begun_ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    cpu_us: list[float] = field(default_factory=list)
    in_flight: list[float] = field(default_factory=list)


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    """1,000 and 10,000 in flight in one process; the limit is raised to a bit more, through the configuration."""
    for in_flight in _IN_FLIGHT[:1] if quick else _IN_FLIGHT:
        say(f"{NAME}: {in_flight:,} in flight")
        seen = {name: _Seen() for name in _PROGRAMS}
        rounds = repetitions if in_flight == max(_IN_FLIGHT) else 1
        interleave(
            {name: _measured(stack, name, in_flight, seen[name]) for name in _PROGRAMS},
            rounds,
            telling(say, NAME, rounds, "KiB"),
        )
        for name in _PROGRAMS:
            yield from _figures(f"{name}, {in_flight:,} in flight", seen[name])
            if min(seen[name].in_flight) < in_flight * _FULL:
                yield (
                    f"{NAME}: {name} had {min(seen[name].in_flight):,.0f} tasks in flight instead of {in_flight:,}: "
                    "they did not begin as fast as they were written"
                )
        fleet, handwritten = seen[_FLEET], seen[_HANDWRITTEN]
        if in_flight == max(_IN_FLIGHT) and min(fleet.in_flight) >= in_flight * _FULL:
            kib = median(fleet.resident_kib)
            yield Ratio(NAME, f"memory per task in flight, {in_flight:,} tasks", kib, _BOUND_KIB, True)
        for what, of, to in (
            ("memory", fleet.resident_kib, handwritten.resident_kib),
            ("processor time", fleet.cpu_us, handwritten.cpu_us),
        ):
            yield Ratio(NAME, f"{what} per task, {in_flight:,} in flight ÷ hand-written", ratio(of, to), None, True)


def _figures(name: str, seen: _Seen) -> Iterator[Figure]:
    yield Figure(NAME, f"{name}, resident memory per task", "KiB", seen.resident_kib)
    yield Figure(NAME, f"{name}, unshared memory per task", "KiB", seen.unique_kib)
    for percent, late, begun in zip((50, 99), seen.late_ms, seen.begun_ms, strict=True):
        yield Figure(NAME, f"{name}, handler went on late, p{percent}", "ms", late)
        yield Figure(NAME, f"{name}, written to begun, p{percent}", "ms", begun)
    yield Figure(NAME, f"{name}, processor time per task", "µs", seen.cpu_us)
    yield Figure(NAME, f"{name}, in flight when measured", "tasks", seen.in_flight)


def _measured(stack: BenchStack, name: str, in_flight: int, seen: _Seen) -> Callable[[], float]:
    def measure() -> float:
        with ExitStack() as cleaning:
            _Run(stack, cleaning, name, in_flight).measure(seen)
        return seen.resident_kib[-1]

    return measure


class _Run:
    """A contender's life: started, idle, full, empty, ended."""

    def __init__(self, stack: BenchStack, cleaning: ExitStack, name: str, in_flight: int) -> None:
        self._name = name
        self._in_flight = in_flight
        self._topic, dsn = stack.fresh_topic(_PARTITIONS), cleaning.enter_context(stack.database())
        self._database = cleaning.enter_context(psycopg.connect(dsn, autocommit=True))
        self._database.execute(TABLES)
        limit = in_flight + in_flight // 5
        # Of what has ended, some wait for their commit: they are in flight, but need no place of their own to run.
        settings = {"concurrency": limit, "in_flight_max": limit + limit // 5}
        arguments = ["--limit", str(limit)] if name == _HANDWRITTEN else []
        self._child = cleaning.enter_context(
            Child(
                _PROGRAMS[name],
                *("--topic", self._topic, "--group", self._topic, *arguments),
                env={**stack.env(dsn), ENV_SETTINGS: json.dumps(settings)},
                log=temporary_folder("sleeping") / f"{_PROGRAMS[name]}.log",
            )
        )
        self._plain = Plain(stack.kafka)
        self._written: dict[str, int] = {}

    def measure(self, seen: _Seen) -> None:
        self._write(Mould(self._topic, _sleeps(0.0, 0.0)))
        self._await_stored()
        idle = _memory_kib(self._child.pid)
        cpu_s = cpu_seconds([self._child.pid])
        samples = self._fill()
        self._await_stored()
        cpu_s = cpu_seconds([self._child.pid]) - cpu_s
        results = self._results()
        begun = sorted(result["begun"] for _, result in results)
        ended = sorted(result["ended"] for _, result in results)
        counts = [bisect.bisect(begun, at) - bisect.bisect(ended, at) for at, _ in samples]
        full = [n for n, count in enumerate(counts) if count >= max(counts) * _FULL]
        resident = [(samples[n][1]["Rss"] - idle["Rss"]) / counts[n] for n in full]
        unique = [(samples[n][1]["Private"] - idle["Private"]) / counts[n] for n in full]
        seen.resident_kib.append(median(resident))
        seen.unique_kib.append(median(unique))
        seen.in_flight.append(median([counts[n] for n in full]))
        seen.cpu_us.append(cpu_s / len(results) * 1e6)
        late = [(result["ended"] - result["begun"]) / 1e6 - result["slept"] * 1e3 for _, result in results]
        waited = [(result["begun"] - self._written[fan_out_id]) / 1e6 for fan_out_id, result in results]
        for at, percent in enumerate((50, 99)):
            seen.late_ms[at].append(percentile(late, percent))
            seen.begun_ms[at].append(percentile(waited, percent))

    def _fill(self) -> list[tuple[int, dict[str, float]]]:
        """Write tasks at the rate that keeps so many in flight; what the memory was, and when."""
        mould = Mould(self._topic, _sleeps(*_SLEEP_S))
        pause_s = _WIDTH / (self._in_flight / (sum(_SLEEP_S) / 2))
        samples = []
        began = due = sample_at = time.monotonic()
        while due < began + max(_SLEEP_S) + _HOLD_S:
            self._write(mould)
            due += pause_s
            while (now := time.monotonic()) < due:
                if now >= sample_at:
                    samples.append((time.monotonic_ns(), _memory_kib(self._child.pid)))
                    sample_at = now + _SAMPLE_S
                time.sleep(max(0.0, min(due, sample_at) - time.monotonic()))
        return samples

    def _write(self, mould: Mould) -> None:
        fan_out_id, records = mould.cast()
        self._written[fan_out_id] = time.monotonic_ns()
        self._plain.queue(records)

    def _await_stored(self) -> None:
        self._plain.flush()
        expected = len(self._written) * _WIDTH

        def stored() -> bool:
            self._child.check()
            (count,) = self._database.execute(_COUNTS[self._name]).fetchone() or (0,)
            return bool(count >= expected)

        eventually(stored, _TIMEOUT_S, what=f"{expected} results of {self._name}")

    def _results(self) -> list[tuple[str, dict[str, Any]]]:
        rows = self._database.execute(_RESULTS[self._name], binary=True)
        results = [(fan_out_id, ormsgpack.unpackb(payload)) for fan_out_id, payload in rows]
        return [(fan_out_id, result) for fan_out_id, result in results if result["slept"]]


def _sleeps(low_s: float, high_s: float) -> list[tuple[str, Any]]:
    return [("sleep", {"n": n, "seconds": random.uniform(low_s, high_s), "text": TEXT}) for n in range(_WIDTH)]


def _memory_kib(pid: int) -> dict[str, float]:
    """`Rss`, and `Private`: the pages that no other process shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found: dict[str, float] = defaultdict(float)
    for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE):
        found["Private" if name.startswith("Private_") else name] += float(kib)
    return found
