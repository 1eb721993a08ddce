"""The machine for a while, always the same steps; `python -m tests.property.machine` goes on for as long as asked."""

from __future__ import annotations

from importlib import resources

import psycopg
import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.property.machine import Count, episodes, machine_settings, run
from tests.property.model.checked import Database as Checked
from tests.support.database import Database

EPISODES = 120
MUTANT_SECONDS = 60.0

# A procedure, what stands in it, what is put there instead.
MUTANTS = {
    "a fence that asks for no owner": (
        "commit_results",
        "h.epoch = i.epoch and (h.owner = p_owner) is not true",
        "false",
    ),
    "a repeated result that overwrites the first": (
        "settle_results",
        "when g.run > e.run then",
        "when g.run >= e.run then",
    ),
}


@pytest.mark.timeout(600)
def test_random_episodes_end_as_the_oracle_says_with_every_guarantee_kept(database: Database) -> None:
    checked = Checked(database.dsn)
    try:
        run_state_machine_as_test(
            episodes(checked, Count()), settings=machine_settings(shrink=True, episodes=EPISODES, derandomize=True)
        )
    finally:
        checked.close()


@pytest.mark.timeout(60 + MUTANT_SECONDS)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutated_procedure_is_found(name: str, database: Database) -> None:
    procedure, right, wrong = MUTANTS[name]
    text = resources.files("fanfold_sql").joinpath(f"procedures/{procedure}.sql").read_text(encoding="utf-8")
    assert right in text
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(text.replace(right, wrong).encode())
    assert run(database.dsn, MUTANT_SECONDS, seed=1).violation is not None
