"""Handlers of the members that tests start. Each call leaves a line in a file that survives a kill -9."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanfold_consumer import Registry, RetryAfter, Send, Sends, TaskContext

ENV_FOLDER = "FANFOLD_TEST_FOLDER"
_GATE_POLL_S = 0.01

MODULE = f"""\
import os
from pathlib import Path
from fanfold_consumer.registry import default_registry
from tests.support.handlers import Notes, declare
declare(default_registry, Notes(Path(os.environ["{ENV_FOLDER}"])))
"""
"""The text of a handlers module, as `--handlers` names it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One handler call. `what` is `began` or `ended`."""

    what: str
    task_id: str
    pid: int
    attempt: int


class Notes:
    """What handlers did, and the gates at which they wait. Shared by all members of a test, through files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # One write of one short line to a file opened for appending is atomic, whoever else writes.
        self._file = os.open(folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what: str, context: TaskContext) -> None:
        os.write(self._file, f"{what} {context.task_id} {os.getpid()} {context.attempt}\n".encode())

    def calls(self, what: str = "began") -> list[Call]:
        found = []
        for line in (self._folder / "calls").read_text().splitlines():
            word, task_id, pid, attempt = line.split()
            if word == what:
                found.append(Call(word, task_id, int(pid), int(attempt)))
        return found

    def counts(self, what: str = "began") -> Counter[str]:
        """How often each task's handler was called."""
        return Counter(call.task_id for call in self.calls(what))

    def again(self) -> int:
        """Handler calls beyond the first of each task."""
        return sum(count - 1 for count in self.counts().values())

    def open_gate(self, name: str) -> None:
        (self._folder / f"gate-{name}").touch()

    def is_open(self, name: str) -> bool:
        return (self._folder / f"gate-{name}").exists()

    def close(self) -> None:
        os.close(self._file)


def declare(registry: Registry, notes: Notes) -> Registry:
    """Put the handlers into a registry. All return the `n` of their arg, some of them changed."""

    @registry.task("square")
    async def square(n: int, context: TaskContext) -> int:
        notes.note("began", context)
        return n * n

    @registry.task("slow")
    async def slow(arg: dict[str, Any], context: TaskContext) -> int:
        """Takes `s` seconds."""
        notes.note("began", context)
        await asyncio.sleep(arg["s"])
        notes.note("ended", context)
        return int(arg["n"])

    @registry.task("hold")
    async def hold(arg: dict[str, Any], context: TaskContext) -> int:
        """Takes until the gate is open."""
        notes.note("began", context)
        while not notes.is_open(arg["gate"]):  # noqa: ASYNC110  it is opened by another process
            await asyncio.sleep(_GATE_POLL_S)
        notes.note("ended", context)
        return int(arg["n"])

    @registry.task("hold-sync")
    def hold_sync(arg: dict[str, Any], context: TaskContext) -> int:
        notes.note("began", context)
        while not notes.is_open(arg["gate"]):
            time.sleep(_GATE_POLL_S)
        notes.note("ended", context)
        return int(arg["n"])

    @registry.task("stubborn")
    async def stubborn(_: Any, context: TaskContext) -> None:
        """Ignores every cancellation."""
        notes.note("began", context)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    @registry.task("limited")
    async def limited(arg: dict[str, Any], context: TaskContext) -> int:
        """Is told to come again `times` times, after `s` seconds."""
        notes.note("began", context)
        if context.attempt <= arg["times"]:
            raise RetryAfter(arg["s"])
        return context.attempt

    @registry.task("fork")
    async def fork(n: int, context: TaskContext) -> Sends:
        notes.note("began", context)
        return Sends([Send("square", i) for i in range(n)], fold="sum", value=n)

    @registry.fold("total")
    def total(values: list[int], context: TaskContext) -> int:
        notes.note("began", context)
        return sum(values)

    @registry.fold("hold-total")
    async def hold_total(values: list[int], context: TaskContext) -> int:
        """Takes until the gate `fold` is open."""
        notes.note("began", context)
        while not notes.is_open("fold"):  # noqa: ASYNC110  it is opened by another process
            await asyncio.sleep(_GATE_POLL_S)
        notes.note("ended", context)
        return sum(values)

    return registry
