"""A producer of a campaign: publishes until it is told to stop, and writes down what it knows.

`python -m tests.fault.chaos.produce`; Kafka and Postgres as for `fanfold consume`, by the environment. It stops when a
file `stop` is in its folder, after it has published again whatever failed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from fanfold_producer import Publisher, Record, Sender, enqueue
from fanfold_producer.errors import ProducerError
from fanfold_producer.fan_out import build_fan_out
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import Send, derive_task_id, new_fan_out_id
from tests.fault.chaos.clerk import Clerk, Job
from tests.fault.chaos.ledger import Ledger
from tests.fault.chaos.marks import Mark, marked
from tests.fault.chaos.outstanding import Outstanding
from tests.fault.chaos.plan import Plan
from tests.fault.chaos.workload import Workload

STOP_FLAG = "stop"
_PUBLISH_S = 10.0
_POLL_S = 0.2
_AGAIN_SHARE = 0.05
_GARBAGE_SHARE = 0.02
_FORGED_SHARE = 0.02


class _Rollback(Exception):
    """Ends the caller's own transaction."""


class Producer:
    """One process's worth of publishing."""

    def __init__(
        self, kafka: KafkaConfig, dsn: str, folder: Path, number: int, topics: tuple[str, ...], seed: int
    ) -> None:
        self._rng = random.Random(f"{seed}/{number}")
        self._topics = topics
        self._ledger = Ledger(folder, number)
        self._workload = Workload(self._rng, topics, f"{number}")
        self._atomic = Publisher(kafka)
        self._by_records = Publisher(kafka, atomic=False)
        self._sender = Sender(kafka)
        self._clerk = Clerk(dsn)
        self._failed: deque[tuple[float, Plan]] = deque()
        self._ready: deque[Callable[[], None]] = deque()
        self.outstanding = Outstanding()
        self._clerk.submit(self.outstanding.look)

    def step(self) -> int:
        """Publish what comes next; returns how many tasks that were."""
        plans = self._workload.next()
        if plans[-1].kind == "stale":
            # Published when the newer one is done, and that is known to the database.
            newer, stale = plans
            self._publish(newer)
            self._clerk.submit(self._when_done(newer, lambda mark: self._publish(stale, mark)))
        else:
            for plan in plans:
                self._publish(plan)
        chance = self._rng.random()
        if chance < _GARBAGE_SHARE:
            self._publish_garbage()
        elif chance < _GARBAGE_SHARE + _FORGED_SHARE:
            plan = Plan(new_fan_out_id(), f"forged-{new_fan_out_id()}", self._rng.choice(self._topics), 1)
            self._publish(plan)
            self._clerk.submit(self._when_done(plan, lambda mark: self._publish_forged(plan, mark)))
        return sum(plan.size for plan in plans)

    def catch_up(self) -> None:
        """Publish what waited for Postgres, and once more, under the same id, what failed a while ago."""
        while self._ready:
            self._ready.popleft()()
        while self._failed and self._failed[0][0] <= time.monotonic():
            self._send(self._failed.popleft()[1])

    def finish(self, timeout_s: float) -> None:
        """Try the rest again, for so long at most."""
        deadline = time.monotonic() + timeout_s
        while (self._failed or self._ready or self._clerk.waiting > 1) and time.monotonic() < deadline:
            self.catch_up()
            time.sleep(_POLL_S)
        self._clerk.close(2.0)
        for publisher in (self._atomic, self._by_records):
            publisher.close(2.0)

    def _publish(self, plan: Plan, mark: Mark | None = None) -> None:
        """For the first time. `mark`: what it relies on was committed before it."""
        self._ledger.write("intent", plan.fan_out_id, plan=plan.to_json(), mark=mark)
        if plan.way in ("enqueue", "rolled_back"):
            self._clerk.submit(lambda connection: self._enqueue(connection, plan))
        else:
            self._send(plan)

    def _send(self, plan: Plan) -> None:
        try:
            if plan.kind == "deadline":
                # As of a producer that died before its last record.
                self._sender.send(plan.build().records[:-1], _PUBLISH_S)
            else:
                for _ in range(1 + (self._rng.random() < _AGAIN_SHARE)):
                    self._fan_out(plan)
        except ProducerError:
            self._failed.append((time.monotonic() + _POLL_S, plan))
            return
        self._ledger.write("acked", plan.fan_out_id, mark=None)
        if plan.kind == "whole":
            self.outstanding.add(plan)
        elif plan.kind == "cancelled":
            self._clerk.submit(lambda connection: self._cancel(connection, plan), self._rng.random() * 0.3)

    def _fan_out(self, plan: Plan) -> None:
        publisher = self._atomic if plan.way == "atomic" else self._by_records
        deadline = plan.deadline_ms
        publisher.fan_out(
            plan.thread_id,
            plan.sends(),
            fan_out_id=plan.fan_out_id,
            fold=plan.fold,
            base=plan.base,
            quorum=plan.quorum,
            max_failures=plan.max_failures,
            deadline=None if deadline is None else datetime.fromtimestamp(deadline / 1000, UTC),
            on_deadline=plan.on_deadline,
            topic=plan.topic,
            timeout=_PUBLISH_S,
        )

    def _enqueue(self, connection: psycopg.Connection[Any], plan: Plan) -> None:
        def write(connection: psycopg.Connection[Any]) -> None:
            enqueue(
                connection,
                plan.thread_id,
                plan.sends(),
                topic=plan.topic,
                fan_out_id=plan.fan_out_id,
                fold=plan.fold,
            )
            if plan.way == "rolled_back":
                raise _Rollback

        try:
            _, mark = marked(connection, write)
        except _Rollback:
            self._ledger.write("rolled_back", plan.fan_out_id)
            return
        self._ledger.write("acked", plan.fan_out_id, mark=mark)

    def _cancel(self, connection: psycopg.Connection[Any], plan: Plan) -> None:
        def call(connection: psycopg.Connection[Any]) -> str:
            row = connection.execute(
                "select fanfold.cancel_fan_out(%s, %s)", (plan.fan_out_id, plan.thread_id)
            ).fetchone()
            assert row is not None
            return str(row[0])

        answer, mark = marked(connection, call)
        self._ledger.write("cancel", plan.fan_out_id, answer=answer, mark=mark)

    def _when_done(self, plan: Plan, then: Callable[[Mark | None], None]) -> Job:
        def look(connection: psycopg.Connection[Any]) -> float | None:
            found, mark = marked(connection, lambda c: _states(c, [plan.fan_out_id]))
            if found.get(plan.fan_out_id) != "done":
                return _POLL_S
            self._ready.append(lambda: then(mark))
            return None

        return look

    def _publish_garbage(self) -> None:
        """A record that does not decode. Sent once: an error leaves it unknown."""
        name = f"garbage-{new_fan_out_id()}"
        value = b"\xc1" + self._rng.randbytes(self._rng.randrange(200))
        record = Record(self._rng.choice(self._topics), name.encode(), value, (("x-garbage", name.encode()),))
        self._ledger.write("garbage", name, value=value.hex())
        self._write(name, record)

    def _publish_forged(self, plan: Plan, mark: Mark | None) -> None:
        """Another arg under the task_id of a task that is done."""
        send = plan.sends()[0]
        forged = build_forged(plan, Send(send.node, {**send.arg, "v": send.arg["v"] + 1}))
        name = f"forged-{derive_task_id(plan.fan_out_id, 0)}"
        self._ledger.write("forged", name, mark=mark, fan_out_id=plan.fan_out_id)
        self._write(name, forged)

    def _write(self, name: str, record: Record) -> None:
        try:
            self._sender.send([record], _PUBLISH_S)
        except ProducerError:
            return
        self._ledger.write("acked", name, mark=None)


def build_forged(plan: Plan, send: Send) -> Record:
    """The first record of a plan with another Send in it."""
    built = build_fan_out(plan.thread_id, [send], topic=plan.topic, fan_out_id=plan.fan_out_id, fold=plan.fold)
    return built.records[0]


def _states(connection: psycopg.Connection[Any], fan_out_ids: Sequence[str]) -> dict[str, str]:
    rows = connection.execute(
        "select fan_out_id, state from fanfold.list_fan_outs(%s::text[], null, null, %s::int4)",
        (list(fan_out_ids), len(fan_out_ids)),
    ).fetchall()
    return dict(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="produce", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--number", type=int, default=1, help="of this producer")
    parser.add_argument("--topic", action="append", required=True, help="repeatable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0, help="tasks a second, at most")
    parser.add_argument("--open-max", type=int, default=1500, help="tasks published and not done, at most")
    parser.add_argument(
        "--finish-s", type=float, default=30.0, help="for what failed to be published again, at the end"
    )
    options = parser.parse_args(arguments)

    producer = Producer(
        KafkaConfig.from_env(),
        os.environ["DATABASE_URL"],
        options.folder,
        options.number,
        tuple(options.topic),
        options.seed,
    )
    stop = options.folder / STOP_FLAG
    next_at = time.monotonic()
    while not stop.exists():
        producer.catch_up()
        now = time.monotonic()
        if now < next_at or producer.outstanding.tasks > options.open_max:
            time.sleep(0.01)
            continue
        next_at = max(next_at, now - 1) + producer.step() / options.rate
    producer.finish(options.finish_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
