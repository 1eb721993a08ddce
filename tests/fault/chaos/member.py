"""One `fanfold consume` process of a campaign, and a log of JSON events that is read as it grows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.support.tree import ROOT

ENV_FOLDER = "FANFOLD_CHAOS_FOLDER"
"""Where the handlers of a campaign keep their notes, and look for `HANG_FLAG`."""
ENV_CLOCK = "FANFOLD_CHAOS_CLOCK_S"
HANG_FLAG = "hang"
"""While a file of this name is in the folder, handlers that are called do not return."""

_SKEWED_CLOCK = Path(__file__).with_name("skewed_clock")
_METRICS_S = 2.0

Event = dict[str, Any]


class MemberProcess:
    """A member from start to end; what comes after it is another one.

    Args:
        command: options of `fanfold consume`.
        python_path: folders in front of everything else.
        clock_s: how wrong its wall clock is.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        command: list[str],
        env: Mapping[str, str],
        python_path: list[Path],
        clock_s: float = 0.0,
    ) -> None:
        self.name = name
        self.clock_s = clock_s
        self.log_path = folder / f"{name}.log"
        # True once we have ended it, or asked it to end.
        self.expected_end = False
        self._events: defaultdict[str, list[Event]] = defaultdict(list)
        self._read_to = 0
        self._lock = threading.Lock()
        clock = [_SKEWED_CLOCK] if clock_s else []
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from fanfold_consumer.cli import main; main()", "consume", *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    **env,
                    "PYTHONPATH": os.pathsep.join(map(str, [*clock, *python_path, ROOT])),
                    ENV_CLOCK: str(clock_s),
                    ENV_FOLDER: str(folder),
                },
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self.expected_end = True
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask for a drain."""
        self.expected_end = True
        self._process.send_signal(signal.SIGTERM)

    def await_exit(self, timeout_s: float) -> int:
        """Its status; killed if it takes longer."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def events(self, name: str, **fields: Any) -> list[Event]:
        """Events so far, oldest first, of that name and with these fields."""
        with self._lock:
            self._read_on()
            found = list(self._events[name])
        return [event for event in found if fields.items() <= event.items()]

    def counts(self) -> Counter[str]:
        """How often it logged each event."""
        with self._lock:
            self._read_on()
            return Counter({name: len(events) for name, events in self._events.items()})

    def metric(self, name: str, **labels: str) -> float:
        """A counter of it as /metrics shows it; 0 when it does not answer."""
        started = self.events("health.started")
        if not started or not self.alive:
            return 0.0
        wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "} " if labels else " ")
        try:
            url = f"http://127.0.0.1:{started[0]['port']}/metrics"
            with urllib.request.urlopen(url, timeout=_METRICS_S) as answer:
                lines = answer.read().decode().splitlines()
        except (OSError, HTTPException):
            return 0.0
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted))

    def log_tail(self, bytes_max: int = 3000) -> str:
        return self.log_path.read_text(errors="replace")[-bytes_max:]

    def _read_on(self) -> None:
        with self.log_path.open("rb") as log:
            log.seek(self._read_to)
            data = log.read()
        complete, newline, _ = data.rpartition(b"\n")
        self._read_to += len(complete) + len(newline)
        for line in complete.splitlines():
            # What is no JSON was written by librdkafka itself, or by a traceback.
            if line.startswith(b"{"):
                event = json.loads(line)
                self._events[event["event"]].append(event)
