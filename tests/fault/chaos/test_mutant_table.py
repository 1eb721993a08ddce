"""The mutants' texts must be where they are to be, or what `python -m tests.fault.chaos.mutants` shows is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.chaos.mutant import Mutant, MutantRotten
from tests.fault.chaos.mutant_table import MUTANTS
from tests.fault.chaos.nemeses import ALL


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_product_and_its_nemeses_exist(mutant: Mutant) -> None:
    mutant.check()
    assert set(mutant.nemeses) <= ALL.keys()


def test_a_mutant_is_applied_to_a_copy(tmp_path: Path) -> None:
    mutant = Mutant("m", (("sql/fanfold_sql/store.py", "class Store:", "class Shop:"),), ())
    mutated = mutant.apply(tmp_path / "copy")
    assert "class Shop:" in (mutated.packages / "fanfold_sql/store.py").read_text()
    assert mutated.procedures == ()
    mutant.check()


def test_a_mutated_procedure_is_to_be_put_into_the_database(tmp_path: Path) -> None:
    edit = ("sql/fanfold_sql/procedures/ack_outbox.sql", "create or replace", "create  or replace")
    mutated = Mutant("m", (edit,), ()).apply(tmp_path / "copy")
    assert [text.count("create  or replace") for text in mutated.procedures] == [1]


def test_a_mutant_whose_text_is_gone_is_rotten() -> None:
    with pytest.raises(MutantRotten, match="found 0 times"):
        Mutant("m", (("sql/fanfold_sql/store.py", "no such text", ""),), ()).check()
