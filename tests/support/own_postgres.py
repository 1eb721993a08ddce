"""PostgreSQL servers of a test's own: with settings that others could not live with, to be killed, with a standby."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fanfold_consumer.devstack import EmbeddedPostgres, temporary_folder
from tests.support.choose import chosen_postgres
from tests.support.postgres_builds import postgres_programs


@contextmanager
def own_server(settings: dict[str, str]) -> Iterator[EmbeddedPostgres]:
    if not chosen_postgres().kind.isdigit():
        pytest.skip("needs a PostgreSQL of this machine, to be started with settings of its own")
    folder = temporary_folder("test-postgres", enterable=True)
    version = postgres_programs(int(chosen_postgres().kind))
    with EmbeddedPostgres(folder / "data", version=version, settings=settings) as server:
        yield server


@contextmanager
def standby_of(primary: EmbeddedPostgres, settings: dict[str, str]) -> Iterator[EmbeddedPostgres]:
    folder = temporary_folder("test-standby", enterable=True)
    data, programs = folder / "data", postgres_programs(int(chosen_postgres().kind))
    if not (programs / "pg_basebackup").is_file():
        pytest.skip(f"{programs} has no pg_basebackup")
    command = [str(programs / "pg_basebackup"), "-d", primary.dsn, "-D", str(data), "-R", "-c", "fast"]
    subprocess.run(command, check=True, timeout=60)
    if os.geteuid() == 0:
        # The server runs as this account then, and the files must be its own.
        account = pwd.getpwnam("nobody")
        for path in (data, *data.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
    with EmbeddedPostgres(data, version=programs, settings={"max_connections": "20", **settings}) as standby:
        yield standby
