"""What became of one record, from what the tables say about it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fanfold_consumer.replay.log_reader import LogRecord
from fanfold_schemas import Task, pack_headers
from fanfold_sql import AuditedTask

Fate = Literal[
    "done",
    "failed",
    "dead",
    "refused",
    "waiting",
    "pruned",
    "open",
    "conflicting",
    "undecodable",
    "altered",
    "unexplained",
]
"""`open`: nothing accounts for it yet, and it may still wait somewhere; the others as in docs/audit.md."""


@dataclass(frozen=True, slots=True)
class Read:
    """A record of the log. `task` None: it could not be decoded; `problem` says why. Without its arg: only the hash."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    task: Task | None
    arg_hash: int
    problem: str = ""


def judge(
    record: LogRecord, read: Read, verdict: str | None, stored: AuditedTask, *, passed: bool, pruned: datetime | None
) -> Fate:
    """What became of a record.

    Args:
        verdict: of `check_tasks`: what would become of it now.
        passed: whether every group is done with it.
        pruned: dead letters before this moment may be gone, by intention.
    """
    letter = None if stored.letter is None else stored.letter == _sha256s(record)
    if letter is False:
        return "altered"
    if read.task is None:
        return "dead" if letter else "undecodable" if passed else "waiting"
    known = known_fate(read, verdict, stored, pruned=pruned)
    if known is not None:
        return known
    if letter:
        return "dead"
    if not passed:
        return "waiting"
    return "conflicting" if verdict == "conflict" or stored.holder is not None else "open"


def known_fate(read: Read, verdict: str | None, stored: AuditedTask, *, pruned: datetime | None) -> Fate | None:
    """What a task came to, as far as the tables alone say it; None: nothing yet, or it contradicts them."""
    assert read.task is not None
    if stored.matches and stored.run is not None and stored.run >= read.task.run:
        if stored.status == "done":
            return "done"
        if stored.status == "failed":
            gone = pruned is not None and stored.committed_at is not None and stored.committed_at < pruned
            return "failed" if stored.explained or gone else "unexplained"
        # It is pending: its rerun is on its way, or will not be taken.
    return "refused" if verdict in ("stale", "closed") else None


def _sha256s(record: LogRecord) -> tuple[bytes | None, ...]:
    parts = (record.key, record.value, pack_headers(record.headers))
    return tuple(None if part is None else hashlib.sha256(part).digest() for part in parts)
