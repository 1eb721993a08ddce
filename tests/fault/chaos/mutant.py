"""The product with a fault in it: copied to a folder of its own, one piece of text replaced."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.support.tree import ROOT

PACKAGES = (
    "schemas/fanfold_schemas",
    "sql/fanfold_sql",
    "producer/fanfold_producer",
    "consumer/fanfold_consumer",
)


class MutantRotten(Exception):
    """A mutant's text is not in its file any more, or not only once: it would test something else, or nothing."""


@dataclass(frozen=True, slots=True)
class Mutated:
    """`packages`: to be imported before the real ones. `procedures`: to be put into the database."""

    packages: Path
    procedures: tuple[str, ...] = ()


Edit = tuple[str, str, str]
"""(file from the root of the tree, text, instead); the text occurs there exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        name: what the product does wrong.
        nemeses: let loose at once, again and again; under these it must show.
        seconds: for how long.
    """

    name: str
    edits: tuple[Edit, ...]
    nemeses: tuple[str, ...]
    seconds: float = 15.0

    def check(self) -> None:
        """Raise `MutantRotten` if a text is not where it is to be: change the mutant along with the product."""
        for path, old, _ in self.edits:
            found = (ROOT / path).read_text().count(old)
            if found != 1:
                raise MutantRotten(f"{self.name}: found {found} times in {path} instead of once: {old!r}")

    def apply(self, folder: Path) -> Mutated:
        """Copy the packages to `folder`, with the fault."""
        self.check()
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
        procedures: dict[Path, str] = {}
        for path, old, new in self.edits:
            target = folder.joinpath(*Path(path).parts[1:])
            text = target.read_text().replace(old, new)
            target.write_text(text)
            if target.suffix == ".sql":
                procedures[target] = text
        return Mutated(folder, tuple(procedures.values()))
