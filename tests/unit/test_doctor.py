"""What `fanfold doctor` makes of facts, and its page. How it comes by facts is for the integration tests."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fanfold_consumer import FleetConfig
from fanfold_consumer.doctor import CHECKS, Finding, Status
from fanfold_consumer.doctor.findings import Plan, examine, worst_first
from fanfold_consumer.doctor.kafka import ClientFacts, KafkaFacts, TopicFacts
from fanfold_consumer.doctor.kafka_checks import KAFKA_CHECKS
from fanfold_consumer.doctor.pgbouncer import PGBOUNCER_CHECKS, Pooling
from fanfold_consumer.doctor.postgres import (
    PostgresFacts,
    Routine,
    Standby,
    expected_migrations,
    expected_routines,
)
from fanfold_consumer.doctor.postgres_checks import POSTGRES_CHECKS
from fanfold_producer.kafka import KafkaConfig
from tests.support.tree import ROOT

CONFIG = FleetConfig("g", ("t",), KafkaConfig("broker"))
PLAN = Plan(members=2, config=CONFIG, database_cores=4, prune_after=timedelta(days=20))
DAY_MS = 24 * 3600 * 1000

SETTINGS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "idle_in_transaction_session_timeout": "30000",
    "max_connections": "100",
    "max_locks_per_transaction": "64",
    "max_prepared_transactions": "0",
    "reserved_connections": "0",
    "superuser_reserved_connections": "3",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
}
POSTGRES = PostgresFacts(
    version=180_004,
    in_recovery=False,
    role="fleet",
    superuser=False,
    settings=SETTINGS,
    connection_limit=None,
    direct=True,
    on_this_machine=False,
    routines={name: Routine(body, True, True) for name, body in expected_routines().items()},
    migrations=expected_migrations(),
    writable_tables=0,
    standbys=(),
    sees_standbys=True,
    members=None,
    clock_ahead_s=0.0,
    clock_error_s=0.001,
)
TOPIC = TopicFacts(
    partitions=12,
    replication=3,
    in_sync=3,
    settings={
        "cleanup.policy": "delete",
        "max.message.bytes": "1048588",
        "min.insync.replicas": "2",
        "retention.bytes": "-1",
        "retention.ms": str(7 * DAY_MS),
        "segment.ms": str(7 * DAY_MS),
        "unclean.leader.election.enable": "false",
    },
    newest_ahead_s=-5.0,
)
BROKER = {
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "group.consumer.session.timeout.ms": "45000",
    "transaction.max.timeout.ms": "900000",
}
CLIENTS = ClientFacts(45_000, 3_000, 1_048_588, 30_000)
KAFKA = KafkaFacts("cluster-1", 3, TOPIC, BROKER, CLIENTS)


def setting(**changed: object) -> PostgresFacts:
    return replace(POSTGRES, settings={**SETTINGS, **{name: str(value) for name, value in changed.items()}})


def routines(**changed: Any) -> PostgresFacts:
    """The first procedure is another."""
    first, *_ = POSTGRES.routines
    return replace(POSTGRES, routines={**POSTGRES.routines, first: replace(POSTGRES.routines[first], **changed)})


def standby(sync_state: str | None = "async", behind_bytes: int | None = 0, behind_s: float | None = None) -> Any:
    return (Standby("replica", sync_state, behind_bytes, behind_s),)


def topic(**changed: Any) -> KafkaFacts:
    return replace(KAFKA, topic=replace(TOPIC, **changed))


def topic_setting(name: str, value: object) -> KafkaFacts:
    assert not isinstance(TOPIC.settings, str)
    return topic(settings={**TOPIC.settings, name: str(value)})


def clients(**changed: Any) -> KafkaFacts:
    return replace(KAFKA, clients=replace(CLIENTS, **changed))


def plan(**changed: Any) -> Plan:
    return replace(PLAN, **changed)


def fleet(**changed: Any) -> Plan:
    return replace(PLAN, config=replace(CONFIG, **changed))


def findings_of(facts: Any, plan: Plan = PLAN) -> dict[str, Finding]:
    checks: Any = {PostgresFacts: POSTGRES_CHECKS, Pooling: PGBOUNCER_CHECKS, KafkaFacts: KAFKA_CHECKS}[type(facts)]
    return {finding.check: finding for finding in examine(checks, facts, plan)}


@pytest.mark.parametrize("facts", [POSTGRES, Pooling("direct"), KAFKA], ids=["postgres", "pgbouncer", "kafka"])
def test_nothing_is_said_against_what_is_sound(facts: Any) -> None:
    assert {finding.status for finding in findings_of(facts).values()} == {"ok"}


POSTGRES_CASES = [
    ("server", replace(POSTGRES, version=130_020), "fail", "PostgreSQL 13.20"),
    ("server", replace(POSTGRES, version=140_000), "ok", "PostgreSQL 14.0"),
    ("server", replace(POSTGRES, in_recovery=True), "fail", "standby"),
    ("server", setting(default_transaction_read_only="on"), "fail", "default_transaction_read_only"),
    ("migration", replace(POSTGRES, routines={}), "fail", "no procedures"),
    ("migration", routines(body="select 1"), "fail", "ack_outbox"),
    ("migration", replace(POSTGRES, migrations=frozenset()), "fail", "0001_tables"),
    ("migration", replace(POSTGRES, migrations=None), "ok", "as in this release"),
    ("privileges", routines(ours=False), "fail", "fleet may not execute 1 of"),
    ("privileges", routines(ours=False, workers=False), "ok", "no more"),
    ("privileges", replace(POSTGRES, superuser=True), "warn", "superuser"),
    ("privileges", replace(POSTGRES, writable_tables=6), "warn", "may write to 6 tables"),
    ("privileges", replace(POSTGRES, routines={}), "skipped", "postgres.migration"),
    ("isolation", setting(default_transaction_isolation="repeatable read"), "fail", "repeatable read"),
    ("isolation", setting(default_transaction_isolation="serializable"), "fail", "serializable"),
    ("durability", setting(synchronous_commit="off"), "fail", "synchronous_commit = off"),
    ("durability", setting(synchronous_commit="remote_apply"), "ok", "remote_apply"),
    ("durability", setting(fsync="off", full_page_writes="off"), "fail", "fsync = off, full_page_writes = off"),
    ("standbys", replace(POSTGRES, in_recovery=True), "skipped", "primary"),
    ("standbys", setting(synchronous_standby_names="replica"), "fail", "none is connected"),
    ("standbys", replace(POSTGRES, standbys=standby(None, None), sees_standbys=False), "skipped", "pg_monitor"),
    ("standbys", replace(POSTGRES, standbys=standby()), "ok", "replica (async)"),
    ("standbys", replace(POSTGRES, standbys=standby(behind_s=10.5)), "warn", "10.5 s"),
    ("standbys", replace(POSTGRES, standbys=standby(behind_bytes=65 << 20)), "warn", "65.0 MiB"),
    ("standbys", replace(setting(synchronous_standby_names="x"), standbys=standby()), "fail", "none of them"),
    ("standbys", replace(setting(synchronous_standby_names="x"), standbys=standby("quorum")), "ok", "quorum"),
    ("idle-in-transaction", setting(idle_in_transaction_session_timeout=0), "warn", "never"),
    ("idle-in-transaction", setting(idle_in_transaction_session_timeout=60_000), "ok", "60 s"),
    ("idle-in-transaction", setting(idle_in_transaction_session_timeout=60_001), "warn", "60.001 s"),
    ("connections", replace(POSTGRES, connection_limit=7), "fail", "members 2 × connections 4 = 8"),
    ("connections", replace(POSTGRES, connection_limit=8), "ok", "= 8"),
    ("connections", setting(max_connections=11), "ok", "= 8"),
    ("connections", setting(max_connections=11, reserved_connections=1), "fail", "= 8"),
    ("connections", replace(POSTGRES, direct=False), "skipped", "pooler"),
    ("pool-size", replace(POSTGRES, direct=False), "skipped", "pooler"),
    ("clock", replace(POSTGRES, clock_ahead_s=1.5), "warn", "1.500 s ahead"),
    ("clock", replace(POSTGRES, clock_ahead_s=-3600.0), "warn", "3600.000 s behind"),
    ("clock", replace(POSTGRES, clock_ahead_s=1.5, clock_error_s=0.6), "ok", "1.500 s"),
]


@pytest.mark.parametrize(("check", "facts", "status", "value"), POSTGRES_CASES)
def test_each_fact_of_postgres_is_judged(check: str, facts: PostgresFacts, status: str, value: str) -> None:
    finding = findings_of(facts)[f"postgres.{check}"]
    assert (finding.status, value in finding.value) == (status, True), finding


@pytest.mark.parametrize(
    ("members", "batch", "locks", "connections", "prepared", "status"),
    [
        (1, 1000, 64, 100, 0, "ok"),
        (3, 1000, 64, 100, 0, "ok"),
        (4, 1000, 64, 100, 0, "warn"),
        (6, 1000, 64, 100, 0, "warn"),
        (7, 1000, 64, 100, 0, "fail"),
        (7, 1000, 64, 100, 150, "ok"),
        (7, 450, 64, 100, 0, "ok"),
        (1, 10_000, 64, 200, 0, "ok"),
        (7, 1000, 256, 100, 0, "ok"),
    ],
)
def test_the_locks_of_all_batches_at_once_must_fit_twice_into_the_lock_table(
    members: int, batch: int, locks: int, connections: int, prepared: int, status: str
) -> None:
    facts = setting(max_locks_per_transaction=locks, max_connections=connections, max_prepared_transactions=prepared)
    finding = findings_of(facts, replace(fleet(batch_results_max=batch), members=members))["postgres.lock-table"]
    # No batch is larger than what may be in flight, 4,000.
    assert finding.value.endswith(f"= {members * min(batch, 4000):,}")
    assert (
        finding.bound
        == f"≤ {(connections + prepared) * locks // 2:,}, half of {locks} × {connections + prepared:,} locks"
    )
    assert finding.status == status


@pytest.mark.parametrize(
    ("members", "pool_size", "cores", "status"),
    [(1, 4, 2, "ok"), (1, 5, 2, "ok"), (1, 6, 2, "warn"), (4, 4, 2, "warn"), (4, 4, 8, "ok"), (1, 4, None, "skipped")],
)
def test_pools_are_held_against_the_cores_of_the_server(
    members: int, pool_size: int, cores: int | None, status: str
) -> None:
    wanted = replace(fleet(pool_size=pool_size), members=members, database_cores=cores)
    assert findings_of(POSTGRES, wanted)["postgres.pool-size"].status == status


@pytest.mark.parametrize(
    ("facts", "status", "value"),
    [
        (Pooling("session"), "ok", "session pooling"),
        (Pooling("transaction", "PgBouncer 1.18.0"), "ok", "transaction pooling, PgBouncer 1.18.0"),
        (Pooling("statement"), "fail", "statement pooling"),
    ],
)
def test_each_way_to_pool_is_judged(facts: Pooling, status: str, value: str) -> None:
    finding = findings_of(facts)["pgbouncer.mode"]
    assert (finding.status, value in finding.value) == (status, True), finding


KAFKA_CASES: list[tuple[str, KafkaFacts, Plan, str, str]] = [
    ("topic", replace(KAFKA, topic="there is none"), PLAN, "fail", "there is none"),
    ("topic", KAFKA, plan(members=12), "ok", "partitions 12"),
    ("topic", KAFKA, plan(members=13), "warn", "members 13"),
    ("client-settings", replace(KAFKA, clients="no such property"), PLAN, "fail", "no such property"),
    ("replication", topic(replication=1, in_sync=1), PLAN, "fail", "copies 1"),
    ("replication", topic(replication=2, in_sync=2), PLAN, "warn", "copies 2"),
    ("replication", topic(in_sync=2), PLAN, "warn", "copies 3, in sync 2"),
    ("replication", replace(KAFKA, topic="there is none"), PLAN, "skipped", "kafka.topic"),
    ("min-insync", topic_setting("min.insync.replicas", 1), PLAN, "warn", "1, copies 3"),
    ("min-insync", topic_setting("min.insync.replicas", 3), PLAN, "warn", "3, copies 3"),
    ("min-insync", topic_setting("min.insync.replicas", 4), PLAN, "fail", "4, copies 3"),
    ("min-insync", topic(in_sync=1), PLAN, "fail", "in sync 1"),
    ("unclean-election", topic_setting("unclean.leader.election.enable", "true"), PLAN, "fail", "true"),
    ("unclean-election", topic(settings={}), PLAN, "skipped", "does not say"),
    ("unclean-election", topic(settings="not authorized"), PLAN, "skipped", "not authorized"),
    ("cleanup-policy", topic_setting("cleanup.policy", "compact"), PLAN, "fail", "compact"),
    ("cleanup-policy", topic_setting("cleanup.policy", "compact,delete"), PLAN, "fail", "compact,delete"),
    ("retention", topic_setting("retention.ms", 3 * DAY_MS), PLAN, "ok", "3 days"),
    ("retention", topic_setting("retention.ms", 3 * DAY_MS - 1), PLAN, "warn", "3 days"),
    ("retention", topic_setting("retention.ms", -1), PLAN, "ok", "for ever"),
    ("retention", topic_setting("retention.bytes", 10**9), PLAN, "warn", "1,000,000,000 bytes"),
    ("prune-age", KAFKA, plan(prune_after=timedelta(days=14)), "ok", "14 days"),
    ("prune-age", KAFKA, plan(prune_after=timedelta(days=13)), "fail", "13 days"),
    ("prune-age", KAFKA, plan(prune_after=None), "skipped", "--prune-older-than"),
    ("prune-age", topic_setting("retention.ms", -1), PLAN, "fail", "20 days"),
    ("record-size", topic_setting("max.message.bytes", 2**20), PLAN, "ok", "1,048,576 on the topic"),
    ("record-size", topic_setting("max.message.bytes", 2**20 - 1), PLAN, "fail", "1,048,575 on the topic"),
    ("record-size", clients(message_bytes_max=1_000_000), PLAN, "fail", "1,000,000 in the client"),
    ("record-size", replace(KAFKA, clients="no such property"), PLAN, "skipped", "kafka.client-settings"),
    ("session-timeout", clients(session_timeout_ms=5_999), PLAN, "fail", "5999 ms"),
    ("session-timeout", clients(session_timeout_ms=1_800_001), PLAN, "fail", "1800001 ms"),
    ("session-timeout", clients(session_timeout_ms=9_000), PLAN, "ok", "9000 ms"),
    ("session-timeout", clients(session_timeout_ms=8_999), PLAN, "warn", "a heartbeat every 3000 ms"),
    ("session-timeout", clients(session_timeout_ms=None), PLAN, "ok", "45000 ms, by the broker"),
    ("session-timeout", replace(KAFKA, broker="not authorized"), PLAN, "skipped", "not authorized"),
    ("transaction-timeout", clients(transaction_timeout_ms=900_001), PLAN, "fail", "900001 ms"),
    ("transaction-timeout", clients(transaction_timeout_ms=900_000), PLAN, "ok", "900000 ms"),
    ("clock", topic(newest_ahead_s=1.5), PLAN, "warn", "1.5 s ahead"),
    ("clock", topic(newest_ahead_s=1.0), PLAN, "ok", "past"),
    ("clock", topic(newest_ahead_s="the topic is empty"), PLAN, "skipped", "empty"),
]


@pytest.mark.parametrize(("check", "facts", "plan", "status", "value"), KAFKA_CASES)
def test_each_fact_of_kafka_is_judged(check: str, facts: KafkaFacts, plan: Plan, status: str, value: str) -> None:
    finding = findings_of(facts, plan)[f"kafka.{check}"]
    assert (finding.status, value in finding.value) == (status, True), finding


def test_every_check_has_a_case_that_it_does_not_pass() -> None:
    cases = [(f"postgres.{case[0]}", case[2]) for case in POSTGRES_CASES]
    cases += [(f"kafka.{case[0]}", case[3]) for case in KAFKA_CASES]
    elsewhere = {"postgres.lock-table", "postgres.pool-size", "pgbouncer.mode"}
    # A cluster that answers is sound; one that does not is the next test's.
    elsewhere |= {"kafka.cluster"}
    assert {name for name, status in cases if status in ("warn", "fail")} | elsewhere == {c.name for c in CHECKS}


def test_a_server_that_is_away_is_one_failure_and_every_other_check_of_it_is_skipped() -> None:
    first, *rest = examine(POSTGRES_CHECKS, "connection refused", PLAN)
    assert (first.check, first.status, first.value) == ("postgres.server", "fail", "connection refused")
    assert {(finding.status, finding.value) for finding in rest} == {("skipped", "see postgres.server")}
    assert [finding.check for finding in (first, *rest)] == [check.name for check in POSTGRES_CHECKS]


def test_findings_are_sorted_worst_first_and_otherwise_stay_in_order() -> None:
    statuses: list[Status] = ["ok", "skipped", "warn", "fail", "warn"]
    given = [Finding(str(n), status, "", "", "", "") for n, status in enumerate(statuses)]
    assert [finding.check for finding in worst_first(given)] == ["3", "2", "4", "1", "0"]


def test_no_check_is_without_a_bound_a_reason_and_a_fix_and_no_two_share_a_name() -> None:
    assert [check.name for check in CHECKS if not (check.bound and check.why and check.fix)] == []
    assert max(Counter(check.name for check in CHECKS).values()) == 1


def test_the_page_lists_every_check_as_it_is() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    rows = re.findall(r"^\| `((?:postgres|pgbouncer|kafka)\.[a-z-]+)` \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(check.name, check.bound, check.why, check.fix) for check in CHECKS]
