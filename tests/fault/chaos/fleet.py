"""The members of a campaign, and a supervisor that starts again what died, as Kubernetes would."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fanfold_consumer.devstack.client_config import write_properties
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES
from tests.fault.chaos.member import Event, MemberProcess
from tests.fault.chaos.stack import ChaosStack
from tests.support.wait import eventually

HANDLERS = ("tests.fault.chaos.handlers", "tests.fault.chaos.nemesis_handlers")
SESSION_S = 4.0
PROPERTIES = {
    "consumer.session.timeout.ms": f"{SESSION_S * 1000:.0f}",
    "consumer.heartbeat.interval.ms": "500",
    # Partitions that were added, and leaders that moved, are noticed while the campaign lasts.
    "topic.metadata.refresh.interval.ms": "2000",
    "metadata.max.age.ms": "6000",
    "reconnect.backoff.max.ms": "1000",
    "socket.timeout.ms": "10000",
}
"""Of members and, without `consumer.`, of publishers: sessions and caches that end within a campaign of minutes."""

_OPTIONS = ("--no-prepare", "--log-format", "json", "--health-port", "0", "--drain-s", "5", "--revoke-grace-s", "2")
_LIMITS = ("--concurrency", "64", "--in-flight-max", "400", "--pool-size", "3", "--relay-lease-s", "5")
_WATCH_S = 0.2
_DRAIN_S = 20.0


class Fleet:
    """Slots, each with a member in it for as long as the slot is wanted.

    Methods may be called from any OS thread. Slots are numbered from 0; a slot that was stopped stays as a number
    without a member.

    Args:
        mutant: a folder with mutated packages of the product, to be found before the real ones.
        options: of `fanfold consume`, after those of every member.
        handlers: modules.
    """

    def __init__(
        self,
        stack: ChaosStack,
        folder: Path,
        group: str,
        topics: tuple[str, ...],
        count: int,
        mutant: Path | None = None,
        options: tuple[str, ...] = (),
        handlers: tuple[str, ...] = HANDLERS,
    ) -> None:
        self.crashes: list[str] = []
        self._folder = folder
        self._python_path = [] if mutant is None else [mutant]
        self._properties = folder / "kafka.properties"
        write_properties(self._properties, PROPERTIES)
        self._env = {
            "DATABASE_URL": stack.worker_dsn,
            ENV_BOOTSTRAP_SERVERS: stack.kafka.bootstrap,
            ENV_PROPERTIES: str(self._properties),
        }
        self._command = ["--group", group, *_OPTIONS, *_LIMITS, *options]
        for module in handlers:
            self._command += ["--handlers", module]
        for topic in topics:
            self._command += ["--topic", topic]
        self._count = count
        self._slots: list[MemberProcess | None] = []
        self._clocks: dict[int, float] = {}
        self._all: list[MemberProcess] = []
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="fleet-supervisor", daemon=True)

    def __enter__(self) -> Fleet:
        for _ in range(self._count):
            self.start_one()
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._supervisor.join()
        for member in self._all:
            member.kill()

    @property
    def members(self) -> list[MemberProcess | None]:
        """By slot: the member that is in it now."""
        with self._lock:
            return list(self._slots)

    @property
    def history(self) -> list[MemberProcess]:
        """Every member there ever was."""
        with self._lock:
            return list(self._all)

    def pick(self, rng: random.Random) -> tuple[int, MemberProcess]:
        """One of those that live, with its slot."""
        live = [(slot, member) for slot, member in enumerate(self.members) if member is not None and member.alive]
        return rng.choice(live)

    def member(self, slot: int) -> MemberProcess:
        found = self.members[slot]
        assert found is not None, f"slot {slot} is empty"
        return found

    def start_one(self, clock_s: float = 0.0) -> int:
        """A further member; returns its slot."""
        with self._lock:
            slot = len(self._slots)
            self._clocks[slot] = clock_s
            self._slots.append(self._start(slot))
            return slot

    def stop_one(self, slot: int) -> int:
        """Drain it and leave the slot empty; returns the exit status."""
        with self._lock:
            member = self.member(slot)
            member.terminate()
            self._slots[slot] = None
        return member.await_exit(_DRAIN_S)

    @contextmanager
    def clock(self, slot: int, skew_s: float) -> Iterator[None]:
        """Put a member with a wrong clock into a slot, for a while; the one that was there is killed."""
        self._replace(slot, skew_s)
        try:
            yield
        finally:
            self._replace(slot, 0.0)

    @contextmanager
    def all_down(self) -> Iterator[None]:
        """SIGKILL to all of them; none is started again meanwhile."""
        with self._lock:
            for member in self._slots:
                if member is not None:
                    member.kill()
            yield

    def events(self, name: str, **fields: Any) -> list[Event]:
        """Of all members there ever were."""
        return [event for member in self.history for event in member.events(name, **fields)]

    def count(self, name: str, **fields: Any) -> int:
        return len(self.events(name, **fields))

    def counts(self) -> Counter[str]:
        """How often each event was logged, by all there ever were."""
        return sum((member.counts() for member in self.history), Counter())

    def metric(self, name: str, **labels: str) -> dict[str, float]:
        """A metric by member, of those that live; who died took the count along."""
        live = [member for member in self.members if member is not None and member.alive]
        return {member.name: member.metric(name, **labels) for member in live}

    def await_all_claimed(self, timeout_s: float = 60.0) -> None:
        """Wait until each member has claimed a partition."""

        def claimed() -> bool:
            return all(member is None or member.events("partition.claimed") for member in self.members)

        eventually(claimed, timeout_s, what="a partition for each member")

    def _start(self, slot: int) -> MemberProcess:
        name = f"member-{slot}-{len(self._all)}"
        member = MemberProcess(
            name, self._folder, self._command, self._env, self._python_path, self._clocks.get(slot, 0.0)
        )
        self._all.append(member)
        return member

    def _replace(self, slot: int, clock_s: float) -> None:
        with self._lock:
            self._clocks[slot] = clock_s
            present = self._slots[slot]
            if present is not None:  # not stopped for good meanwhile
                present.kill()
                self._slots[slot] = self._start(slot)

    def _supervise(self) -> None:
        while not self._over.wait(_WATCH_S):
            with self._lock:
                for slot, member in enumerate(self._slots):
                    if member is None or member.alive:
                        continue
                    if not member.expected_end:
                        self.crashes.append(f"{member.name} ended with status {member.status}:\n{member.log_tail()}")
                    self._slots[slot] = self._start(slot)
