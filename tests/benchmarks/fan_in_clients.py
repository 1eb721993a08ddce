"""The client processes of one contender of a fan-in, which start together."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.child import Child, ContenderFailed
from tests.benchmarks.contenders.fan_in_client import Commit, Job

CLIENTS = 2

_ANSWER_S = 300.0
_LOOK_S = 1.0
# So long ahead the clients hear when they start, as a time of the monotonic clock, which all processes share.
_AHEAD_S = 0.02


class Clients:
    """`python -m tests.benchmarks.contenders.<program> …`, once for each client process. A context manager."""

    def __init__(self, program: str, dsn: str, workers: int, *, env: Mapping[str, str], folder: Path) -> None:
        self._answers: list[queue.Queue[dict[str, Any]]] = []
        self._children: list[Child] = []
        with ExitStack() as stack:
            for number in range(CLIENTS):
                answers: queue.Queue[dict[str, Any]] = queue.Queue()
                options = (f"--number={number}", f"--clients={CLIENTS}", f"--workers={workers}")
                log = folder / f"{program}-{number}.log"
                child = Child(program, dsn, *options, env=env, log=log, on_line=answers.put)
                self._children.append(stack.enter_context(child))
                self._answers.append(answers)
            self._stack = stack.pop_all()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def warm_up(self) -> None:
        self._ask(0, "set_up")
        self._ask_all("warm_up")

    def fan_in(self, job: Job) -> list[Commit]:
        for number in range(CLIENTS):
            self._ask(number, "prepare", asdict(job))
        commits = self._ask_all("start", time.monotonic() + _AHEAD_S)
        return [Commit(*commit) for of_client in commits for commit in of_client]

    def stored(self, job: Job) -> int:
        """How many of the results a reader finds."""
        return int(self._ask(0, "stored", asdict(job)))

    def _ask(self, number: int, ask: str, value: Any = None) -> Any:
        self._children[number].say({"ask": ask, "value": value})
        return self._answer(number, ask)

    def _ask_all(self, ask: str, value: Any = None) -> list[Any]:
        for child in self._children:
            child.say({"ask": ask, "value": value})
        return [self._answer(number, ask) for number in range(CLIENTS)]

    def _answer(self, number: int, ask: str) -> Any:
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            try:
                return self._answers[number].get(timeout=_LOOK_S)["answer"]
            except queue.Empty:
                self._children[number].check()
        raise ContenderFailed(f"{self._children[number].name}: no answer to {ask!r} within {_ANSWER_S:g} s")


def total_s(commits: Iterable[Commit]) -> float:
    """Until the last result was durable."""
    return max(commit.seconds for commit in commits)


def waits_s(commits: Iterable[Commit]) -> list[float]:
    """Of each result, from ready to durable."""
    return [commit.seconds for commit in commits for _ in range(commit.results)]
