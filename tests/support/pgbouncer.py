"""A real PgBouncer in front of a database, from the operating system's package."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from fanfold_consumer.devstack import free_port, temporary_folder
from fanfold_consumer.devstack.process import Command, ServerProcess

needs_pgbouncer = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")

_START_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 5.0


@contextmanager
def running_pgbouncer(dsn: str, *, pool_mode: str = "transaction", **settings: object) -> Iterator[str]:
    """A DSN that leads to the same database, as the same user, through a PgBouncer of one's own.

    Settings are lines of its `[pgbouncer]` section. The user may look at its console.
    """
    to = conninfo_to_dict(dsn)
    folder = temporary_folder("pgbouncer", enterable=True)
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"{to["user"]}" "{to.get("password", "")}"\n')
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": free_port(),
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": users,
        "stats_users": to["user"],
        "pool_mode": pool_mode,
        **settings,
    }
    config.write_text(
        f"[databases]\n* = host={to['host']} port={to['port']}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in given.items())
    )
    # Like PostgreSQL, it refuses to run as root.
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    process = ServerProcess(
        Command(
            name="PgBouncer",
            argv=["pgbouncer", str(config)],
            log_path=folder / "pgbouncer.log",
            uid=None if account is None else account.pw_uid,
            gid=None if account is None else account.pw_gid,
        )
    )
    through = make_conninfo(dsn, host=str(given["listen_addr"]), port=str(given["listen_port"]))

    def answers() -> bool:
        try:
            psycopg.connect(through, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        process.wait_ready(answers, timeout_s=_START_TIMEOUT_S)
        yield through
    finally:
        process.stop(timeout_s=_STOP_TIMEOUT_S)
