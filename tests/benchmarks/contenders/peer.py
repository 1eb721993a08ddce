"""What the contenders of `peers` have in common: the job, and how they are told to do it."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fanfold_consumer.devstack import temporary_folder
from fanfold_consumer.devstack.process import Command, ServerProcess
from tests.benchmarks.backlog import ARG_BYTES, FAN_OUT_SIZE
from tests.support.tree import ROOT

WIDTH = FAN_OUT_SIZE
"""Tasks of a fan-out."""

_READY = "this worker is ready"
_READY_S = 120.0
_STOP_S = 10.0

# The same in every process, so that whoever joins knows what must come. As in `backlog`: nothing in it compresses, and
# two bytes more make it 200, of msgpack there and of JSON here.
_RANDOM = random.Random(0)
ARGUMENTS = [base64.b64encode(_RANDOM.randbytes(ARG_BYTES))[: ARG_BYTES - 2].decode() for _ in range(WIDTH)]
"""Those of each fan-out, in order. A task returns its argument."""


def check_joined(results: Sequence[Any]) -> None:
    """Refuse a fan-out that is not all there, in order."""
    if list(results) != ARGUMENTS:
        places = [ARGUMENTS.index(one) if one in ARGUMENTS else None for one in results]
        raise ValueError(f"a fan-out of {WIDTH} was joined as {places}")


def serve(run: Callable[[int], float]) -> None:
    """Say that we are ready, then do what each line on stdin asks for, until that ends.

    Args:
        run: does so many fan-outs, checks that each was joined, and returns the seconds that they took.
    """
    _say({"ready": True})
    for line in sys.stdin:
        _say({"seconds": run(json.loads(line)["fan_outs"])})


def end_cleanly_on_sigterm() -> None:
    """By an exception, so that whoever started workers stops them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


class Workers:
    """The processes that do what another one publishes."""

    def __init__(self, processes: Sequence[ServerProcess]) -> None:
        self._processes = processes

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Not while the block runs, in which the work is published: that is not timed for the fleet either."""
        for process in self._processes:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self._processes:
                os.kill(process.pid, signal.SIGCONT)


@contextmanager
def running_workers(*commands: Sequence[str]) -> Iterator[Workers]:
    """A process each of `python -m …` that says when it is ready; stopped at the end, also if we are killed."""
    folder = temporary_folder("bench-workers")
    processes: list[ServerProcess] = []
    try:
        # One after another: the first may set up its database, and the others would collide with it.
        for number, argv in enumerate(commands):
            log = folder / f"{number}.log"
            command = Command(name=" ".join(argv), argv=[sys.executable, "-m", *argv], log_path=log, cwd=ROOT)
            process = ServerProcess(command)
            processes.append(process)
            process.wait_ready(partial(_says_ready, log), timeout_s=_READY_S)
        yield Workers(processes)
    finally:
        for process in processes:
            process.stop(timeout_s=_STOP_S)


def say_ready(*_: object, **__: object) -> None:
    """For a worker, when it takes work; also as a callback, whatever that is given."""
    print(_READY, flush=True)


def _says_ready(log: Path) -> bool:
    return _READY in log.read_text()


def _say(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)
