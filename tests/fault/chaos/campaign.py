"""A campaign: servers, members and producers, nemeses let loose on them, and the verdict when all is over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES
from tests.fault.chaos import checker
from tests.fault.chaos.checker import Verdict
from tests.fault.chaos.finding import Finding
from tests.fault.chaos.fleet import Fleet
from tests.fault.chaos.journal import Journal
from tests.fault.chaos.mutant import Mutated
from tests.fault.chaos.nemeses import ALL
from tests.fault.chaos.nemeses.own_work import OwnWork
from tests.fault.chaos.produce import STOP_FLAG
from tests.fault.chaos.sampler import Sampler, p99
from tests.fault.chaos.stack import chaos_stack
from tests.fault.chaos.world import World
from tests.support.tree import ROOT

GROUP = "chaos"
TOPICS = {"chaos-a": 4, "chaos-b": 2}
SIDE_TOPIC = "chaos-side"
PRODUCERS = 2
_FAULT_S = (1.0, 4.0)
_PAUSE_S = (0.2, 1.0)
_OVERLAP_CHANCE = 0.5
_CALM_S = 3.0
_MENDED_S = 10.0
_LOAD_S = 3.0
"""How long producers are let work before the first fault, so that there is something to hit."""
_PRODUCERS_S = 60.0
_SETTLE_S = 90.0
_BAD_RECORD_S = 10.0
NOT_APPLICABLE = {13: "this version reads from the primary only"}
_WITNESS = Path(__file__).with_name("witness.sql")


@dataclass(frozen=True, slots=True)
class Settings:
    """`rate`: tasks a second of each producer. `mutant`: instead of the product as it is."""

    seed: int = 1
    brokers: int = 1
    members: int = 4
    rate: float = 150.0
    mutant: Mutated | None = None
    settle_s: float = _SETTLE_S


@dataclass(frozen=True, slots=True)
class Report:
    """What a campaign came to.

    Attributes:
        runs, effects: by nemesis.
        recovery_p99_s: per fault, the longest time without a commit from its start until they flow again; of these p99.
        broken_off: nemeses that could not do what they were to do, and why.
    """

    seed: int
    verdict: Verdict
    runs: Counter[str]
    effects: Counter[str]
    fenced: int
    rewound: int
    recovery_p99_s: float
    broken_off: tuple[str, ...]

    @property
    def without_effect(self) -> list[str]:
        return sorted(name for name in self.runs if not self.effects[name])

    @property
    def sound(self) -> bool:
        return not (self.verdict.findings or self.without_effect or self.broken_off)

    @property
    def table(self) -> str:
        """As Markdown: each nemesis with its runs and effects, and what became of the guarantees."""
        lines = ["| nemesis | runs | effects |", "|---|---|---|"]
        lines += [f"| {name} | {runs} | {self.effects[name]} |" for name, runs in sorted(self.runs.items())]
        checked = ", ".join(f"{count} {kind}" for kind, count in self.verdict.checked.most_common())
        lines += ["", f"Fan-outs and records that had to end in a certain way: {checked}."]
        broken = Counter(finding.guarantee for finding in self.verdict.findings)
        holding = [str(number) for number in range(1, 16) if number not in broken and number not in NOT_APPLICABLE]
        lines += ["", f"Guarantees that hold: {', '.join(holding)}."]
        lines += [f"Guarantee {number} is broken: {count} findings." for number, count in sorted(broken.items())]
        lines += [f"Guarantee {number} is not applicable: {why}." for number, why in NOT_APPLICABLE.items()]
        return "\n".join(lines)

    @property
    def last_line(self) -> str:
        verdict = self.verdict
        return (
            f"chaos: seed={self.seed} faults={self.runs.total()} tasks={verdict.tasks}"
            f" redelivered={verdict.redelivered} fenced={self.fenced} rewound={self.rewound}"
            f" ambiguous={verdict.ambiguous} lost={verdict.count('lost')} duplicates={verdict.count('duplicate')}"
            f" stuck={verdict.count('stuck')} recovery_p99_s={self.recovery_p99_s:.1f}"
        )


class Campaign:
    """One that is under way. Made by `campaign`."""

    def __init__(
        self, settings: Settings, world: World, sampler: Sampler, producers: list[subprocess.Popen[bytes]]
    ) -> None:
        self.world = world
        self._settings = settings
        self._sampler = sampler
        self._producers = producers
        self._rng = random.Random(settings.seed)
        self._broken_off: list[str] = []

    def strike(self, names: Sequence[str], seconds: float) -> None:
        """Let one nemesis loose, or several at once, and return when all have healed what they did."""
        threads = [
            threading.Thread(target=self._strike, args=(name, self._rng.random(), seconds), name=name) for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def await_commits(self) -> None:
        """Wait until commits flow: what was done before is mended."""
        self._sampler.await_commit(_MENDED_S)

    def mix(self, names: Sequence[str], seconds: float) -> None:
        """One after another, some two at a time, each at least once if there is time, with pauses to heal."""
        rng = self._rng
        deadline = time.monotonic() + seconds
        waiting: list[str] = []
        while (left_s := deadline - time.monotonic()) > 0:
            waiting = waiting or rng.sample(list(names), len(names))
            now = [waiting.pop(0)]
            # Two of a kind would undo each other's effect: the member that one pauses is killed by the other.
            others = [name for name in waiting if _kind(name) != _kind(now[0])]
            if others and rng.random() < _OVERLAP_CHANCE:
                waiting.remove(others[0])
                now.append(others[0])
            say(f"{left_s:4.0f} s left: {' and '.join(now)}")
            self.strike(now, rng.uniform(*_FAULT_S))
            time.sleep(rng.uniform(*_PAUSE_S))
        # Another fault may have hidden what a nemesis did; by itself it must show.
        ran = {entry.nemesis for entry in self.world.journal.entries(phase="start")}
        for name in sorted(ran - {entry.nemesis for entry in self.world.journal.entries(phase="effect")}):
            say(f"once more, alone: {name}")
            self.await_commits()
            self.strike([name], _FAULT_S[1])

    def conclude(self) -> Report:
        """Faults are off: let everything complete, and judge."""
        time.sleep(_CALM_S)
        say("producers stop")
        (self.world.folder / STOP_FLAG).touch()
        findings = [Finding(14, "stuck", problem) for problem in self._await_producers()]
        say("waiting for what is on its way")
        findings += checker.settle(self.world, self._settings.settle_s)
        if not findings:
            # Where something is stuck already, these would only find it again, slowly.
            findings += self._bad_records()
        say("checking")
        verdict = checker.check(self.world)
        if not findings and not verdict.findings:
            findings += self._replay()
        findings += [Finding(14, "wrong", f"a member crashed: {crash}") for crash in self.world.fleet.crashes]
        journal = self.world.journal
        findings += [
            Finding(14, "wrong", f"{entry.nemesis} saw on {entry.target}: {entry.detail}")
            for entry in journal.entries(phase="violation")
        ]
        faults = [(entry.at - entry.detail["took_s"], entry.at) for entry in journal.entries(phase="end")]
        return Report(
            self._settings.seed,
            replace(verdict, findings=[*findings, *verdict.findings]),
            Counter(entry.nemesis for entry in journal.entries(phase="start")),
            Counter(entry.nemesis for entry in journal.entries(phase="effect")),
            self.world.fleet.count("partition.fenced"),
            self.world.fleet.count("partition.rewound"),
            p99(self._sampler.silences_s(faults)),
            tuple(self._broken_off),
        )

    def _strike(self, name: str, seed: float, seconds: float) -> None:
        try:
            ALL[name].run(self.world, random.Random(seed), seconds)
        except Exception as error:
            self._broken_off.append(f"{name}: {error!r}")
            say(f"{name} broke off: {error!r}")

    def _await_producers(self) -> Iterator[str]:
        deadline = time.monotonic() + _PRODUCERS_S
        for number, producer in enumerate(self._producers, 1):
            try:
                status = producer.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                yield f"producer {number} did not stop within {_PRODUCERS_S:g} s"
            else:
                if status:
                    yield f"producer {number} ended with status {status}; see producer-{number}.log"

    def _bad_records(self) -> list[Finding]:
        """15: a bad record at the head of each partition, and a good one behind it."""
        work = OwnWork(self.world, "bad-record")
        began = time.monotonic()
        good = []
        for topic, partitions in self._partitions().items():
            for partition in range(partitions):
                built = work.build(topic, 1)
                record = replace(built.records[0], partition=partition)
                work.write([replace(record, key=b"bad", value=b"\xc1bad"), record])
                good.append(built.fan_out.id)
        for fan_out_id in good:
            work.await_folded(fan_out_id, max(0.1, began + _BAD_RECORD_S - time.monotonic()))
        late = [fan_out_id for fan_out_id in good if not work.folded(fan_out_id)]
        return [Finding(15, "stuck", f"{name}: a bad record held it up for {_BAD_RECORD_S:g} s") for name in late]

    def _replay(self) -> list[Finding]:
        """12 and 5: read everything again while members run; nothing may come of it."""
        say("replaying everything")
        before = checker.fingerprint(self.world)
        for topic in self.world.topics:
            command = ["replay", "--group", self.world.group, "--topic", topic, "--to-earliest", "--fence", "--execute"]
            done = subprocess.run(
                [sys.executable, "-c", "from fanfold_consumer.cli import main; main()", *command],
                env=_environment(self.world),
                capture_output=True,
                text=True,
                timeout=_PRODUCERS_S,
            )
            if done.returncode:
                return [Finding(12, "wrong", f"fanfold replay failed: {done.stderr[-500:]}")]
        stuck = checker.settle(self.world, self._settings.settle_s)
        if not stuck and checker.fingerprint(self.world) != before:
            return [Finding(12, "duplicate", "a replay of everything changed results")]
        return stuck

    def _partitions(self) -> dict[str, int]:
        return {topic: self.world.stack.kafka.partitions(topic) for topic in self.world.topics}


@contextmanager
def campaign(settings: Settings, folder: Path) -> Iterator[Campaign]:
    """Start everything and wait until members and producers are at work."""
    with ExitStack() as stack:
        servers = stack.enter_context(chaos_stack(folder, settings.brokers, settings.seed))
        for topic, partitions in {**TOPICS, SIDE_TOPIC: 2}.items():
            servers.kafka.create_topic(topic, partitions)
        texts = [_WITNESS.read_text()]
        if settings.mutant is not None:
            texts += settings.mutant.procedures
        with psycopg.connect(servers.owner_dsn, autocommit=True) as connection:
            for text in texts:
                connection.execute(text.encode())
        topics = tuple(TOPICS)
        mutant = settings.mutant.packages if settings.mutant is not None else None
        fleet = stack.enter_context(Fleet(servers, folder, GROUP, (*topics, SIDE_TOPIC), settings.members, mutant))
        rng = random.Random(settings.seed)
        journal = Journal(folder / "journal.jsonl")
        world = World(servers, fleet, topics, SIDE_TOPIC, GROUP, folder, rng, journal)
        fleet.await_all_claimed()
        producers = [_start_producer(world, number, settings, stack) for number in range(1, PRODUCERS + 1)]
        sampler = stack.enter_context(Sampler(lambda: servers.owner_dsn))
        running = Campaign(settings, world, sampler, producers)
        running.await_commits()
        time.sleep(_LOAD_S)
        yield running


def _kind(nemesis: str) -> str:
    """Members, database, network …: what it lays hands on."""
    return type(ALL[nemesis]).__module__


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _start_producer(world: World, number: int, settings: Settings, stack: ExitStack) -> subprocess.Popen[bytes]:
    command = ["--folder", str(world.folder), "--number", str(number), "--seed", str(settings.seed)]
    command += ["--rate", str(settings.rate), "--finish-s", str(settings.settle_s / 3)]
    for topic in world.topics:
        command += ["--topic", topic]
    with (world.folder / f"producer-{number}.log").open("wb") as log:
        producer = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.chaos.produce", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(world),
        )
    stack.callback(producer.wait)
    stack.callback(producer.kill)
    return producer


def _environment(world: World) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": world.stack.worker_dsn,
        ENV_BOOTSTRAP_SERVERS: world.stack.kafka.bootstrap,
        ENV_PROPERTIES: str(world.folder / "kafka.properties"),
    }
