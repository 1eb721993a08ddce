"""The specification against the procedures, by behaviours kept in the tree; and TLC on it, where TLC is here already.

All of it: `python -m tests.property.spec_check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.spec_check import TRACES, WANTED, replaying
from tests.property.spec_replay import Diverged, Replay
from tests.property.spec_traces import Step, labels, load, parse
from tests.property.tlc import cached_checker, check
from tests.support.database import Server


@pytest.fixture
def replay(postgres_server: Server) -> Iterator[Replay]:
    with replaying(postgres_server) as replay:
        yield replay


@pytest.fixture
def jar() -> Path:
    found = cached_checker()
    if found is None:
        pytest.skip("TLC is not cached here; `python -m tests.property.spec_check` fetches it")
    return found


def test_the_database_does_what_the_specification_does_step_by_step(replay: Replay) -> None:
    for trace in load(TRACES):
        replay.run(trace)


def test_the_behaviours_in_the_tree_contain_every_action_and_every_answer() -> None:
    assert frozenset[str]().union(*map(labels, load(TRACES))) >= WANTED


def test_a_database_that_does_something_else_is_noticed(replay: Replay) -> None:
    trace = load(TRACES)[0]
    last = trace[-1]
    elsewhere = {**last.after, "clock": {"a": 99}}
    with pytest.raises(Diverged, match="the database says"):
        replay.run([*trace[:-1], Step(last.act, elsewhere)])


def test_an_answer_that_differs_is_noticed(replay: Replay) -> None:
    trace = next(t for t in load(TRACES) if "deliver: applied" in labels(t))
    changed = [
        Step({**step.act, "verdict": "stale"}, step.after) if step.act.get("verdict") == "applied" else step
        for step in trace
    ]
    with pytest.raises(Diverged, match="check_tasks"):
        replay.run(changed)


def test_every_state_of_a_small_world_keeps_the_guarantees(jar: Path) -> None:
    checked = check(jar, "partitions", alike=True)
    assert checked.violated is None
    assert checked.states > 5_000


def test_a_specification_without_a_guard_is_found_out(jar: Path) -> None:
    assert check(jar, "handover", removed="island", alike=True).violated == "NothingSkipped"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[name |-> "claim", m |-> m1]', {"name": "claim", "m": "m1"}),
        ("( 0 :> {} @@ 1 :> {2, 3} )", {0: [], 1: [2, 3]}),
        ('<<<<"p1", 1>>, TRUE>>', [["p1", 1], True]),
    ],
)
def test_values_are_read_as_tlc_prints_them(text: str, value: object) -> None:
    assert parse(text) == value
