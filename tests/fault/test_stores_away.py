"""Postgres or Kafka away for a while: nothing dies, nothing is parked, everything completes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fanfold_consumer.devstack import ApacheKafka, EmbeddedPostgres, apache_kafka_available, temporary_folder
from fanfold_producer.kafka import KafkaConfig
from fanfold_sql import migrate
from tests.support.database import Database
from tests.support.kafka import Broker, Topic, create_topic, unique_name
from tests.support.rig import Rig, rig_for
from tests.support.wait import eventually


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


def test_a_member_started_before_its_stores_waits_and_says_so(
    postgres: EmbeddedPostgres, broker: Broker, topic: Topic, tmp_path: Path
) -> None:
    migrate(postgres.dsn)
    database = Database(name="postgres", dsn=postgres.dsn, worker_dsn=postgres.dsn)
    with rig_for(broker.config, database, tmp_path, atomic=broker.is_real_kafka) as rig:
        handle = rig.publish(topic, [("square", n) for n in range(10)], fold="sum")
        postgres.stop()
        member = rig.start(topic)
        waiting = member.await_event("store.unavailable")
        assert "connect" in waiting["error"] or "connection" in waiting["error"]
        assert not member.events("fleet.started")
        postgres.start()
        assert handle.result(60) == 285


def test_a_broker_restart_in_mid_flight_loses_nothing(database: Database, tmp_path: Path) -> None:
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(f"needs an Apache Kafka of its own: {missing}")
    kafka = ApacheKafka(temporary_folder("broker-away") / "kafka")
    kafka.start()
    try:
        own = Broker(kafka.bootstrap, "apache-kafka")
        topic = create_topic(own, unique_name("restart"), 4)
        with rig_for(KafkaConfig(kafka.bootstrap), database, tmp_path, atomic=True) as rig:
            member = rig.start(topic, concurrency=8, in_flight_max=50, poll_records_max=20, batch_results_max=20)
            handle = rig.publish(topic, [("slow", {"n": n, "s": 0.03}) for n in range(600)], fold="sum")
            eventually(lambda: rig.count_results() >= 50)
            kafka.kill()
            kafka.start()
            assert handle.result(90) == sum(range(600))
            assert member.alive
            assert rig.dead_letters() == []
            assert member.stray_lines() == []
            assert len(member.events("library.warned")) < 20
            rig.assert_sound()
    finally:
        kafka.stop()
