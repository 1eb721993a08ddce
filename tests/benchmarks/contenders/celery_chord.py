"""Chords of 100 tasks by Celery on Redis, and what publishes them and waits for them. Publishing is not timed.

Redis keeps nothing on disk here, without which it is faster. Off is what costs something and is not needed: gossip,
mingle, heartbeats. Pool and prefetch are arguments, and are tried in each run of the benchmark.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from celery import Celery, chord
from celery.signals import worker_ready

from tests.benchmarks.contenders.peer import (
    ARGUMENTS,
    WIDTH,
    Workers,
    check_joined,
    end_cleanly_on_sigterm,
    running_workers,
    say_ready,
    serve,
)

_RUN_S = 300.0
_WARM_UP = 3
_MODULE = "tests.benchmarks.contenders.celery_chord"

_redis = os.environ["BENCH_REDIS_URL"]
app = Celery("bench", broker=f"{_redis}/0", backend=f"{_redis}/1")


def _work(argument: str) -> str:
    return argument


def _join(results: list[str]) -> int:
    check_joined(results)
    return len(results)


work = app.task(name="work")(_work)
join = app.task(name="join")(_join)
worker_ready.connect(say_ready, weak=False)


def publish() -> Any:
    return chord([work.s(argument) for argument in ARGUMENTS])(join.s())


def run(workers: Workers, fan_outs: int) -> float:
    with workers.stopped():
        published = [publish() for _ in range(fan_outs)]
        began = time.perf_counter()
    for one in published:
        joined = one.get(timeout=_RUN_S)
        if joined != WIDTH:
            raise ValueError(f"a chord of {WIDTH} joined {joined}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--processes", type=int, required=True, help="of each worker")
    parser.add_argument("--prefetch", type=int, required=True, help="per process; 0: no limit")
    options = parser.parse_args()
    end_cleanly_on_sigterm()
    switches = ("--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
    size = (f"--pool={options.pool}", f"--concurrency={options.processes}", f"--prefetch-multiplier={options.prefetch}")
    commands = [
        ("celery", "--app", f"{_MODULE}:app", "worker", f"--hostname=bench{number}", *switches, *size)
        for number in range(options.workers)
    ]
    with running_workers(*commands) as workers:
        run(workers, _WARM_UP)
        serve(lambda fan_outs: run(workers, fan_outs))


if __name__ == "__main__":
    main()
