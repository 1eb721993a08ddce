"""What became of one result in a commit."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The answer of `commit_results` for one result. Only `APPLIED` changed anything."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """The same task has a result of this run or a higher one already."""
    STALE = "stale"
    """The thread moved past the base this was derived from, or a fold came before its fan-out was complete."""
    CLOSED = "closed"
    """The fan-out has what it needs (a quorum) and takes no more."""
