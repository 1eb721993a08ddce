"""How a member comes up, what it says when it cannot, and how it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fanfold_consumer.devstack import free_port
from fanfold_producer.kafka import KafkaConfig
from tests.support.database import Database, Server
from tests.support.kafka import Broker, Topic, unique_name
from tests.support.members import Member
from tests.support.rig import Rig, rig_for
from tests.support.wait import eventually


def nowhere(rig: Rig) -> str:
    """A database nobody listens at."""
    return f"postgresql://somebody@127.0.0.1:{free_port()}/away"


def error_of(member: Member) -> str:
    """The paragraph on stderr with which a member ended."""
    assert member.await_exit() == 1
    assert "Traceback" not in member.log()
    return member.log()


def test_a_member_whose_postgres_is_away_says_why_and_stops_when_told_to(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic, database_url=nowhere(rig))
    waiting = member.await_event("store.unavailable", 5.0)
    assert "refused" in waiting["error"]
    assert not member.events("fleet.started")
    assert member.stop() == 0
    member.await_event("fleet.stopped")


def test_a_member_whose_kafka_is_away_says_so_and_stops_when_told_to(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic, kafka=KafkaConfig(f"127.0.0.1:{free_port()}"))
    member.await_event("broker.unavailable", 15.0)
    assert member.stop() == 0
    assert member.stray_lines() == []


def test_a_topic_that_is_not_there_ends_a_member_with_the_command_that_makes_it(rig: Rig, topic: Topic) -> None:
    missing = replace(topic, name=unique_name("missing"))
    error = error_of(rig.start(topic, missing))
    assert f"--create --topic {missing.name}" in error


def test_a_database_without_our_schema_ends_a_member_with_the_command_that_makes_it(
    rig: Rig, topic: Topic, empty_database: str
) -> None:
    assert "fanfold migrate" in error_of(rig.start(topic, database_url=empty_database))


def test_a_setting_that_librdkafka_does_not_know_ends_a_member_with_its_name(rig: Rig, topic: Topic) -> None:
    kafka = KafkaConfig(rig.kafka.bootstrap_servers, {"consumer.no.such.setting": "1"})
    assert "no.such.setting" in error_of(rig.start(topic, kafka=kafka))


def test_a_database_url_that_is_none_ends_a_member_before_anything_else(rig: Rig, topic: Topic) -> None:
    error = error_of(rig.start(topic, database_url="no url at all", in_flight_max=0))
    assert "--database-url" in error
    assert "--in-flight-max" in error


def test_work_published_before_the_first_member_starts_is_done(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("square", n) for n in range(10)], fold="sum")
    rig.start(topic)
    assert handle.result(20) == 285


def test_a_member_without_the_right_to_claim_fails_instead_of_idling(
    broker: Broker, postgres_server: Server, database: Database, topic: Topic, tmp_path: Path
) -> None:
    with database.connect() as owner:
        owner.execute("revoke execute on all functions in schema fanfold from fanfold_worker")
        owner.execute("grant execute on function fanfold.outbox_stats() to fanfold_worker")
    with rig_for(broker.config, database, tmp_path, atomic=False) as rig:
        error = error_of(rig.start(topic))
        assert "permission denied for function" in error


def test_what_completes_during_a_drain_is_published_before_the_member_is_gone(rig: Rig, topic: Topic) -> None:
    """Its lease would keep the others from it for half a minute."""
    handle = rig.publish(topic, [("hold-sync", {"n": n, "gate": "all"}) for n in range(5)], fold="sum")
    member = rig.start(topic)
    eventually(lambda: len(rig.notes.calls()) == 5)
    member.terminate()
    member.await_event("fleet.drain_started")
    rig.notes.open_gate("all")
    assert member.await_exit() == 0
    assert rig.rows("select from fanfold.outbox") == []
    assert {state.owner for state in rig.partitions().values()} == {None}
    assert not member.events("fleet.drain_exceeded")

    rig.start(topic)
    assert handle.result(20) == 10
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_a_hanging_sync_handler_does_not_keep_a_member_beyond_its_drain(rig: Rig, topic: Topic) -> None:
    rig.publish(topic, [("hold-sync", {"n": 1, "gate": "never"})])
    member = rig.start(topic, drain_s=0.5)
    eventually(rig.notes.calls)
    member.terminate()
    assert member.await_exit(8.0) == 0
    assert member.events("fleet.drain_exceeded")


def test_every_event_a_member_logs_is_in_the_list_and_shows_no_payload(rig: Rig, topic: Topic) -> None:
    secret = "xyzzy-payload"
    handle = rig.publish(topic, [("square", secret), ("square", 2)], fold="sum")
    member = rig.start(topic)
    assert handle.result(20) == 4
    assert member.stop() == 0
    assert secret not in member.log()
    assert member.unknown_events() == set()
    assert member.stray_lines() == []
