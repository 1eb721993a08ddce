"""Where in the write-ahead log an acknowledgement of Postgres stands, so that it can be told what a failover took back.

A standby that follows asynchronously may be promoted without the last commits. Whoever committed them was told that
they are safe, and they are gone: no client can know it. A mark is read after the commit, on the timeline on which it
was made, so everything up to the mark includes the commit. It is kept if, and only if, no timeline branched off before
the mark; the history file of the present timeline says where each one did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

import psycopg

Answer = TypeVar("Answer")
Mark = tuple[str, int]
"""Timeline in hex, bytes of log."""

_MARK: LiteralString = """
    select pg_catalog.left(pg_catalog.pg_walfile_name(l.lsn), 8), (l.lsn - '0/0'::pg_lsn)::bigint
    from (select pg_catalog.pg_current_wal_insert_lsn() as lsn) l"""


def marked(
    connection: psycopg.Connection[Any], work: Callable[[psycopg.Connection[Any]], Answer]
) -> tuple[Answer, Mark | None]:
    """Do `work` in a transaction. The mark is None if the server changed between the commit and the look at its log."""
    with connection.transaction():
        timeline = _read(connection)[0]
        answer = work(connection)
    mark = _read(connection)
    return answer, mark if mark[0] == timeline else None


@dataclass(frozen=True, slots=True)
class History:
    """`branched`: where each earlier timeline was left for the next one."""

    timeline: str
    branched: dict[str, int]

    def kept(self, mark: Mark | list[Any] | None) -> bool:
        """Whether what was committed before the mark is in this database for certain."""
        if mark is None:
            return False
        timeline, lsn = mark
        return bool(timeline == self.timeline or lsn <= self.branched.get(timeline, -1))


def read_history(connection: psycopg.Connection[Any]) -> History:
    """As a superuser, of the present primary."""
    timeline = _read(connection)[0]
    if int(timeline, 16) == 1:
        return History(timeline, {})
    row = connection.execute("select pg_read_file('pg_wal/' || %s || '.history')", (timeline,)).fetchone()
    assert row is not None
    branched = {}
    for line in row[0].splitlines():
        parts = line.split()
        if parts and not parts[0].startswith("#"):
            high, low = parts[1].split("/")
            branched[f"{int(parts[0]):08X}"] = (int(high, 16) << 32) + int(low, 16)
    assert branched, f"the history of timeline {timeline} says nothing: {row[0]!r}"
    return History(timeline, branched)


def _read(connection: psycopg.Connection[Any]) -> Mark:
    row = connection.execute(_MARK).fetchone()
    assert row is not None
    return row[0], row[1]
