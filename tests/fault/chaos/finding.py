"""What the checker has to object to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sort = Literal["lost", "duplicate", "stuck", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A guarantee that does not hold. `count`: how many tasks, effects or fan-outs are concerned."""

    guarantee: int
    sort: Sort
    what: str
    count: int = 1

    def __str__(self) -> str:
        return f"guarantee {self.guarantee}: {self.sort}: {self.what}"
