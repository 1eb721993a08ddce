"""Sessions stepped through the procedures end as if one had followed the other. All of them: interleavings.py here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fanfold_sql.migrate import scripts
from tests.property.interleave.explore import schedules
from tests.property.interleave.judge import run
from tests.property.interleave.laboratory import Laboratory, open_laboratory
from tests.property.interleave.scenario import Scenario
from tests.property.interleave.scenarios import exactly, scenarios
from tests.support.database import Server

# Of three sessions only some, because each takes a second or two.
_OF_THREE = (
    "one task delivered twice, and the fan-out's other one",
    "batches over two threads in opposite order, behind one that holds a thread",
    "a commit of two partitions and a renewal of both in the opposite order, behind one that holds a partition",
    "the last two results against a cancel",
    "a commit against two claims",
)


@pytest.fixture(scope="module")
def laboratory(postgres_server: Server, migrated_template: str) -> Iterator[Laboratory]:
    with open_laboratory(postgres_server, migrated_template, scripts()) as laboratory:
        yield laboratory


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, id=scenario.name)
        for scenario in scenarios()
        if len(scenario.sessions) == 2 or scenario.name in _OF_THREE
    ],
)
def test_in_every_order(laboratory: Laboratory, scenario: Scenario) -> None:
    ran = run(laboratory, scenario, prune=True)
    assert not ran.violations, "\n".join(map(str, ran.violations[:3]))
    assert ran.schedules > 1


@pytest.mark.parametrize(
    "name",
    [
        "the last two results of a fan-out, from two partitions",
        "a record parked by a zombie and by the new holder",
        "a re-run of a quorum against a late result",
        "prune against a re-run",
    ],
)
def test_orders_that_are_left_out_end_like_others_that_are_not(laboratory: Laboratory, name: str) -> None:
    every, some = (list(schedules(laboratory, exactly(name), prune=prune)) for prune in (False, True))
    assert len(some) < len(every)
    assert {schedule.end.key for schedule in some} == {schedule.end.key for schedule in every}
    assert len({schedule.steps for schedule in every}) == len(every), "an order was run twice"


def test_a_session_that_waits_for_another_is_seen_to_wait(laboratory: Laboratory) -> None:
    scenario = exactly("two siblings of the base a thread stands at")
    waited = [str(schedule) for schedule in schedules(laboratory, scenario) if "(waits)" in str(schedule)]
    # Whoever comes second stands at the lock of the thread until the first one's commit.
    assert waited
    assert all(schedule.index("(waits)") < schedule.index(":commit →") for schedule in waited)


def test_names_of_scenarios_are_unique() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(set(names)) == len(names)
