"""A Redis server for what needs one."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from fanfold_consumer.devstack import DevStackError, free_port, temporary_folder
from fanfold_consumer.devstack.ports import LOOPBACK
from fanfold_consumer.devstack.process import Command, ServerProcess

_PROGRAM = "redis-server"
_READY_S = 20.0
_STOP_S = 5.0


def redis_program() -> str | None:
    """Where it is; None: this machine has none."""
    return shutil.which(_PROGRAM)


@contextmanager
def running_redis() -> Iterator[str]:
    """The URL of a server of our own on loopback that keeps nothing on disk, without the number of a database."""
    program = redis_program()
    if program is None:
        raise DevStackError(f"cannot start Redis: there is no {_PROGRAM} on the PATH")
    folder, port = temporary_folder("redis"), free_port()
    settings = {"bind": LOOPBACK, "port": str(port), "dir": str(folder), "save": "", "appendonly": "no"}
    argv = [program, *(text for name, value in settings.items() for text in (f"--{name}", value))]
    process = ServerProcess(Command(name="Redis", argv=argv, log_path=folder / "redis.log"))
    try:
        process.wait_ready(lambda: _answers(port), timeout_s=_READY_S)
        yield f"redis://{LOOPBACK}:{port}"
    finally:
        process.stop(timeout_s=_STOP_S)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
