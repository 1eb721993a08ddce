"""What every nemesis does: say what it begins, what came of it and when it has ended, and wait for what comes of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

from tests.fault.chaos.world import World

T = TypeVar("T")
_POLL_S = 0.1
EFFECT_S = 30.0
"""How long something is waited for that a fault brings about in the end."""


class Act:
    """One go of a nemesis."""

    def __init__(self, world: World, name: str, target: str) -> None:
        self.not_shown: dict[str, Any] = {}
        self._world = world
        self._name = name
        self._target = target

    def effect(self, shown: object, **detail: Any) -> None:
        """Write down what was measured; unless `shown` is true, only with the end: then no effect was to be seen."""
        if not shown:
            self.not_shown = detail
        else:
            self._world.journal.write(self._name, "effect", self._target, **detail)

    def violation(self, **detail: Any) -> None:
        self._world.journal.write(self._name, "violation", self._target, **detail)


@contextmanager
def act(world: World, name: str, target: str, **detail: Any) -> Iterator[Act]:
    """From start to end. What the caller undoes, it undoes inside."""
    began = time.monotonic()
    world.journal.write(name, "start", target, **detail)
    this = Act(world, name, target)
    error = None
    try:
        yield this
    except BaseException as caught:
        error = repr(caught)
        raise
    finally:
        took_s = round(time.monotonic() - began, 1)
        world.journal.write(name, "end", target, took_s=took_s, error=error, not_shown=this.not_shown)


def await_true(condition: Callable[[], T], timeout_s: float = EFFECT_S) -> T:
    """The condition's first true answer, or its last one when time is up: not seeing an effect is no error.

    A server that is away, because another nemesis is at work, has not answered yet.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = condition()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
        else:
            if found or time.monotonic() > deadline:
                return found
        time.sleep(_POLL_S)


def hold(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)


class Since:
    """What the fleet has logged since this was made."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = world.fleet.counts()

    def counts(self) -> Counter[str]:
        return self._world.fleet.counts() - self._before

    def any_of(self, *names: str, timeout_s: float = EFFECT_S) -> dict[str, int]:
        """How often these were logged, as soon as there is one of them."""

        def found() -> dict[str, int]:
            counts = self.counts()
            return {name: counts[name] for name in names if counts[name]}

        return await_true(found, timeout_s)


class Gained:
    """By how much metrics of members have grown since this was made, as far as these members still live."""

    def __init__(self, world: World, *metrics: tuple[str, dict[str, str]]) -> None:
        self._world = world
        self._metrics = metrics
        self._before = self._read()

    def total(self) -> int:
        now = self._read()
        return int(sum(max(0.0, value - self._before.get(key, 0.0)) for key, value in now.items()))

    def _read(self) -> dict[tuple[str, str], float]:
        return {
            (member, f"{name}{labels}"): value
            for name, labels in self._metrics
            for member, value in self._world.fleet.metric(name, **labels).items()
        }


def duplicates(world: World) -> Gained:
    """Results that were there already: found out before the handler ran, or by the commit."""
    return Gained(
        world,
        ("fanfold_results_total", {"outcome": "duplicate"}),
        ("fanfold_deliveries_skipped_total", {"why": "duplicate"}),
    )
