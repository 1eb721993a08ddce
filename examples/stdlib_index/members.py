"""The members of the demo's group: `fanfold consume` processes that are started, watched, killed and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fanfold_consumer.devstack.guard import guard

STOP_S = 20.0
_SCRAPE_S = 5.0
_LOG_TAIL_CHARS = 3000


class MemberDied(Exception):
    """A member ended that nobody had killed. The message has the end of its log."""


class Member:
    """One process. What it says of itself is read from its log (JSON lines) and its /metrics."""

    def __init__(self, number: int, command: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> None:
        self.number = number
        self.owner: str | None = None
        self.killed = False
        self._port: int | None = None
        self._log_path = log_path
        self._read_up_to = 0
        with log_path.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches the demo only, which then stops its members in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd, start_new_session=True
            )
        # Should the demo itself be killed, somebody still has to end its members.
        guard.watch(self.pid, signal.SIGTERM)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; -9 after a kill -9."""
        return self._process.poll()

    def look(self) -> None:
        """Read what it logged since the last look.

        Raises:
            MemberDied: it is gone and we did not kill it.
        """
        with self._log_path.open("rb") as log:
            log.seek(self._read_up_to)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read_up_to += len(line)
                self._take(line)
        if self.exit_status is not None and not self.killed:
            raise MemberDied(
                f"member {self.number} (pid {self.pid}) ended with status {self.exit_status}:\n{self.log_tail()}"
            )

    def log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-_LOG_TAIL_CHARS:]

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        if event.get("event") == "fleet.started":
            self.owner = event["owner"]
        elif event.get("event") == "health.started":
            self._port = event["port"]

    def metrics(self) -> dict[str, float]:
        """{name or name{label}: value} of its own metrics."""
        assert self._port is not None, "it has not said on which port it listens"
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_SCRAPE_S)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def kill(self) -> None:
        """kill -9, as a crash, the kernel's memory killer or a lost node would."""
        self.killed = True
        self.end()

    def ask_to_stop(self) -> None:
        if self.exit_status is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait for its end, within a bound."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)

    def end(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()
        guard.forget(self.pid)


@contextmanager
def running_members(
    count: int, options: Sequence[str], env: Mapping[str, str], cwd: Path, logs: Path
) -> Iterator[list[Member]]:
    """So many `fanfold consume` with these options. They are stopped at the end, however that comes."""
    command = [fanfold_program(), "consume", *options, "--health-port", "0", "--log-format", "json"]
    members: list[Member] = []
    try:
        for number in range(1, count + 1):
            # One by one: if a later one cannot be started, the earlier ones are stopped.
            member = Member(number, command, {**os.environ, **env}, cwd, logs / f"member-{number}.log")
            members.append(member)
        yield members
    finally:
        try:
            for member in members:
                member.ask_to_stop()
            for member in members:
                member.wait_stopped()
        finally:
            # Also when somebody has no patience and presses Ctrl-C once more.
            for member in members:
                member.end()


def fanfold_program() -> str:
    """The `fanfold` command of this very Python."""
    return str(Path(sys.executable).with_name("fanfold"))
