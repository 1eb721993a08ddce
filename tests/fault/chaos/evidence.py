"""All that is known at the end: what producers wrote down, what handlers wrote down, the log, and the tables."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from fanfold_schemas import decode_payload
from tests.fault.chaos.ledger import read_ledgers
from tests.fault.chaos.marks import History, read_history
from tests.fault.chaos.notes import Note, read_notes
from tests.fault.chaos.plan import Plan

_READ_S = 60.0
_POLL_S = 0.1


@dataclass(slots=True)
class Published:
    """A plan and what its producer knows of it.

    Attributes:
        relies_on: mark of what had to be in the database when it was published; none: it relies on nothing.
        ack_mark: mark of its own transaction, of one that was enqueued.
        cancels: answers, with their marks.
    """

    plan: Plan
    relies_on: list[Any] | None = None
    acked: bool = False
    ack_mark: list[Any] | None = None
    cancels: list[tuple[str, list[Any] | None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """A result. `value` None: it failed."""

    task_id: str
    run: int
    status: str
    value: Any


@dataclass(frozen=True, slots=True)
class FanOutRow:
    thread_id: str
    size: int
    state: str
    ended_by: str | None


@dataclass(frozen=True, slots=True)
class Letter:
    topic: str
    partition: int
    offset: int
    code: str
    task_id: str | None
    key: bytes | None
    value: bytes | None
    headers: bytes | None


@dataclass(frozen=True, slots=True)
class Record:
    """As it is in the log, to the byte."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one campaign.

    Attributes:
        published: by fan-out.
        garbage: records that do not decode, by name; what was written down of them, and whether they were `acked`.
        forged: the same of records that pose as a task that is done.
        results: by fan-out and index; the fold's is -1.
        clocks: by thread.
        progress: next_offset and islands, by topic and partition.
        seen: what the witness wrote down: guarantee and what.
        log: all records of the workloads' topics that members may read.
    """

    history: History
    published: dict[str, Published]
    garbage: dict[str, dict[str, Any]]
    forged: dict[str, dict[str, Any]]
    fan_outs: dict[str, FanOutRow]
    results: dict[str, dict[int, Row]]
    clocks: dict[str, dict[str, int]]
    letters: list[Letter]
    progress: dict[tuple[str, int], tuple[int, str]]
    seen: list[tuple[int, str]]
    notes: list[Note]
    log: list[Record]

    def kept(self, published: Published) -> bool:
        """Whether a fan-out must be there: Kafka has it for good, or Postgres still has its transaction."""
        if published.plan.way == "enqueue":
            return published.acked and self.history.kept(published.ack_mark)
        return published.acked

    @property
    def tasks(self) -> int:
        """Results of tasks in the tables."""
        return sum(index >= 0 for rows in self.results.values() for index in rows)


def gather(folder: Path, owner_dsn: str, bootstrap: str, topics: tuple[str, ...], group: str) -> Evidence:
    published, garbage, forged = _ledgers(folder)
    with psycopg.connect(owner_dsn, autocommit=True) as connection:
        fan_outs = {
            row[0]: FanOutRow(*row[1:])
            for row in connection.execute(
                "select fan_out_id, thread_id, size, state, ended_by"
                " from fanfold.list_fan_outs(null, null, null, 10000000)"
            )
        }
        results: dict[str, dict[int, Row]] = defaultdict(dict)
        for fan_out_id, index, task_id, run, status, payload in connection.execute(
            "select fan_out_id, index, task_id, run, status, payload from fanfold.result", binary=True
        ):
            value = None if payload is None else decode_payload(payload)
            results[fan_out_id][index] = Row(task_id, run, status, value)
        clocks: dict[str, dict[str, int]] = dict(
            connection.execute("select thread_id, clock from fanfold.thread").fetchall()
        )
        letters = [
            Letter(*row)
            for row in connection.execute(
                "select topic, partition, record_offset, code, task_id, key, value, headers from fanfold.dead_letter"
            )
        ]
        progress = {
            (topic, partition): (next_offset or 0, islands)
            for topic, partition, next_offset, islands in connection.execute(
                "select topic, partition, next_offset, islands::text from fanfold.partition_progress"
                " where group_id = %s order by claimed_at nulls first",
                (group,),
            )
        }
        seen = [(row[0], row[1]) for row in connection.execute("select guarantee, what from chaos.seen order by at")]
        history = read_history(connection)
    log = [record for topic in topics for record in read_log(bootstrap, topic)]
    return Evidence(
        history,
        published,
        garbage,
        forged,
        fan_outs,
        results,
        clocks,
        letters,
        progress,
        seen,
        list(read_notes(folder)),
        log,
    )


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """The end of the log of each partition."""
    consumer = _reader(bootstrap)
    try:
        partitions = consumer.list_topics(topic, timeout=_READ_S).topics[topic].partitions
        return {
            p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=_READ_S, cached=False)[1]
            for p in partitions
        }
    finally:
        consumer.close()


def read_log(bootstrap: str, topic: str) -> list[Record]:
    """All that a member may read of a topic, from its first record to its end."""
    found: list[Record] = []
    consumer = _reader(bootstrap)
    try:
        left = set(consumer.list_topics(topic, timeout=_READ_S).topics[topic].partitions)
        assignment = []
        for p in left:
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=_READ_S, cached=False)
            assignment.append(TopicPartition(topic, p, low))
        consumer.assign(assignment)
        deadline = time.monotonic() + _READ_S
        while left:
            messages = consumer.consume(1000, _POLL_S)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the log of {topic} could not be read to its end; {sorted(left)} are left")
            for message in messages:
                error, partition, offset = message.error(), message.partition(), message.offset()
                assert partition is not None
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    left.discard(partition)
                    continue
                assert offset is not None
                headers: Any = message.headers() or []
                found.append(Record(topic, partition, offset, message.key(), message.value(), headers))
    finally:
        consumer.close()
    return found


def _reader(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-checker",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )


def _ledgers(folder: Path) -> tuple[dict[str, Published], dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    published: dict[str, Published] = {}
    others: dict[str, dict[str, dict[str, Any]]] = {"garbage": {}, "forged": {}}
    for line in read_ledgers(folder):
        name, detail = line.name, line.detail
        if line.what == "intent":
            published[name] = Published(Plan(**detail["plan"]), detail["mark"])
        elif line.what in others:
            others[line.what][name] = dict(detail, acked=False)
        elif line.what == "acked" and name in published:
            published[name].acked = True
            published[name].ack_mark = detail["mark"]
        elif line.what == "acked":
            for kind in others.values():
                if name in kind:
                    kind[name]["acked"] = True
        elif line.what == "cancel":
            published[name].cancels.append((detail["answer"], detail["mark"]))
    return published, others["garbage"], others["forged"]
