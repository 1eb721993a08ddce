"""Postgres or Kafka away for a while: nothing dies, nothing is parked, everything completes by itself.

`FANFOLD_AWAY_S=60 pytest tests/fault/test_stores_away.py` keeps both away for a minute; else it is a little longer than
the timeouts of all clients, members' sessions among them.
"""

from __future__ import annotations

import os
import random
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from fanfold_consumer.devstack import ApacheKafka, EmbeddedPostgres, apache_kafka_available, temporary_folder
from fanfold_consumer.devstack.ports import LOOPBACK, free_port
from fanfold_producer.kafka import KafkaConfig
from fanfold_sql import migrate
from fanfold_sql.pool import ACQUIRE_TIMEOUT_S
from tests.fault.chaos.links import Fault, Link
from tests.support.database import Database
from tests.support.kafka import Broker, Topic, create_topic, unique_name
from tests.support.members import SESSION_S, Member
from tests.support.rig import Rig, rig_for
from tests.support.wait import eventually

AWAY_S = float(os.environ.get("FANFOLD_AWAY_S", max(SESSION_S, ACQUIRE_TIMEOUT_S) + 1))
IN_FLIGHT = 50
# What a server may say that is short of something, shutting down or starting up, or that broke a statement off; and a
# damaged table, for which no result is to blame.
PASSING = {
    "25006": "a standby, or set to take no writes",
    "25P04": "transaction timeout",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "53100": "disk full",
    "53200": "out of memory, or of locks",
    "53300": "too many connections",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "57P01": "shut down by an administrator",
    "57P02": "another backend crashed",
    "57P03": "starting up",
    "58030": "input or output failed",
    "XX001": "data corrupted",
}


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, to be stopped."""
    server = EmbeddedPostgres(temporary_folder("away", enterable=True) / "data")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_rig(postgres: EmbeddedPostgres, broker: Broker, tmp_path: Path) -> Iterator[Rig]:
    migrate(postgres.dsn)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("create role away login in role fanfold_worker")
    database = Database(name="postgres", dsn=postgres.dsn, worker_dsn=make_conninfo(postgres.dsn, user="away"))
    with rig_for(broker.config, database, tmp_path, atomic=broker.is_real_kafka) as rig:
        yield rig


def test_postgres_killed_in_mid_flight_loses_nothing_and_parks_nothing(
    own_rig: Rig, postgres: EmbeddedPostgres, topic: Topic
) -> None:
    rig = own_rig
    member = rig.start(topic, concurrency=8, in_flight_max=100)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.02}) for n in range(400)], fold="sum")
    eventually(lambda: rig.count_results() >= 50)
    postgres.kill()
    member.await_event("store.unavailable")
    postgres.start()
    assert handle.result(60) == sum(range(400))
    member.await_event("store.recovered")
    assert rig.dead_letters() == []
    assert rig.notes.again() == 0, "what had finished was kept and committed when the server was back"
    assert member.stray_lines() == []
    rig.assert_sound()


def test_connections_cut_again_and_again_lose_nothing_and_count_nothing_twice(rig: Rig, topic: Topic) -> None:
    rig.start(topic, concurrency=8, in_flight_max=100)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.01}) for n in range(600)], fold="sum")
    eventually(lambda: rig.count_results() >= 20)
    cuts = 0
    with rig.database.connect() as connection:
        while cuts < 25 and rig.count_results() < 500:
            row = connection.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where application_name = 'fanfold' and datname = current_database() and state = 'active'"
            ).fetchone()
            assert row is not None
            cuts += row[0]
    assert cuts >= 3, "no connection was cut in mid-statement"
    assert handle.result(60) == sum(range(600))
    assert rig.dead_letters() == []
    rig.assert_sound()


def test_whatever_passes_by_itself_is_waited_out_and_parks_nothing(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic).await_partitions(topic.partitions)
    with rig.database.connect() as owner:
        owner.execute("create table public.said (sqlstate text)")
        owner.execute(
            "create function public.refuse() returns trigger language plpgsql security definer as $$ begin"
            " raise exception 'refused' using errcode = (select sqlstate from public.said); end $$"
        )
        for number, sqlstate in enumerate(PASSING):
            waits = len(member.events("store.unavailable"))
            owner.execute("delete from public.said")
            owner.execute("insert into public.said values (%s)", (sqlstate,))
            owner.execute(
                "create trigger refuse before insert on fanfold.result for each statement"
                " execute function public.refuse()"
            )
            rig.publish(topic, [("square", number)], thread_id=f"t-{sqlstate}")
            member.await_event("store.unavailable", count=waits + 1)
            owner.execute("drop trigger refuse on fanfold.result")
            rig.await_results(number + 1)
    assert rig.dead_letters() == []
    assert rig.notes.again() == 0
    assert member.alive


def test_a_postgres_that_takes_no_writes_for_a_while_is_waited_for(
    own_rig: Rig, postgres: EmbeddedPostgres, topic: Topic
) -> None:
    rig = own_rig
    member = rig.start(topic, concurrency=8, in_flight_max=IN_FLIGHT)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.01}) for n in range(200)], fold="sum")
    eventually(lambda: rig.count_results() >= 20)
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        # As after a failover, when clients reach the standby that is not promoted yet.
        admin.execute("alter system set default_transaction_read_only = on")
        admin.execute("select pg_reload_conf()")
        assert "read-only" in member.await_event("store.unavailable")["error"]
        admin.execute("set default_transaction_read_only = off")
        admin.execute("alter system reset default_transaction_read_only")
        admin.execute("select pg_reload_conf()")
    assert handle.result(60) == sum(range(200))
    assert rig.dead_letters() == []
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_a_commit_whose_answer_was_lost_is_made_again_and_counts_nothing_twice(
    database: Database, broker: Broker, topic: Topic, tmp_path: Path
) -> None:
    server = conninfo_to_dict(database.dsn)
    address = str(server["host"]), int(str(server["port"]))
    with Link(free_port(), lambda: address, random.Random(1)) as link:
        through = make_conninfo(database.worker_dsn, host=LOOPBACK, port=link.port)
        linked = Database(database.name, database.dsn, through)
        with rig_for(broker.config, linked, tmp_path, atomic=broker.is_real_kafka) as rig:
            # Who does not hear that its commit completed a fan-out publishes no fold: that waits for the lease. Not
            # prepared, so that the text that is looked for goes with the call and not ahead of it.
            member = rig.start_here(topic, batch_results_max=5, relay_lease_s=1.0, prepare=False).await_partitions()
            with link.during(Fault("cut_after_request", marker=b"commit_results", chance=0.5)):
                handle = rig.publish(topic, [("square", n) for n in range(100)], fold="sum")
                assert handle.result(40) == sum(n * n for n in range(100))
            assert link.hits["cut_after_request"] >= 3
            # It had been stored: the same call again found so, and nothing ran again.
            assert member.metric("fanfold_results_total", outcome="duplicate") > 0
            assert rig.notes.again() == 0
            assert rig.dead_letters() == []
            rig.assert_sound()


@pytest.fixture(scope="module")
def kafka() -> Iterator[ApacheKafka]:
    """A broker of these tests' own, to be stopped."""
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(f"needs an Apache Kafka of its own: {missing}")
    with ApacheKafka(temporary_folder("broker-away") / "kafka") as running:
        yield running


@pytest.fixture
def both(kafka: ApacheKafka, postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Rig]:
    """A rig whose stores are both the test's own."""
    kafka.start()
    migrate(postgres.dsn)
    database = Database(name="postgres", dsn=postgres.dsn, worker_dsn=postgres.dsn)
    with rig_for(KafkaConfig(kafka.bootstrap), database, tmp_path, atomic=True) as rig:
        yield rig


def _own_topic(kafka: ApacheKafka) -> Topic:
    return create_topic(Broker(kafka.bootstrap, "apache-kafka"), unique_name("away"), 4)


def _in_flight(member: Member) -> float:
    port = member.await_event("health.started")["port"]
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return max(float(line.split()[1]) for line in lines if line.startswith("fanfold_in_flight "))


def _await_missed_for(member: Member, seconds: float) -> None:
    def missed() -> bool:
        return any(event["away_s"] >= seconds for event in member.events("store.unavailable"))

    eventually(missed, seconds + 30, what=f"Postgres missed for {seconds:g} s")


def test_members_outlive_both_stores_being_away_longer_than_every_timeout(
    both: Rig, kafka: ApacheKafka, postgres: EmbeddedPostgres
) -> None:
    rig, topic = both, _own_topic(kafka)
    limits: dict[str, Any] = {"concurrency": 8, "in_flight_max": IN_FLIGHT, "poll_records_max": 20, "health_port": 0}
    members = [rig.start(topic, **limits), rig.start(topic, **limits)]
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.02}) for n in range(600)], fold="sum")
    eventually(lambda: rig.count_results() >= 50)
    kafka.kill()
    postgres.kill()
    for member in members:
        _await_missed_for(member, AWAY_S)
        assert _in_flight(member) <= IN_FLIGHT
    postgres.start()
    kafka.start()
    assert handle.result(90) == sum(range(600))
    assert all(member.alive for member in members)
    assert rig.dead_letters() == []
    assert rig.rows("select count(*) from fanfold.result where index = -1") == [(1,)]
    for member in members:
        assert member.stray_lines() == []
        assert member.unknown_events() == set()
        assert len(member.events("library.warned")) < 20 + AWAY_S
    rig.assert_sound()


def test_a_member_started_before_its_stores_says_what_it_waits_for_and_begins_when_they_are_there(
    both: Rig, kafka: ApacheKafka, postgres: EmbeddedPostgres
) -> None:
    rig, topic = both, _own_topic(kafka)
    handle = rig.publish(topic, [("square", n) for n in range(10)], fold="sum")
    postgres.stop()
    kafka.stop()
    member = rig.start(topic)
    port = str(conninfo_to_dict(postgres.dsn)["port"])
    assert port in member.await_event("store.unavailable")["error"]
    postgres.start()
    assert kafka.bootstrap in member.await_event("broker.unavailable")["error"]
    assert not member.events("fleet.started")
    kafka.start()
    assert handle.result(60) == 285
    assert member.stray_lines() == []


def test_a_broker_restart_in_mid_flight_loses_nothing(both: Rig, kafka: ApacheKafka) -> None:
    rig, topic = both, _own_topic(kafka)
    member = rig.start(topic, concurrency=8, in_flight_max=IN_FLIGHT, poll_records_max=20, batch_results_max=20)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.03}) for n in range(400)], fold="sum")
    eventually(lambda: rig.count_results() >= 50)
    kafka.kill()
    kafka.start()
    assert handle.result(90) == sum(range(400))
    assert member.alive
    assert rig.dead_letters() == []
    assert member.stray_lines() == []
    assert len(member.events("library.warned")) < 20
    rig.assert_sound()
