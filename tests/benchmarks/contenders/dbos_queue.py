"""Fan-outs of 100 on a DBOS queue that two processes work on, and what publishes them and waits for them.

In two ways, because the one that its tutorial shows costs several transactions a task. `documented`: a workflow
enqueues a workflow per argument and asks each handle for its result; all of that is timed, being what a worker does.
`batched`: one transaction enqueues the workflows of a fan-out and one that joins them, which reads all results by one
query; this publishing is not timed. Concurrency and polling interval are arguments, and are tried in each run of the
benchmark.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSClient
from psycopg.conninfo import conninfo_to_dict

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

_APPLICATION = "bench"
_TASKS, _JOINS = "tasks", "joins"
_WORKERS = 2
# In a process. What is published first ends first, so more would only look on; what publishes in its turn is enough.
_JOINS_AT_ONCE = 4
_LOOK_S = 0.05
_UNFINISHED = ["ENQUEUED", "PENDING"]
_WARM_UP = 2
_MODULE = "tests.benchmarks.contenders.dbos_queue"


def _work(argument: str) -> str:
    return argument


def _results(task_ids: list[str]) -> list[Any]:
    """A step, so that waiting leaves one record, not one a look."""
    while DBOS.list_workflows(workflow_ids=task_ids, status=_UNFINISHED, limit=1, load_input=False, load_output=False):
        time.sleep(_LOOK_S)
    found = {task.workflow_id: task.output for task in DBOS.list_workflows(workflow_ids=task_ids, load_input=False)}
    return [found[task_id] for task_id in task_ids]


def _join(task_ids: list[str]) -> int:
    joined = results(task_ids)
    check_joined(joined)
    return len(joined)


def _fan_out() -> int:
    handles = [DBOS.enqueue_workflow(_TASKS, work, argument) for argument in ARGUMENTS]
    joined = [handle.get_result(polling_interval_sec=_LOOK_S) for handle in handles]
    check_joined(joined)
    return len(joined)


work = DBOS.workflow(name="work")(_work)
results = DBOS.step(name="results")(_results)
join = DBOS.workflow(name="join")(_join)
fan_out = DBOS.workflow(name="fan_out")(_fan_out)


class Publisher:
    """Writes fan-outs to the queues; each call returns the handle of what joins one."""

    def __init__(self, url: str) -> None:
        self._client = DBOSClient(system_database_url=url)
        self._engine = sqlalchemy.create_engine(url)

    def documented(self) -> Any:
        return self._client.enqueue(_options(_JOINS, "fan_out"))

    def batched(self) -> Any:
        task_ids = [str(uuid.uuid4()) for _ in ARGUMENTS]
        with self._engine.begin() as transaction:
            for task_id, argument in zip(task_ids, ARGUMENTS, strict=True):
                self._client.enqueue_in_transaction(
                    transaction, _options(_TASKS, "work", workflow_id=task_id), argument
                )
            return self._client.enqueue_in_transaction(transaction, _options(_JOINS, "join"), task_ids)


def _options(queue: str, workflow: str, **others: str) -> Any:
    return {"queue_name": queue, "workflow_name": workflow, "application_name": _APPLICATION, **others}


def run(workers: Workers, publish: Callable[[], Any], fan_outs: int) -> float:
    with workers.stopped():
        published = [publish() for _ in range(fan_outs)]
        began = time.perf_counter()
    for one in published:
        joined = one.get_result(polling_interval_sec=_LOOK_S)
        if joined != WIDTH:
            raise ValueError(f"a fan-out of {WIDTH} joined {joined}")
    return time.perf_counter() - began


def work_on_queues(url: str, number: int, concurrency: int, poll_s: float) -> None:
    """The program of a worker."""
    DBOS(config=_config(url, number))
    DBOS.launch()
    DBOS.register_queue(_TASKS, worker_concurrency=concurrency, polling_interval_sec=poll_s)
    DBOS.register_queue(_JOINS, worker_concurrency=_JOINS_AT_ONCE, polling_interval_sec=poll_s)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    say_ready()
    ended.wait()
    DBOS.destroy()


def _config(url: str, number: int) -> Any:
    return {
        "name": _APPLICATION,
        "system_database_url": url,
        "executor_id": f"worker-{number}",
        "log_level": "WARNING",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=["batched", "documented"], required=True)
    parser.add_argument("--concurrency", type=int, required=True, help="tasks at once in a process")
    parser.add_argument("--poll-s", type=float, required=True)
    parser.add_argument("--worker", type=int, help="be that worker, of those that the benchmark starts")
    options = parser.parse_args()
    url = _url(os.environ["DATABASE_URL"])
    if options.worker is not None:
        work_on_queues(url, options.worker, options.concurrency, options.poll_s)
        return
    end_cleanly_on_sigterm()
    commands = [(_MODULE, *sys.argv[1:], "--worker", str(number)) for number in range(_WORKERS)]
    with running_workers(*commands) as workers:
        publisher = Publisher(url)
        publish = publisher.batched if options.way == "batched" else publisher.documented
        run(workers, publish, _WARM_UP)
        serve(lambda fan_outs: run(workers, publish, fan_outs))


def _url(dsn: str) -> str:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", parts["user"], parts.get("password"), parts["host"], int(parts["port"]), parts["dbname"]
    )
    return str(url.render_as_string(hide_password=False))


if __name__ == "__main__":
    main()
