"""A contender as a process of its own: started, listened to, paused, ended. It says JSON, one object a line."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fanfold_consumer.devstack.guard import guard
from tests.support.tree import ROOT

_STOP_S = 30.0
_POLL_S = 0.01
_TAIL_CHARS = 2000


class ContenderFailed(RuntimeError):
    """A contender ended, said an error, or did not say what was waited for. The message has the end of its stderr."""


class Child:
    """`python -m tests.benchmarks.contenders.<name> <arguments>`.

    Args:
        log: the file that gets its stderr.
        on_line: called with each line on an OS thread of its own as soon as it arrives, with its time
            (`time.perf_counter`) as "at"; all lines are also kept in `lines`.
    """

    def __init__(
        self,
        name: str,
        *arguments: str,
        env: Mapping[str, str],
        log: Path,
        on_line: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.name = name
        self.lines: list[dict[str, Any]] = []
        self._log = log
        self._on_line = on_line
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.benchmarks.contenders.{name}", *arguments],
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        # A process that is paused when we are killed would stay for ever.
        guard.watch(self._process.pid, signal.SIGTERM)
        self._reader = threading.Thread(target=self._read, name=f"lines of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, message: Mapping[str, Any]) -> None:
        """A line on its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, *, what: str) -> dict[str, Any]:
        """The first line, of those so far or to come, that is wanted."""
        seen = 0
        deadline = time.monotonic() + timeout_s
        while True:
            while seen < len(self.lines):
                if wanted(self.lines[seen]):
                    return self.lines[seen]
                seen += 1
            if self._process.poll() is not None and not self._reader.is_alive() and seen == len(self.lines):
                raise ContenderFailed(f"{self.name} ended with {self._process.returncode} before {what}{self._tail()}")
            if time.monotonic() > deadline:
                raise ContenderFailed(f"{self.name}: no {what} within {timeout_s:g} s{self._tail()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise ContenderFailed(f"{self.name} ended with {self._process.returncode}{self._tail()}")

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """SIGTERM, so that it leaves its group; SIGKILL to what does not listen."""
        with contextlib.suppress(ProcessLookupError):
            self.resume()
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        guard.forget(self._process.pid)
        self._reader.join(timeout_s)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at = time.perf_counter()
            if line.startswith(b"{"):
                message = {**json.loads(line), "at": at}
                self.lines.append(message)
                if self._on_line is not None:
                    self._on_line(message)

    def _tail(self) -> str:
        text = self._log.read_text(errors="replace").strip()
        return f"; its stderr ended with:\n{text[-_TAIL_CHARS:]}" if text else ""
