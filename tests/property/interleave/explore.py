"""Every order of a scenario's steps, each once: depth first, from the same beginning every time.

Two neighbouring steps of different sessions that do not touch each other lead to the same in either order. Sleep sets
(Godefroid, 1996) leave out the second of two such orders: a session whose step was tried at some point sleeps in what
comes after the steps of others there, until one of them does something that its step could notice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.property.interleave.driver import Driver
from tests.property.interleave.instrument import Footprint
from tests.property.interleave.laboratory import Laboratory
from tests.property.interleave.scenario import End, Scenario


@dataclass(slots=True)
class _Choice:
    """A point where several sessions can go on. `asleep`: those that need not, with what they would do."""

    enabled: list[int]
    asleep: dict[int, Footprint]
    chosen: int = -1
    happened: Footprint = field(default_factory=Footprint)

    def choose(self) -> bool:
        """Take the next session. False: all have been tried, or sleep."""
        awake = [number for number in self.enabled if number not in self.asleep]
        self.chosen = awake[0] if awake else -1
        return bool(awake)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One order that was run: the steps in it, as `A:commit_results:95`, and how it ended."""

    steps: tuple[str, ...]
    end: End

    def __str__(self) -> str:
        return " → ".join(self.steps)


class NotRepeatable(Exception):
    """The same steps from the same beginning led elsewhere."""


# Several that wait for one transaction are woken at once, and which of them is first is chance. If that matters to what
# comes next, an order is tried again until it comes about.
_STRAYED_MAX = 50


def schedules(laboratory: Laboratory, scenario: Scenario, *, prune: bool = True) -> Iterator[Schedule]:
    """Run the orders of a scenario one by one. `prune=False`: also those that only swap steps which do not meet."""
    driver = laboratory.driver
    path: list[_Choice] = []
    strayed = 0
    while True:
        laboratory.prepare(scenario)
        driver.play(scenario.sessions)
        try:
            steps = _run(driver, path, prune)
        except NotRepeatable:
            strayed += 1
            if strayed > _STRAYED_MAX:
                raise
            continue
        strayed = 0
        if steps is not None:
            yield Schedule(steps, laboratory.end([actor.answers for actor in driver.actors]))
        while path:
            last = path[-1]
            last.asleep[last.chosen] = last.happened
            if last.choose():
                break
            path.pop()
        else:
            return


def _run(driver: Driver, path: list[_Choice], prune: bool) -> tuple[str, ...] | None:
    """Go along the path and beyond, to the end. None: what came next was all asleep."""
    steps: list[str] = []
    for depth in itertools.count():
        enabled = driver.enabled()
        if not enabled:
            return tuple(steps)
        if depth == len(path):
            choice = _Choice(enabled, _still_asleep(path[-1]) if path and prune else {})
            if not choice.choose():
                driver.abort()
                return None
            path.append(choice)
        choice = path[depth]
        if enabled != choice.enabled:
            driver.abort()
            raise NotRepeatable(f"after {steps}: {enabled} can go on, before it was {choice.enabled}")
        step = f"{'ABC'[choice.chosen]}:{driver.actors[choice.chosen].next_step}"
        choice.happened = driver.step(choice.chosen)
        steps.append(f"{step} (waits)" if driver.actors[choice.chosen].moving else step)
    raise AssertionError("unreachable: the loop ends when nobody can go on")


def _still_asleep(choice: _Choice) -> dict[int, Footprint]:
    return {
        number: footprint for number, footprint in choice.asleep.items() if footprint.commutes_with(choice.happened)
    }
