"""A producer's log: what it is about to do before it does it, and what it was told after. Every line is on the disk
before anything follows from it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PREFIX = "producer-"


@dataclass(frozen=True, slots=True)
class Line:
    """`what`: intent, acked, rolled_back, cancel (with its answer), garbage, forged."""

    at: float
    what: str
    name: str
    detail: dict[str, Any]


class Ledger:
    """Safe to write from any OS thread."""

    def __init__(self, folder: Path, number: int) -> None:
        self._file = os.open(folder / f"{_PREFIX}{number}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._lock = threading.Lock()

    def write(self, what: str, name: str, **detail: Any) -> None:
        with self._lock:
            line = json.dumps([time.time(), what, name, detail])
            os.write(self._file, f"{line}\n".encode())
            os.fdatasync(self._file)


def read_ledgers(folder: Path) -> Iterator[Line]:
    for path in sorted(folder.glob(f"{_PREFIX}*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield Line(*json.loads(line))
