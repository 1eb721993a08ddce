"""What handlers did, a line of JSON for each beginning and end, in a file per process that a kill -9
leaves readable."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PREFIX = "handlers-"


@dataclass(frozen=True, slots=True)
class Note:
    """`what`: begin, end, fold (with its fan-out and digest) or bad (an input that no fold may be given)."""

    at: float
    pid: int
    what: str
    task_id: str
    run: int
    attempt: int
    detail: dict[str, Any]


class Notes:
    """Of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pid = os.getpid()
        # One write of a short line to a file opened for appending is never torn, and outlives the process.
        self._file = os.open(folder / f"{_PREFIX}{self._pid}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, what: str, task_id: str, run: int, attempt: int, **detail: Any) -> None:
        line = json.dumps([time.time(), self._pid, what, task_id, run, attempt, detail])
        os.write(self._file, f"{line}\n".encode())


def read_notes(folder: Path) -> Iterator[Note]:
    """Of all processes; a last line that is not whole is left out."""
    for path in sorted(folder.glob(f"{_PREFIX}*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield Note(*json.loads(line))
