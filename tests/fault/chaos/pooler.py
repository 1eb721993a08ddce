"""A real PgBouncer in transaction mode that can be killed, started, reloaded and pointed at another server."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

import psycopg

from fanfold_consumer.devstack import free_port, temporary_folder
from fanfold_consumer.devstack.ports import LOOPBACK
from fanfold_consumer.devstack.process import Command, ServerProcess
from tests.support.wait import eventually

_START_S = 15.0

# A server that is away is tried again after a second, not after fifteen. Version 1.18 takes no prepared statements.
_CONFIG = """\
[databases]
{database} = host={host} port={server_port}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = {admin}
pool_mode = transaction
default_pool_size = 30
max_client_conn = 500
server_login_retry = 1
server_connect_timeout = 3
query_wait_timeout = 15
server_check_delay = 1
ignore_startup_parameters = extra_float_digits
"""


class Pooler:
    """Clients connect to `port`; it connects to the server at `point_at`."""

    def __init__(self, database: str, users: tuple[str, ...], admin: str) -> None:
        self.port = free_port()
        self._database = database
        self._folder = temporary_folder("chaos-pgbouncer", enterable=True)
        self._users = users
        self._admin = admin
        self._server_port = 0
        self._process: ServerProcess | None = None

    def point_at(self, server_port: int) -> None:
        """Take effect by `start` or `reload`."""
        self._server_port = server_port
        users = self._folder / "users.txt"
        users.write_text("".join(f'"{user}" ""\n' for user in self._users))
        self._config.write_text(
            _CONFIG.format(
                database=self._database,
                host=LOOPBACK,
                server_port=server_port,
                port=self.port,
                users=users,
                admin=self._admin,
            )
        )

    def start(self) -> None:
        if self._process is not None and self._process.alive:
            return
        # Like PostgreSQL, it refuses to run as root.
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process = ServerProcess(
            Command(
                name="PgBouncer",
                argv=["pgbouncer", str(self._config)],
                log_path=self._folder / "pgbouncer.log",
                uid=None if account is None else account.pw_uid,
                gid=None if account is None else account.pw_gid,
            )
        )
        self._process.wait_ready(self._answers, timeout_s=_START_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def reload(self) -> None:
        """Read the settings again, as an operator's SIGHUP; connections to a server of before are given up."""
        process = self._process
        if process is None or not process.alive:
            return
        os.kill(process.pid, signal.SIGHUP)

        def read_again() -> bool:
            # Killed meanwhile, the next one reads them when it starts.
            return not process.alive or self._console("show databases", str(self._server_port))

        eventually(read_again, what="settings read again")

    def reconnect(self) -> None:
        """Close each connection to the server when its transaction is over, as RECONNECT does."""
        self._console("reconnect")

    def _answers(self) -> bool:
        return self._console("show version")

    def _console(self, command: str, expected: str = "") -> bool:
        dsn = f"postgresql://{self._admin}@{LOOPBACK}:{self.port}/pgbouncer"
        try:
            # The console speaks the simple protocol only and knows no transactions.
            with psycopg.Connection.connect(
                dsn, autocommit=True, connect_timeout=2, cursor_factory=psycopg.ClientCursor
            ) as connection:
                cursor = connection.execute(command.encode())
                found = cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            return False
        return not expected or any(expected in map(str, row) for row in found)

    @property
    def _config(self) -> Path:
        return self._folder / "pgbouncer.ini"
