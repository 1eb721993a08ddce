"""The `fanfold` command as an operator runs it, and work for it to look at."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
import pytest

from fanfold_consumer.cli import main
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics
from fanfold_schemas import (
    FanOut,
    Task,
    arg_hash,
    derive_task_id,
    encode_payload,
    encode_task,
    new_fan_out_id,
    task_headers,
)
from fanfold_sql import Claim, CommitBatch, CommitReply, Finished, Islands, PartitionCommit, Store
from tests.support.database import Database
from tests.support.kafka import Broker, Topic

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs `fanfold` as a worker of `database`, with `broker`."""

    broker: Broker
    database: Database
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: object) -> Ran:
        """Run the command by its real entry point, in this process."""
        self.monkeypatch.setattr(sys, "argv", ["fanfold", *map(str, arguments)])
        self.monkeypatch.setenv("DATABASE_URL", self.database.worker_dsn)
        self.monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", self.broker.bootstrap)
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    def replay(self, *arguments: object) -> Ran:
        return self.run("replay", *self.client_options(), *arguments)

    def client_options(self) -> list[str]:
        consumer = [f"consumer.{name}={value}" for name, value in self.broker.consumer_config.items()]
        producer = [f"producer.{name}={value}" for name, value in self.broker.producer_config.items()]
        return [part for setting in (*consumer, *producer) for part in ("-X", setting)]

    def store(self, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """Do something with a store, as a worker."""

        async def do() -> T:
            async with Store.open(self.database.worker_dsn, pool_size=2) as store:
                return await work(store)

        return asyncio.run(do())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def claim(self, topic: Topic, partition: int = 0, *, group: str = "g", owner: UUID | None = None) -> Held:
        """Take a partition, as a member does."""
        cluster_id, found = cluster_and_topics(KafkaConfig(self.broker.bootstrap), [topic.name])
        owner = owner or uuid4()
        topic_id = found[topic.name][0]
        claim = self.store(
            lambda store: store.claim_partition(group, cluster_id, topic.name, topic_id, partition, owner)
        )
        return Held(self, owner, claim)

    def commit(self, results: Sequence[Finished]) -> CommitReply:
        return self.store(lambda store: store.commit(CommitBatch(list(results))))


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that somebody holds."""

    operator: Operator
    owner: UUID
    claim: Claim

    def finish(self, next_offset: int, islands: Islands = (), results: Sequence[Finished] = ()) -> Held:
        """Commit progress, and results with it."""
        claim = self.claim
        progress = PartitionCommit(claim.progress_id, claim.epoch, claim.commit_seq, next_offset, islands)
        self.operator.store(lambda s: s.commit(CommitBatch(list(results), [progress], owner=self.owner)))
        return self

    def release(self) -> None:
        held = [(self.claim.progress_id, self.claim.epoch)]
        self.operator.store(lambda store: store.release_partitions(self.owner, held))


def make_tasks(
    size: int, *, thread_id: str = "t1", fold: str | None = "collect", base: dict[str, int] | None = None
) -> list[Task]:
    """All tasks of a new fan-out."""
    fan_out = FanOut(new_fan_out_id(), size, fold)
    return [
        Task(derive_task_id(fan_out.id, i), thread_id, fan_out, i, "work", {"n": i}, base or {}) for i in range(size)
    ]


def fold_task(task: Task, task_id: str = "fold-1") -> Task:
    """The fold of a task's fan-out."""
    return msgspec.structs.replace(task, task_id=task_id, index=-1, node=task.fan_out.fold, arg=None)


def finished(task: Task, topic: Topic | None = None) -> Finished:
    """A task's result, as a member would commit it."""
    return Finished(task, encode_payload(task.index), arg_hash(task), topic.name if topic else None)


def publish(topic: Topic, tasks: Sequence[Task], *, partition: int = 0, **settings: Any) -> None:
    """Write tasks as records, in one transaction if `settings` has a `transactional_id`."""
    failures: list[str] = []
    producer = topic.broker.producer(**settings)
    transactional = "transactional_id" in settings
    if transactional:
        producer.init_transactions(15)
        producer.begin_transaction()
    for task in tasks:
        producer.produce(
            topic.name,
            encode_task(task),
            task.task_id,
            partition,
            headers=list(task_headers(task)),
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )
    producer.flush()
    if transactional:
        producer.commit_transaction(15)
    assert not failures, failures[0]
