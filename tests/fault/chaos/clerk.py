"""What a producer does with Postgres, on a thread of its own: a database that is away must not keep it from Kafka."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

Job = Callable[["psycopg.Connection[Any]"], "float | None"]
"""Given a connection; returns after how many seconds it is to be called again, None when it is done. A job that breaks
off with an error of Postgres is called again: what it does must be harmless to repeat."""

_AGAIN_S = 0.5
_IDLE_S = 0.05
_CONNECT_S = 5


class Clerk:
    """Does jobs one after another on one connection, made anew whenever it breaks."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._jobs: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="clerk", daemon=True)
        self._thread.start()

    def submit(self, job: Job, delay_s: float = 0.0) -> None:
        with self._lock:
            heapq.heappush(self._jobs, (time.monotonic() + delay_s, next(self._numbers), job))

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._jobs)

    def close(self, timeout_s: float) -> None:
        """What is not done by then stays undone, as with a producer that dies."""
        self._over.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._over.is_set():
            job = self._take()
            if job is None:
                self._over.wait(_IDLE_S)
                continue
            again: float | None
            try:
                if connection is None or connection.closed:
                    # The pooler may be one that takes no prepared statements.
                    connection = psycopg.connect(
                        self._dsn, autocommit=True, prepare_threshold=None, connect_timeout=_CONNECT_S
                    )
                again = job(connection)
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                again = _AGAIN_S
            if again is not None:
                self.submit(job, again)

    def _take(self) -> Job | None:
        with self._lock:
            if self._jobs and self._jobs[0][0] <= time.monotonic():
                return heapq.heappop(self._jobs)[2]
        return None
