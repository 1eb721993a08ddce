"""The network between members and their servers: each fault of a link, towards Postgres and towards Kafka."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.fault.chaos.links import KINDS, Fault, Kind
from tests.fault.chaos.nemeses.act import Since, act, await_true, duplicates, hold
from tests.fault.chaos.world import World

_COMMIT = b"fanfold.commit_results"
_POSTGRES_CUT_CHANCE = 0.5
_KAFKA_CUT_CHANCE = 0.05
_POSTGRES_DELAY_S = 0.05
_KAFKA_DELAY_S = 0.02
_RESETS_PER_S = 1.0


@dataclass(frozen=True, slots=True)
class LinkFault:
    """One kind of fault on a link for a while. Towards Postgres, cuts aim at commits."""

    name: str
    to: str
    fault: Fault

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        link = world.stack.links[rng.choice(sorted(name for name in world.stack.links if name.startswith(self.to)))]
        kind = self.fault.kind
        with act(world, self.name, link.name, seconds=seconds) as this:
            since, again, before = Since(world), duplicates(world), link.hits[kind]
            with link.during(self.fault):
                if kind == "refuse":
                    # Without it, nobody would ask for a new connection.
                    link.cut_all()
                hold(seconds)
            hits = link.hits[kind] - before
            # What was committed although nobody heard of it is found when the same call is made again.
            ambiguous = self.fault.marker == _COMMIT and kind != "cut_before_request"
            found_again = await_true(again.total) if ambiguous else again.total()
            counts = since.counts()
            this.effect(
                hits and (found_again or not ambiguous),
                hits=hits,
                found_again=found_again,
                store_unavailable=counts["store.unavailable"],
                broker_unavailable=counts["broker.unavailable"],
            )


@dataclass(frozen=True, slots=True)
class ResetConnections:
    """All connections of a link are reset, again and again."""

    name: str
    to: str

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        link = world.stack.links[rng.choice(sorted(name for name in world.stack.links if name.startswith(self.to)))]
        with act(world, self.name, link.name, seconds=seconds) as this:
            hits = 0
            for _ in range(max(1, round(seconds * _RESETS_PER_S))):
                hits += link.cut_all()
                hold(1.0 / _RESETS_PER_S)
            this.effect(hits, hits=hits)


def _fault(kind: Kind, to: str) -> Fault:
    postgres = to == "postgres"
    if kind == "delay":
        delay_s = _POSTGRES_DELAY_S if postgres else _KAFKA_DELAY_S
        return Fault(kind, delay_s=delay_s, jitter_s=delay_s)
    if kind.startswith("cut"):
        return Fault(kind, _COMMIT, _POSTGRES_CUT_CHANCE) if postgres else Fault(kind, chance=_KAFKA_CUT_CHANCE)
    return Fault(kind)


def _towards(to: str) -> tuple[LinkFault | ResetConnections, ...]:
    faults = [LinkFault(f"{to}_{kind}", to, _fault(kind, to)) for kind in KINDS]
    return (*faults, ResetConnections(f"{to}_reset", to))


NETWORK_NEMESES = (*_towards("postgres"), *_towards("kafka"))
