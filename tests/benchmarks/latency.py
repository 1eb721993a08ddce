"""How long from publishing a fan-out until the result of its fold is stored, in the fleet as it is when nobody sets
anything, and in a hand-written consumer.

Both read the same records, written by the same plain producer: what is compared is everything behind it. A watcher asks
for the row of the fan-out every millisecond, the same way for both. While one works, the other is stopped by a signal.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from fanfold_consumer.devstack import temporary_folder
from fanfold_producer import Publisher
from tests.benchmarks.child import Child
from tests.benchmarks.contenders.handwritten_join import TABLES
from tests.benchmarks.contenders.stream import WIDTH as STREAM_WIDTH
from tests.benchmarks.measure import interleave, percentile, ratio
from tests.benchmarks.records import Mould, Plain, echoes
from tests.benchmarks.report import Figure, Ratio
from tests.benchmarks.servers import BenchStack
from tests.support.wait import eventually

NAME = "latency"

_PARTITIONS = 4
_FAN_OUTS = 100
"""Of each kind, over all rounds: the least that a p99 can be told from."""
_WARM_UP = 5
_BURST = 300
"""Fan-outs that are written at once to see how many tasks a second go through."""
_LOAD = 0.5
_PUBLISHED = 30
_POLL_S = 0.001
_THINK_S = 0.02
"""At most so long, at random, between two fan-outs: else they would keep step with somebody's timer."""
_TIMEOUT_S = 60.0

_BOUND = 1.2
_FLEET, _HANDWRITTEN = "fleet", "hand-written"


@dataclass(frozen=True, slots=True)
class _Setting:
    """What is measured at a time."""

    width: int
    loaded: bool
    processes: int

    def __str__(self) -> str:
        load = f"{_LOAD:.0%} load" if self.loaded else "idle"
        return f"{self.width:,}-wide {load}, {_processes(self.processes)}"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between contenders: the program, and how to ask whether a fold, and how many folds, are stored."""

    program: str
    folded: LiteralString
    all_folded: LiteralString


_KINDS = {
    _FLEET: _Kind(
        "fleet_member",
        "select 1 from fanfold.fan_out where fan_out_id = %s and folded_at is not null",
        "select count(*) from fanfold.fan_out where folded_at is not null",
    ),
    _HANDWRITTEN: _Kind(
        "handwritten_join",
        "select 1 from joined where fan_out_id = %s and folded is not null",
        "select count(*) from joined where folded is not null",
    ),
}


@dataclass(slots=True)
class _Contender:
    """Its processes, a topic and a database of their own, and what puts load on them."""

    kind: _Kind
    topic: str
    plain: Plain
    members: list[Child]
    stream: Child
    database: psycopg.Connection[Any]
    moulds: dict[int, Mould] = field(default_factory=dict)
    written: int = 0
    streamed: int = 0

    def hop_ms(self, width: int) -> float:
        """From the first byte of a fan-out to the first look that finds its fold stored."""
        if width not in self.moulds:
            self.moulds[width] = Mould(self.topic, echoes(width), "total")
        fan_out_id, records = self.moulds[width].cast()
        self.written += 1
        began = time.monotonic()
        self.plain.write(records)
        while self.database.execute(self.kind.folded, (fan_out_id,)).fetchone() is None:
            if time.monotonic() - began > _TIMEOUT_S:
                for member in self.members:
                    member.check()
                raise TimeoutError(f"a fan-out of {width} was not folded within {_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)
        return (time.monotonic() - began) * 1000

    def hops_ms(self, width: int, count: int) -> list[float]:
        hops = []
        for _ in range(count):
            time.sleep(random.random() * _THINK_S)
            hops.append(self.hop_ms(width))
        return hops

    def tasks_per_s(self) -> float:
        """How fast a burst goes through, from its first byte to its last fold."""
        began = time.monotonic()
        self._told({"fan_outs": _BURST})
        self.settle()
        return _BURST * STREAM_WIDTH / (time.monotonic() - began)

    def settle(self) -> None:
        """Wait until everything written is folded."""
        everything = self.written + self.streamed

        def folded() -> bool:
            (count,) = self.database.execute(self.kind.all_folded).fetchone() or (0,)
            return bool(count >= everything)

        eventually(folded, _TIMEOUT_S, what=f"all {everything} fan-outs folded")

    @contextmanager
    def load(self, tasks_per_s: float) -> Iterator[None]:
        """A stream of other fan-outs; 0: none."""
        if tasks_per_s:
            self.stream.say({"tasks_per_s": tasks_per_s})
        try:
            yield
        finally:
            if tasks_per_s:
                self._told({"tasks_per_s": 0})

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Only while it is its turn do its processes run."""
        for member in self.members:
            member.resume()
        self.hops_ms(STREAM_WIDTH, _WARM_UP)
        try:
            yield
        finally:
            self.settle()
            for member in self.members:
                member.pause()

    def _told(self, message: dict[str, Any]) -> None:
        said = len(self.stream.lines)
        self.stream.say(message)
        eventually(lambda: len(self.stream.lines) > said, _TIMEOUT_S, what="the stream's answer")
        self.streamed = self.stream.lines[-1]["sent"]


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    """Fan-outs of 1, 100 and 1,000, idle and at half load, by 1 and 2 processes; quick: of 100, idle, by 1 process."""
    hops = -(-_FAN_OUTS // repetitions)
    for processes in (1,) if quick else (1, 2):
        with _contenders(stack, processes) as contenders:
            load = 0.0
            if not quick:
                say(f"{NAME}: throughput, {_processes(processes)}")
                found = {name: _tasks_per_s(contender) for name, contender in contenders.items()}
                for name, tasks_per_s in found.items():
                    yield Figure(NAME, f"burst, {name}, {_processes(processes)}", "tasks/s", [tasks_per_s])
                load = min(found.values()) * _LOAD
                yield (
                    f"{NAME}: {_LOAD:.0%} load on {_processes(processes)} is {load:,.0f} tasks/s for both contenders, "
                    "half of what the slower one does"
                )
            for loaded in (False,) if quick else (False, True):
                for width in (100,) if quick else (1, 100, 1000):
                    setting = _Setting(width, loaded, processes)
                    say(f"{NAME}: {setting}")
                    yield from _measure(contenders, setting, load if loaded else 0.0, hops, repetitions)
    if not quick:
        say(f"{NAME}: publishing")
        yield from _publishing(stack, repetitions)


def _tasks_per_s(contender: _Contender) -> float:
    with contender.turn():
        contender.tasks_per_s()  # once to warm up: statements prepared, tables cached
        return contender.tasks_per_s()


def _measure(
    contenders: dict[str, _Contender], setting: _Setting, load: float, hops: int, repetitions: int
) -> Iterator[Figure | Ratio]:
    everything: dict[str, list[float]] = {name: [] for name in contenders}

    def round_of(name: str) -> Callable[[], float]:
        def measure() -> float:
            contender = contenders[name]
            with contender.turn(), contender.load(load):
                found = contender.hops_ms(setting.width, hops)
            everything[name] += found
            return percentile(found, 50)

        return measure

    medians = interleave({name: round_of(name) for name in contenders}, repetitions)
    for name in contenders:
        yield Figure(NAME, f"{name}, {setting}, p50", "ms", medians[name])
        yield Figure(NAME, f"{name}, {setting}, p99", "ms", [percentile(everything[name], 99)])
    yield _ratio(setting, ratio(medians[_FLEET], medians[_HANDWRITTEN]))


def _ratio(setting: _Setting, value: float) -> Ratio:
    if (setting.width, setting.loaded, setting.processes) == (100, False, 1):
        return Ratio(NAME, "publish → fold, 100-wide idle p50 ÷ hand-written", value, _BOUND, True)
    return Ratio(NAME, f"publish → fold, {setting}, p50 ÷ hand-written", value, None, True)


def _publishing(stack: BenchStack, repetitions: int) -> Iterator[Figure]:
    """What our own publisher takes until the broker has acknowledged a fan-out, which the hops above leave out."""
    topic = stack.fresh_topic(_PARTITIONS)
    sends = echoes(STREAM_WIDTH)
    plain, mould = Plain(stack.kafka), Mould(topic, sends, "total")
    with Publisher(stack.kafka, topic=topic) as whole, Publisher(stack.kafka, topic=topic, atomic=False) as singly:

        def publish(publisher: Publisher) -> Callable[[], None]:
            def way() -> None:
                publisher.fan_out("t1", sends, fold="total")

            return way

        ways = {
            "Publisher": publish(whole),
            "Publisher(atomic=False)": publish(singly),
            "plain producer, encoded before": lambda: plain.write(mould.cast()[1]),
        }
        found = interleave({name: _p50_ms(way) for name, way in ways.items()}, repetitions)
    for name, values in found.items():
        yield Figure(NAME, f"publish {STREAM_WIDTH}, {name}, p50", "ms", values)


def _p50_ms(way: Callable[[], None]) -> Callable[[], float]:
    def measure() -> float:
        times = []
        for _ in range(_WARM_UP + _PUBLISHED):
            began = time.monotonic()
            way()
            times.append((time.monotonic() - began) * 1000)
        return percentile(times[_WARM_UP:], 50)

    return measure


@contextmanager
def _contenders(stack: BenchStack, processes: int) -> Iterator[dict[str, _Contender]]:
    """Both, with all partitions taken, warm and stopped."""
    with ExitStack() as cleaning:
        found = {}
        for name, kind in _KINDS.items():
            contender = _start(stack, cleaning, kind, processes)
            _await_shares(contender, name, processes)
            with contender.turn():
                contender.hops_ms(STREAM_WIDTH, _WARM_UP)
            found[name] = contender
        yield found


def _start(stack: BenchStack, cleaning: ExitStack, kind: _Kind, processes: int) -> _Contender:
    topic, dsn = stack.fresh_topic(_PARTITIONS), cleaning.enter_context(stack.database())
    database = cleaning.enter_context(psycopg.connect(dsn, autocommit=True))
    database.execute(TABLES)
    folder, env = temporary_folder("latency"), stack.env(dsn)

    def child(name: str, *arguments: str, log: Path) -> Child:
        return cleaning.enter_context(Child(name, *arguments, env=env, log=log))

    members = [
        child(kind.program, "--topic", topic, "--group", topic, log=folder / f"{kind.program}-{number}.log")
        for number in range(processes)
    ]
    stream = child("stream", topic, log=folder / "stream.log")
    stream.wait_for(lambda line: "ready" in line, _TIMEOUT_S, what="readiness")
    return _Contender(kind, topic, Plain(stack.kafka), members, stream, database)


def _await_shares(contender: _Contender, name: str, processes: int) -> None:
    """Wait until each process has its share of the partitions: a rebalance later on would be measured, too."""

    def shares() -> Sequence[int]:
        if name == _FLEET:
            owners = (
                "select count(*)::int4 from fanfold.partition_progress where topic = %s and owner is not null"
                " group by owner"
            )
            return [count for (count,) in contender.database.execute(owners, (contender.topic,)).fetchall()]
        return [member.lines[-1]["assigned"] for member in contender.members if member.lines]

    def shared() -> bool:
        for member in contender.members:
            member.check()
        return sorted(shares()) == [_PARTITIONS // processes] * processes

    eventually(shared, _TIMEOUT_S, what=f"{_PARTITIONS} partitions shared by {_processes(processes)}")


def _processes(count: int) -> str:
    return f"{count} process" + ("" if count == 1 else "es")
