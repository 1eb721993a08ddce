"""What was done to the world and what came of it: one JSON object a line, written as it happens."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Phase = Literal["start", "end", "effect", "violation"]


@dataclass(frozen=True, slots=True)
class Entry:
    """`at` is seconds since the epoch by this machine's clock.

    An `effect` was measured; a nemesis that cannot show any writes none. A `violation` is a broken guarantee that a
    nemesis saw on its own work.
    """

    at: float
    nemesis: str
    phase: Phase
    target: str
    detail: dict[str, Any]


class Journal:
    """Safe to write from any OS thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def write(self, nemesis: str, phase: Phase, target: str, **detail: Any) -> None:
        entry = Entry(time.time(), nemesis, phase, target, detail)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), default=str) + "\n")
            self._entries.append(entry)

    def entries(self, nemesis: str | None = None, phase: Phase | None = None) -> list[Entry]:
        """Those of a nemesis and a phase, where they are named, oldest first."""
        with self._lock:
            found = list(self._entries)
        return [e for e in found if nemesis in (None, e.nemesis) and phase in (None, e.phase)]
