"""Faults put into the procedures are found. All of them: mutants.py here."""

from __future__ import annotations

import pytest

from fanfold_sql.migrate import scripts
from tests.property.interleave.scenarios import scenarios
from tests.property.mutants import by_interleavings, by_machine
from tests.property.mutation.mutant import Mutant, MutantRotten
from tests.property.mutation.table import MUTANTS
from tests.support.database import Server

_MACHINE_S = 20.0


def _named(name: str) -> Mutant:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    return mutant


@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=mutant.name) for mutant in MUTANTS])
def test_every_mutant_changes_its_procedure_and_names_a_scenario(mutant: Mutant) -> None:
    ours, changed = scripts(), mutant.apply(scripts())
    assert [new.name for old, new in zip(ours, changed, strict=True) if old != new] == [mutant.procedure]
    assert mutant.scenario in {scenario.name for scenario in scenarios()}


@pytest.mark.parametrize("text", ["no such text", "thread_id"])
def test_a_text_that_does_not_occur_exactly_once_is_refused(text: str) -> None:
    mutant = Mutant("rotten", "read_thread", ((text, ""),), "")
    with pytest.raises(MutantRotten, match="instead of once"):
        mutant.apply(scripts())


@pytest.mark.parametrize(
    "name", ["a plain SELECT for the fence", "unsorted thread locks", "duplicates skip the progress"]
)
def test_the_interleavings_find(postgres_server: Server, migrated_template: str, name: str) -> None:
    mutant = _named(name)
    verdict = by_interleavings(postgres_server, migrated_template, mutant.apply(scripts()), [mutant.scenario])
    assert verdict.found is not None


def test_the_machine_finds(postgres_server: Server, migrated_template: str) -> None:
    changed = _named("offset + 1").apply(scripts())
    assert by_machine(postgres_server, migrated_template, changed, _MACHINE_S, seed=1).found is not None
