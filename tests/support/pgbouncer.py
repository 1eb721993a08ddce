"""A real PgBouncer in front of a database, from the operating system's package."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from fanfold_consumer.devstack import free_port, temporary_folder
from fanfold_consumer.devstack.process import Command, ServerProcess

needs_pgbouncer = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")

_HOST = "127.0.0.1"
_ADMIN = "pgbouncer_admin"
_START_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 5.0


class PgBouncer:
    """One PgBouncer, for all databases of a server and the user of the DSN that it is made with.

    Attributes:
        settings: lines of its `[pgbouncer]` section; a change counts from the next start or `RELOAD`.
    """

    def __init__(self, dsn: str, settings: Mapping[str, object]) -> None:
        self._to = conninfo_to_dict(dsn)
        self._dsn = dsn
        self._port = str(free_port())
        self._folder = temporary_folder("pgbouncer", enterable=True)
        self._process: ServerProcess | None = None
        self.settings: dict[str, object] = {
            "listen_addr": _HOST,
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self._folder / "users.txt",
            "admin_users": _ADMIN,
            "stats_users": self._to["user"],
            "pool_mode": "transaction",
            **settings,
        }

    def through(self, dsn: str) -> str:
        """The same database as the same user, through it."""
        return make_conninfo(dsn, host=_HOST, port=self._port)

    def start(self) -> None:
        """Return when it leads to the database."""
        self.write()
        # Like PostgreSQL, it refuses to run as root.
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process = ServerProcess(
            Command(
                name="PgBouncer",
                argv=["pgbouncer", str(self._folder / "pgbouncer.ini")],
                log_path=self._folder / "pgbouncer.log",
                uid=None if account is None else account.pw_uid,
                gid=None if account is None else account.pw_gid,
            )
        )
        self._process.wait_ready(self._answers, timeout_s=_START_TIMEOUT_S)

    def write(self) -> None:
        """Write its settings to where it looks for them."""
        users = {str(self._to["user"]): self._to.get("password", ""), _ADMIN: ""}
        (self._folder / "users.txt").write_text("".join(f'"{name}" "{word}"\n' for name, word in users.items()))
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self._to['host']} port={self._to['port']}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in self.settings.items())
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(timeout_s=_STOP_TIMEOUT_S)

    def command(self, text: str) -> list[dict[str, Any]]:
        """Rows of an answer of its console: `SHOW POOLS`, `RELOAD`, `PAUSE`, `RECONNECT`."""
        console = make_conninfo(self._dsn, host=_HOST, port=self._port, dbname="pgbouncer", user=_ADMIN)
        with psycopg.connect(console, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.through(self._dsn), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def pgbouncer_for(dsn: str, **settings: object) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(dsn, settings)
    try:
        bouncer.start()
        yield bouncer
    finally:
        bouncer.stop()


@contextmanager
def running_pgbouncer(dsn: str, **settings: object) -> Iterator[str]:
    """A DSN that leads to the same database, as the same user, through a PgBouncer of one's own.

    Settings are lines of its `[pgbouncer]` section. The user may look at its console.
    """
    with pgbouncer_for(dsn, **settings) as bouncer:
        yield bouncer.through(dsn)
