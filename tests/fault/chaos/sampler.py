"""A look at the commits ten times a second: whether they flow, and for how long a fault
kept them from it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import psycopg

_EVERY_S = 0.1
_CONNECT_S = 2
_QUERY = "select coalesce(sum(commit_seq), 0)::bigint, count(*)::bigint from fanfold.partition_progress"


class Sampler:
    """`owner_dsn` is asked for each connection: after a failover it is another one."""

    def __init__(self, owner_dsn: Callable[[], str]) -> None:
        self._owner_dsn = owner_dsn
        self._flowed_at: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def await_commit(self, timeout_s: float) -> bool:
        """Wait until there is a commit from now on; False if there was none in time."""
        began = time.time()
        deadline = time.monotonic() + timeout_s
        while not (self._flowed_at and self._flowed_at[-1] >= began):
            if time.monotonic() > deadline:
                return False
            time.sleep(_EVERY_S / 2)
        return True

    def silences_s(self, faults: Iterable[tuple[float, float]]) -> list[float]:
        """Per fault, by start and end: the longest time without a commit, up to the first one after its end.

        So it includes what the fault itself took. A fault after which there was no commit at all is left out.
        """
        flowed = list(self._flowed_at)
        found = []
        for start, end in faults:
            after = next((at for at in flowed if at >= end), None)
            if after is not None:
                points = [start, *(at for at in flowed if start < at < end), after]
                found.append(max(later - earlier for earlier, later in pairwise(points)))
        return found

    def _work(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        last = -1
        while not self._over.wait(_EVERY_S):
            try:
                if connection is None:
                    connection = psycopg.connect(self._owner_dsn(), autocommit=True, connect_timeout=_CONNECT_S)
                row = connection.execute(_QUERY).fetchone()
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                connection = None
                last = -1
                continue
            assert row is not None
            if last >= 0 and row[0] != last:
                self._flowed_at.append(time.time())
            last = row[0]
        if connection is not None:
            connection.close()


def p99(values: list[float]) -> float:
    """0 without any."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else 0.0
