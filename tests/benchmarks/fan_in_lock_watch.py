"""How much of its clients' time a server has them wait for an advisory lock, by looking again and again."""

from __future__ import annotations

import threading

import psycopg

_LOOK_S = 0.001
_LOOK = """
    select count(*) filter (where wait_event_type = 'Lock' and wait_event = 'advisory'), count(*)
    from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
        and state in ('active', 'idle in transaction')"""


class LockWatch:
    """Looks while it is entered. Not to be timed meanwhile: looking takes part of the machine."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._waiting = 0
        self._busy = 0

    @property
    def share(self) -> float:
        """Of the time in which a client had a statement or a transaction on its way."""
        return self._waiting / self._busy if self._busy else 0.0

    def __enter__(self) -> LockWatch:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lock watch", daemon=True)
        self._connection = psycopg.connect(self._dsn, autocommit=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._connection.close()

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_S):
            for waiting, busy in self._connection.execute(_LOOK).fetchall():
                self._waiting += waiting
                self._busy += busy
