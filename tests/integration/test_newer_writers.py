"""Records of a producer newer than this release: what can be read runs, the rest is parked, and nothing is lost."""

from __future__ import annotations

from typing import Any

import msgspec
import ormsgpack
import pytest

from fanfold_consumer import Registry
from fanfold_producer import Record
from fanfold_schemas import Task, codec, dead_letter_topic, derive_fold_task_id, new_fan_out_id, pack_headers
from tests.support.database import Database
from tests.support.handlers import declare
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator
from tests.support.rig import Rig
from tests.support.wait import eventually

one_partition = pytest.mark.parametrize("topic", [1], indirect=True)

NEWER_HEADERS: list[tuple[str, bytes | None]] = [
    ("fanfold-priority", b"9"),
    ("fanfold-run", b"1"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("fanfold-priority", b"\x00\xff"),
    ("nothing", None),
]


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def newer(node: str = "square", *, version: int = 1, fold: str | None = "sum") -> dict[str, Any]:
    """A task of a fan-out of its own, with fields on every level that this release does not know."""
    fan_out_id = new_fan_out_id()
    fan_out = {"id": fan_out_id, "size": 1, "shape": {"rows": [1]}} | ({"fold": fold} if fold else {})
    return {
        "v": version,
        "priority": 9,
        "task_id": f"{fan_out_id}-task",
        "thread_id": "t1",
        "fan_out": fan_out,
        "index": 0,
        "node": node,
        "arg": 3,
        "labels": {"v": 7, "raw": b"\x00"},
    }


def record(topic: Topic, task: dict[str, Any]) -> Record:
    return Record(topic.name, b"key", ormsgpack.packb(task), NEWER_HEADERS)


def fields(value: bytes | None) -> dict[str, Any]:
    found: dict[str, Any] = ormsgpack.unpackb(value or b"")
    return found


@one_partition
def test_a_task_with_unknown_fields_runs_and_folds(rig: Rig, topic: Topic) -> None:
    task = newer()
    rig.write([record(topic, task)])
    rig.start_here(topic)
    eventually(lambda: rig.fold_value(task["fan_out"]["id"]) == 9, what="the fold")
    rig.assert_sound()


@one_partition
def test_a_fold_has_the_fields_of_the_release_that_makes_it(rig: Rig, topic: Topic) -> None:
    # Its fan-out is kept in the database as what this release knows of it.
    task = newer(fold="once")
    registry = declare(Registry(), rig.notes)

    @registry.fold("once", retries=0)  # so it does not run in place, but as a record
    def once(values: list[int]) -> int:
        return sum(values)

    rig.write([record(topic, task)])
    rig.start_here(topic, registry=registry)
    eventually(lambda: rig.fold_value(task["fan_out"]["id"]) == 9, what="the fold")

    fold = fields(topic.records(2)[1].value())
    assert fold["task_id"] == derive_fold_task_id(task["fan_out"]["id"])
    assert set(fold) <= {field.name for field in msgspec.structs.fields(Task)}
    assert fold["fan_out"] == {"id": task["fan_out"]["id"], "size": 1, "fold": "once"}


@one_partition
@pytest.mark.needs_real_kafka("reading the dead-letter topic back crashes librdkafka on the embedded one")
def test_a_dead_letter_keeps_unknown_fields_and_headers(rig: Rig, topic: Topic) -> None:
    sent = record(topic, newer("no-such-handler"))
    rig.write([sent])
    rig.start_here(topic)

    (letter,) = rig.await_dead_letters(1)
    assert (letter.code, letter.key, letter.value) == ("E_NODE", sent.key, sent.value)
    assert letter.headers == pack_headers(NEWER_HEADERS)
    (copy,) = Topic(dead_letter_topic(topic.name), 1, topic.broker).records(1)
    assert (copy.key(), copy.value()) == (sent.key, sent.value)
    assert list(copy.headers() or [])[: len(NEWER_HEADERS)] == NEWER_HEADERS


@one_partition
def test_a_repair_publishes_the_record_as_it_was(operator: Operator, rig: Rig, topic: Topic) -> None:
    sent = record(topic, newer())
    rig.write([sent])

    assert operator.replay("--topic", topic, "--thread", "t1", "--execute").status == 0

    assert rig.rows("select key, value, headers from fanfold.outbox") == [
        (sent.key, sent.value, pack_headers(NEWER_HEADERS))
    ]


@one_partition
def test_a_rerun_changes_the_run_and_nothing_else(operator: Operator, rig: Rig, topic: Topic) -> None:
    task = newer()
    rig.write([record(topic, task)])
    rig.start_here(topic).await_partitions()
    eventually(lambda: rig.fold_value(task["fan_out"]["id"]) == 9, what="the fold")
    rig.assert_sound()

    assert operator.replay("--topic", topic, "--rerun", "--execute").status == 0
    again = topic.records(2)[1]

    assert fields(again.value()) == {**task, "run": 2, "attempt": 1}
    assert again.key() == b"key"
    others = [header for header in NEWER_HEADERS if header[0] != "fanfold-run"]
    assert list(again.headers() or []) == [*others, ("fanfold-run", b"2")]


@one_partition
def test_a_record_of_a_newer_version_is_parked_and_runs_when_it_is_sent_again_to_a_member_that_knows_it(
    rig: Rig, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = record(topic, newer(version=2, fold=None))
    rig.write([sent])
    old = rig.start_here(topic)
    (letter,) = rig.await_dead_letters(1)
    assert letter.code == "E_SCHEMA"
    assert "version 2, this reader knows 1: upgrade the consumers before the producers" in letter.error
    assert (letter.key, letter.value, letter.headers) == (sent.key, sent.value, pack_headers(NEWER_HEADERS))
    old.stop()

    monkeypatch.setattr(codec, "WIRE_VERSION", 2)
    rig.start_here(topic)
    rig.write([Record(topic.name, letter.key, letter.value, NEWER_HEADERS)])

    rig.await_value(fields(letter.value)["fan_out"]["id"], 0)
    assert len(rig.dead_letters()) == 1
