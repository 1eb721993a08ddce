"""What producers do wrong: aborted transactions, records twice and out of order, records that nobody can use."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from typing import Any

import msgspec
from confluent_kafka import Producer

from fanfold_producer import Record
from fanfold_schemas import Task, decode_task, encode_task, task_headers
from tests.fault.chaos.nemeses.act import act, await_true, duplicates, hold
from tests.fault.chaos.nemeses.own_work import OwnWork
from tests.fault.chaos.world import NEMESIS_PREFIX, World

_TASKS = 60
_TRANSACTION_S = 30.0
_COPIES_MAX = 400


class AbortedTransactions:
    """A producer that writes fan-outs and aborts: nobody may ever see them, and offsets go on behind them."""

    name = "aborted_transactions"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        topic = rng.choice(world.topics)
        with world.stack.kafka.brokers_held, act(world, self.name, topic) as this:
            work = OwnWork(world, self.name)
            producer = Producer(
                {
                    "bootstrap.servers": world.stack.kafka.direct_bootstrap,
                    "transactional.id": f"{NEMESIS_PREFIX}{uuid.uuid4().hex}",
                    "log_level": 0,
                }
            )
            producer.init_transactions(_TRANSACTION_S)
            producer.begin_transaction()
            built = work.build(topic, _TASKS, label="aborted")
            for record in built.records:
                producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
            written = producer.flush(_TRANSACTION_S) == 0
            # Readers wait before an open transaction.
            hold(min(seconds, 3.0))
            producer.abort_transaction(_TRANSACTION_S)
            # What comes after it on the log of each partition is done, so the aborted part has been passed.
            passed = work.await_folded(work.publish(topic, _TASKS))
            seen = work.results(built.fan_out.id)
            if seen:
                this.violation(what="results of a fan-out whose transaction was aborted", results=seen)
            this.effect(written and passed and not seen, records=_TASKS)


class RetryWithoutIdempotence:
    """A producer whose retries write records again: each of a fan-out two or three times, at other offsets."""

    name = "retry_without_idempotence"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        topic = rng.choice(world.topics)
        with act(world, self.name, topic) as this:
            before = duplicates(world)
            work = OwnWork(world, self.name)
            built = work.build(topic, _TASKS)
            copies = [record for record in built.records for _ in range(rng.randint(2, 3))]
            work.write(copies, enable_idempotence=False)
            hold(seconds)
            folded = work.await_folded(built.fan_out.id)
            again = await_true(before.total)
            this.effect(folded and again, records=len(copies), tasks=_TASKS, found_again=again)


class DuplicateAndReorder:
    """What the log has is written to it again, in another order."""

    name = "duplicate_and_reorder"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        topic = rng.choice(world.topics)
        with act(world, self.name, topic) as this:
            before = duplicates(world)
            work = OwnWork(world, self.name)
            with world.stack.kafka.brokers_held:
                records = work.read_last(topic, _COPIES_MAX)
            rng.shuffle(records)
            work.write(records)
            hold(seconds)
            again = await_true(before.total)
            this.effect(again, records=len(records), found_again=again)


class Poison:
    """Records that do not decode, name a handler that nobody has, or contradict a task that is done: all are parked."""

    name = "poison"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        topic = rng.choice(world.topics)
        with act(world, self.name, topic) as this:
            work = OwnWork(world, self.name)
            good = work.build(topic, _TASKS)
            work.write(good.records)
            folded = work.await_folded(good.fan_out.id)
            unknown = work.build(topic, [("nemesis-nobody-has-this", 1)], label="failed")
            bad = {
                "garbage": Record(topic, b"poison", rng.randbytes(200)),
                "empty": Record(topic, b"poison", None),
                "truncated": replace(good.records[0], value=(good.records[0].value or b"")[:-1]),
                "conflict": _contradicting(good.records[0]),
                "nobody": unknown.records[0],
            }
            where = dict(zip(bad, work.write(list(bad.values())), strict=True))
            codes = {kind: work.await_dead_letter(at) for kind, at in where.items()}
            hold(seconds / 2)
            this.effect(folded and all(codes.values()), where=list(where.values()), **codes)


def _contradicting(record: Record) -> Record:
    """The same task with another arg."""
    task: Any = decode_task(record.value)
    other: Task = msgspec.structs.replace(task, arg=-1)
    return replace(record, value=encode_task(other), headers=tuple(task_headers(other)))


RECORD_NEMESES = (AbortedTransactions(), RetryWithoutIdempotence(), DuplicateAndReorder(), Poison())
