"""A small process that ends our servers when we are gone, however we went.

A server started by a test run or by `fanfold dev` must not outlive it, and no handler runs in a process that
is killed with SIGKILL. So one guard per process waits at the end of a pipe whose other end only that process
holds. The kernel closes the pipe when the process dies; the guard then stops what it was told of and removes
the temporary folders. (Linux could signal children itself, but ties that to the *thread* that started them.)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


class Guard:
    """The parent's end of the pipe. Safe to call from any OS thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    def watch(self, pid: int, stop_signal: signal.Signals) -> None:
        self._tell({"watch": pid, "signal": int(stop_signal)})

    def forget(self, pid: int) -> None:
        """To be called once `pid` is reaped: from then on its number may belong to somebody else."""
        self._tell({"forget": pid})

    def remove_at_end(self, folder: Path) -> None:
        self._tell({"remove": str(folder)})

    def _tell(self, message: dict[str, object]) -> None:
        with self._lock:
            # A forked child has the guard of its parent, whose servers are none of its business.
            if self._process is None or self._owner_pid != os.getpid():
                self._process = self._spawn()
                self._owner_pid = os.getpid()
            pipe = self._process.stdin
            if pipe is None:
                raise RuntimeError("the guard was started without a pipe")
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    @staticmethod
    def _spawn() -> subprocess.Popen[bytes]:
        # By path and with -I -S: it needs the standard library only and must start in milliseconds.
        # A session of its own keeps the Ctrl-C of a terminal from it.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )


guard = Guard()


def serve(commands: IO[bytes]) -> None:
    """Follow the parent's commands until the pipe closes; then end what is left and clean up."""
    watched: dict[int, int] = {}
    folders: list[Path] = []
    for line in commands:
        message = json.loads(line)
        if "watch" in message:
            watched[message["watch"]] = message["signal"]
        elif "forget" in message:
            watched.pop(message["forget"], None)
        elif "remove" in message:
            folders.append(Path(message["remove"]))
    _end(watched)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _end(watched: dict[int, int]) -> None:
    alive = {pid for pid, number in watched.items() if _signal(pid, number)}
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        alive = {pid for pid in alive if _signal(pid, 0)}
    for pid in alive:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer)
