"""One server as a child process: started, waited for, stopped, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fanfold_consumer.devstack.errors import ServerFailed
from fanfold_consumer.devstack.guard import guard

_POLL_S = 0.02
_LOG_TAIL_BYTES = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, and as whom."""

    name: str
    argv: Sequence[str]
    log_path: Path
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    # The server's way to a clean end: SIGINT is PostgreSQL's fast shutdown, SIGTERM what most others expect.
    stop_signal: signal.Signals = signal.SIGTERM
    # The account to run as, when we are root and the server refuses to be.
    uid: int | None = None
    gid: int | None = None


class ServerProcess:
    """A child process in a session of its own, so that a Ctrl-C reaches us first and we stop it in order."""

    def __init__(self, command: Command) -> None:
        self.command = command
        with command.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                list(command.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=command.cwd,
                env={**os.environ, **command.env},
                start_new_session=True,
                user=command.uid,
                group=command.gid,
                extra_groups=None if command.gid is None else [command.gid],
            )
        guard.watch(self._child.pid, command.stop_signal)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def wait_ready(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Poll `ready` until it is true.

        Raises:
            ServerFailed: the process ended, or `timeout_s` went by. It is killed, and the message has the end
                of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                code = self._child.returncode
                self.kill()
                raise ServerFailed(f"{self.command.name} ended with status {code} while starting.\n{self._log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(
                    f"{self.command.name} was not ready after {timeout_s:g} s and was stopped.\n{self._log()}"
                )
            time.sleep(_POLL_S)

    def stop(self, *, timeout_s: float) -> None:
        """Ask for a clean end and wait; kill it if that takes too long. Harmless when it is gone."""
        if self.alive:
            self._child.send_signal(self.command.stop_signal)
            try:
                self._child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._reap()

    def kill(self) -> None:
        """End it at once with SIGKILL, as a crash would. Harmless when it is gone."""
        self._child.kill()
        self._reap()

    def _reap(self) -> None:
        self._child.wait()
        guard.forget(self._child.pid)

    def _log(self) -> str:
        return f"The end of its log, {self.command.log_path}:\n{log_tail(self.command.log_path)}"


def log_tail(path: Path) -> str:
    """The last lines of a log, for an error message; empty when there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def temporary_folder(label: str, *, enterable: bool = False) -> Path:
    """A new private folder that is removed when this process ends, even if it is killed.

    With `enterable`, other accounts may pass through it (not list it): a server that we, as root, start under
    another account needs that to reach its data.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"fanfold-{label}-"))
    if enterable:
        folder.chmod(0o711)
    guard.remove_at_end(folder)
    return folder
