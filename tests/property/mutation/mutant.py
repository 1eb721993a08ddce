"""A fault put into a procedure by replacing a piece of its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fanfold_sql.migrate import Script


class MutantRotten(Exception):
    """A mutant's text is not in its procedure any more, or not only once: it would test something else, or nothing."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Args:
        name: what the procedure does wrong.
        procedure: where.
        edits: (text, instead) in order; each text occurs exactly once.
        scenario: the interleavings that must find it.
        machine: whether the state machine must find it too. It makes one call at a time, so it cannot see what goes
            wrong only when calls cross.
    """

    name: str
    procedure: str
    edits: tuple[tuple[str, str], ...]
    scenario: str
    machine: bool = False

    def apply(self, scripts: Sequence[Script]) -> list[Script]:
        """All scripts, the procedure's with the fault.

        Raises:
            MutantRotten: change the mutant along with the procedure.
        """
        if self.procedure not in {script.name for script in scripts if script.kind == "procedure"}:
            raise MutantRotten(f"{self.name}: there is no procedure {self.procedure}")
        return [
            replace(script, text=self._edited(script.text))
            if (script.kind, script.name) == ("procedure", self.procedure)
            else script
            for script in scripts
        ]

    def _edited(self, text: str) -> str:
        for old, new in self.edits:
            found = text.count(old)
            if found != 1:
                raise MutantRotten(f"{self.name}: found {found} times in {self.procedure}.sql instead of once: {old!r}")
            text = text.replace(old, new)
        return text
