"""`fanfold doctor` against a real Kafka: each check where it passes and where it does not. And servers away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from fanfold_consumer import FleetConfig
from fanfold_consumer.doctor import CHECKS, Finding, diagnose
from fanfold_consumer.doctor.findings import Plan, examine
from fanfold_consumer.doctor.kafka import read_kafka
from fanfold_consumer.doctor.kafka_checks import KAFKA_CHECKS
from fanfold_producer.kafka import KafkaConfig
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator
from tests.support.wait import eventually

pytestmark = pytest.mark.needs_real_kafka("the embedded one says nothing about its settings")

DAY_MS = 24 * 3600 * 1000


def look(topic: Topic, *, members: int = 1, prune_after_days: int = 14, **properties: str) -> dict[str, Finding]:
    """Properties are client settings with `__` for `.`."""
    given = {name.replace("__", "."): value for name, value in properties.items()}
    config = FleetConfig("g", (topic.name,), replace(topic.broker.config, properties=given))
    facts = read_kafka(config, topic.name, 15.0, time.time)
    plan = Plan(members, config, prune_after=timedelta(days=prune_after_days))
    return {finding.check: finding for finding in examine(KAFKA_CHECKS, facts, plan)}


def set_topic(topic: Topic, name: str, value: object) -> None:
    admin = topic.broker.admin()
    entry = ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def test_nothing_is_said_against_a_topic_that_is_sound_but_for_its_only_copy(topic: Topic) -> None:
    topic.send([b"x"])
    found = look(topic, members=topic.partitions)
    assert {name: f.status for name, f in found.items() if f.status != "ok"} == {
        "kafka.replication": "fail",
        "kafka.min-insync": "warn",
    }
    assert found["kafka.replication"].value == "copies 1, in sync 1"


@pytest.mark.parametrize(
    ("check", "name", "value", "status"),
    [
        ("min-insync", "min.insync.replicas", 2, "fail"),
        ("unclean-election", "unclean.leader.election.enable", "true", "fail"),
        ("cleanup-policy", "cleanup.policy", "compact", "fail"),
        ("retention", "retention.ms", DAY_MS, "warn"),
        ("retention", "retention.bytes", 10**9, "warn"),
        ("prune-age", "retention.ms", 30 * DAY_MS, "fail"),
        ("prune-age", "segment.ms", 8 * DAY_MS, "fail"),
        ("record-size", "max.message.bytes", 500_000, "fail"),
    ],
)
def test_a_setting_of_the_topic_is_found(topic: Topic, check: str, name: str, value: object, status: str) -> None:
    set_topic(topic, name, value)
    eventually(lambda: look(topic)[f"kafka.{check}"].status == status, what=f"{check}: {status}")


@pytest.mark.parametrize(
    ("check", "properties", "status"),
    [
        ("client-settings", {"consumer__nonsense": "1"}, "fail"),
        ("client-settings", {"producer__nonsense": "1"}, "fail"),
        ("record-size", {"producer__message__max__bytes": "500000"}, "fail"),
        ("session-timeout", {"consumer__session__timeout__ms": "499"}, "fail"),
        (
            "session-timeout",
            {"consumer__session__timeout__ms": "6000", "consumer__heartbeat__interval__ms": "2500"},
            "warn",
        ),
        ("session-timeout", {"consumer__group__protocol": "consumer"}, "ok"),
        ("transaction-timeout", {"producer__transaction__timeout__ms": "900001"}, "fail"),
    ],
)
def test_a_setting_of_the_clients_is_found(topic: Topic, check: str, properties: dict[str, Any], status: str) -> None:
    assert look(topic, **properties)[f"kafka.{check}"].status == status


def test_a_topic_that_does_not_exist_fails_and_what_rests_on_it_is_skipped(topic: Topic) -> None:
    found = look(replace(topic, name=f"{topic.name}-not"))
    assert found["kafka.topic"].status == "fail"
    assert "UNKNOWN_TOPIC_OR_PART" in found["kafka.topic"].value
    assert found["kafka.cluster"].status == "ok"
    assert found["kafka.session-timeout"].status == "ok"
    assert found["kafka.replication"].status == "skipped"


def test_members_without_a_partition_are_found(topic: Topic) -> None:
    assert look(topic, members=topic.partitions + 1)["kafka.topic"].status == "warn"


def test_a_record_of_the_future_is_found(topic: Topic) -> None:
    assert look(topic)["kafka.clock"].status == "skipped"
    producer = topic.broker.producer()
    for ahead_s, status in ((-600, "ok"), (600, "warn")):
        producer.produce(topic.name, b"x", partition=1, timestamp=int((time.time() + ahead_s) * 1000))
        producer.flush()
        assert look(topic)["kafka.clock"].status == status


# The command, and servers that are away.


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def test_the_command_makes_every_check_once_and_fails_for_the_only_copy(operator: Operator, topic: Topic) -> None:
    ran = operator.run("doctor", "--topic", topic, "--json")
    assert ran.status == 1
    assert sorted(finding["check"] for finding in ran.json) == sorted(check.name for check in CHECKS)
    assert [finding["check"] for finding in ran.json if finding["status"] == "fail"] == ["kafka.replication"]
    assert list(ran.json[0]) == ["check", "status", "value", "bound", "why", "fix"]


def test_the_command_counts_the_members_that_hold_partitions(operator: Operator, topic: Topic) -> None:
    for partition in range(3):
        operator.claim(topic, partition)
    ran = operator.run("doctor", "--topic", topic, "--group", "g", "--json")
    (lock_table,) = [finding for finding in ran.json if finding["check"] == "postgres.lock-table"]
    assert lock_table["value"].startswith("members 3 × ")


def test_a_database_that_is_away_is_one_failure_and_kafka_is_checked_all_the_same(
    operator: Operator, topic: Topic
) -> None:
    ran = operator.run("doctor", "--topic", topic, "--database-url", "host=127.0.0.1 port=1", "--json")
    assert ran.status == 1
    statuses = {finding["check"]: finding["status"] for finding in ran.json}
    assert [name for name, status in statuses.items() if status == "fail"] == ["postgres.server", "kafka.replication"]
    assert (statuses["postgres.clock"], statuses["pgbouncer.mode"], statuses["kafka.topic"]) == (
        "skipped",
        "skipped",
        "ok",
    )


@contextmanager
def silence() -> Iterator[int]:
    """The port of somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_servers_that_take_connections_and_say_nothing_are_given_up(database: Database) -> None:
    def failed(database_url: str, port: int) -> dict[str, Any]:
        config = FleetConfig("g", ("t",), KafkaConfig(f"127.0.0.1:{port}"), database_url)
        found = asyncio.run(diagnose(config, timeout_s=1.0))
        return {finding.check: finding.value for finding in found if finding.status == "fail"}

    with ExitStack() as stack:
        here, there = (stack.enter_context(silence()) for _ in range(2))
        began = time.monotonic()
        both = failed(f"host=127.0.0.1 port={here}", there)
        assert time.monotonic() - began < 10.0
        assert both["postgres.server"] == "no answer within 1 s"
        assert set(both) == {"postgres.server", "kafka.cluster"}
        assert set(failed(database.worker_dsn, there)) == {"kafka.cluster"}
