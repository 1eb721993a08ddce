"""Everything a nemesis may lay hands on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.fault.chaos.fleet import Fleet
from tests.fault.chaos.journal import Journal
from tests.fault.chaos.stack import ChaosStack

NEMESIS_PREFIX = "nemesis-"
"""Threads and fan-outs with this in front belong to a nemesis, which knows itself what is to become of them."""


@dataclass(frozen=True, slots=True)
class World:
    """One campaign's servers, members and journal.

    Attributes:
        topics: of the workloads. Their tasks may not be lost.
        side_topic: read by the same fleet and used by nemeses alone, who may delete it.
    """

    stack: ChaosStack
    fleet: Fleet
    topics: tuple[str, ...]
    side_topic: str
    group: str
    folder: Path
    rng: random.Random
    journal: Journal


class Nemesis(Protocol):
    """One way to hurt. `run` injects, holds for about `seconds`, heals, and writes start, end and effect."""

    @property
    def name(self) -> str: ...

    def run(self, world: World, rng: random.Random, seconds: float) -> None: ...
