"""A primary and its streaming standby: crashes, lag, slow flushes, and failovers that really lose commits."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from fanfold_consumer.devstack import EmbeddedPostgres
from fanfold_sql.migrate import migrate
from tests.support.own_postgres import own_server, standby_of
from tests.support.wait import eventually

DATABASE = "fanfold"
WORKER = "chaos_worker"
OWNER = "postgres"
_LOSE_AT_LEAST_S = 0.5
_LOSE_WITHIN_S = 8.0
_POLL_S = 0.05
_COMMIT_DELAY_MS_MAX = 100.0

_SETTINGS = {
    "fsync": "on",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "max_wal_senders": "8",
    # So that a standby that stopped following for a while need not be built anew.
    "wal_keep_size": "1GB",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "autovacuum_naptime": "20s",
}
_COMMITS = "select coalesce(sum(commit_seq), 0) from fanfold.partition_progress"


@dataclass(frozen=True, slots=True)
class Failover:
    """What a failover did. `lost_commits`: of the partitions' progress, acknowledged and gone."""

    was: str
    now: str
    lost_commits: int


class PostgresPair:
    """Its methods exclude each other, so that nemeses may use it at once."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        """`moved` is told the port of the primary, at first and after each failover."""
        self._moved = moved
        self._stack = ExitStack()
        self._lock = threading.RLock()
        self._primary: EmbeddedPostgres | None = None
        self._standby: EmbeddedPostgres | None = None

    @property
    def primary(self) -> EmbeddedPostgres:
        assert self._primary is not None, "not started"
        return self._primary

    @property
    def standby(self) -> EmbeddedPostgres:
        assert self._standby is not None, "not started"
        return self._standby

    @property
    def owner_dsn(self) -> str:
        return self.primary.dsn_for(DATABASE, user=OWNER)

    def start(self) -> None:
        self._primary = self._stack.enter_context(own_server(_SETTINGS))
        with psycopg.connect(self.primary.dsn, autocommit=True) as connection:
            connection.execute(f"create database {DATABASE}".encode())
        migrate(self.owner_dsn)
        with psycopg.connect(self.owner_dsn, autocommit=True) as connection:
            connection.execute(f"create role {WORKER} login in role fanfold_worker".encode())
        self._standby = self._build_standby()
        self._moved(self.primary.port)

    def stop(self) -> None:
        self._stack.close()

    def rows(self, query: str, parameters: Sequence[Any] = (), *, standby: bool = False) -> list[tuple[Any, ...]]:
        """As a superuser."""
        server = self.standby if standby else self.primary
        dsn = server.dsn_for(DATABASE, user=OWNER)
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def timed_ms(self, statement: str) -> float:
        """How long a statement takes with its commit, connecting left out."""
        with psycopg.connect(self.owner_dsn, autocommit=True, connect_timeout=5) as connection:
            began = time.monotonic()
            connection.execute(statement.encode())
            return (time.monotonic() - began) * 1000

    def timeline(self) -> str:
        found: str = self.rows("select fanfold.timeline()")[0][0]
        return found

    def lag_bytes(self) -> int:
        """What the standby has received and not replayed."""
        query = "select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
        return int(self.rows(query, standby=True)[0][0] or 0)

    def await_lag_bytes(self) -> int:
        """Wait until there is some, and return how much."""
        return eventually(self.lag_bytes, what="something received and not replayed")

    def await_caught_up(self) -> None:
        """Wait until the standby shows what the primary has committed by now."""
        (lsn,) = self.rows("select pg_current_wal_lsn()::text")[0]
        query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        eventually(lambda: self.rows(query, (lsn,), standby=True) == [(True,)], what="a standby that has caught up")

    def fail_over(self, *, lose: bool = True, hold_s: float = _LOSE_AT_LEAST_S) -> Failover:
        """Promote the standby and build a new one; the old primary is gone for good.

        With `lose`, the standby first stops following until the primary has acknowledged commits for `hold_s` that
        the standby will never have.
        """
        with self._lock:
            was = self.timeline()
            if lose:
                self.stop_following()
                before, began = self._commits(), time.monotonic()
                while (passed_s := time.monotonic() - began) < hold_s or (
                    passed_s < _LOSE_WITHIN_S and self._commits() == before
                ):
                    time.sleep(_POLL_S)
            acknowledged = self._commits()
            old, self._primary = self.primary, self.standby
            old.kill()
            self.rows("select pg_promote()")
            lost = acknowledged - self._commits()
            self._moved(self.primary.port)
            now = self.timeline()
            # Backends of it that have not noticed yet may still write.
            shutil.rmtree(old.data_dir, ignore_errors=True)
            self._standby = self._build_standby()
            return Failover(was, now, lost)

    def stop_following(self) -> None:
        """The standby receives nothing from here on. The next failover is the end of that."""
        self._set(self.standby, "primary_conninfo", "")
        query = "select count(*) from pg_stat_wal_receiver"
        eventually(lambda: self.rows(query, standby=True) == [(0,)], what="a standby that follows no longer")

    @contextmanager
    def replay_paused(self) -> Iterator[None]:
        """The standby receives and shows nothing new. A failover meanwhile ends the pause."""
        with self._lock:
            self.rows("select pg_wal_replay_pause()", standby=True)
        try:
            yield
        finally:
            with self._lock:
                self.rows("select pg_wal_replay_resume()", standby=True)

    def kill_backend(self) -> int | None:
        """SIGKILL one backend that serves a worker, which makes the server end all of them; None if there is none."""
        with self._lock:
            busy_first = "select pid from pg_stat_activity where usename = %s order by state = 'active' desc limit 1"
            found = self.rows(busy_first, (WORKER,))
            if not found:
                return None
            pid: int = found[0][0]
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return None
            self._await_primary()
            return pid

    def stop_immediate_and_start(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, crash recovery at the start."""
        with self._lock:
            pid = int((self.primary.data_dir / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGQUIT)
            self.primary.stop()
            self.primary.start()

    @contextmanager
    def slow_fsync(self, ms: float) -> Iterator[None]:
        """Each flush of a commit takes so much longer, up to 100 ms, with the commit's locks held."""
        with self._lock:
            self._set(self.primary, "commit_delay", f"{min(ms, _COMMIT_DELAY_MS_MAX) * 1000:.0f}")
            self._set(self.primary, "commit_siblings", "0")
        try:
            yield
        finally:
            with self._lock:
                # The primary may be another one by now; the standby was perhaps built from settings of meanwhile.
                self._await_primary()
                for server in (self.primary, self.standby):
                    self._set(server, "commit_delay", "0")

    def _commits(self) -> int:
        return int(self.rows(_COMMITS)[0][0])

    def _await_primary(self) -> None:
        def answers() -> bool:
            try:
                return self.rows("select 1") == [(1,)]
            except psycopg.OperationalError:
                return False

        eventually(answers, 30, what="a primary that answers")

    def _build_standby(self) -> EmbeddedPostgres:
        return self._stack.enter_context(standby_of(self.primary, _SETTINGS))

    @staticmethod
    def _set(server: EmbeddedPostgres, name: str, value: str) -> None:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(f"alter system set {name} = '{value}'".encode())
            connection.execute("select pg_reload_conf()")
