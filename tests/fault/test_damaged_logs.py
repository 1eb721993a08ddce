"""Logs that lost their end or cannot be read: the partition stops, the others go on, and an operator decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fanfold_consumer.devstack import ApacheKafka, apache_kafka_available, temporary_folder
from fanfold_producer import Record
from fanfold_producer.kafka import KafkaConfig
from tests.support.database import Database
from tests.support.kafka import Broker, Topic, create_topic, unique_name
from tests.support.kafka_log import PartitionLog
from tests.support.members import Member
from tests.support.operator import Operator
from tests.support.rig import Rig, rig_for
from tests.support.wait import eventually

BATCH = 10
DAMAGED, BROKEN, OTHER = 0, 1, 2


@pytest.fixture(scope="module")
def kafka() -> Iterator[ApacheKafka]:
    """A broker of these tests' own, to be stopped."""
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(f"needs an Apache Kafka of its own: {missing}")
    with ApacheKafka(temporary_folder("damaged") / "kafka") as running:
        yield running


@pytest.fixture
def own_rig(kafka: ApacheKafka, database: Database, tmp_path: Path) -> Iterator[Rig]:
    kafka.start()
    with rig_for(KafkaConfig(kafka.bootstrap), database, tmp_path, atomic=True) as rig:
        yield rig


@pytest.fixture
def own_topic(kafka: ApacheKafka) -> Topic:
    kafka.start()
    return create_topic(Broker(kafka.bootstrap, "apache-kafka"), unique_name("damaged"), 3)


@pytest.fixture
def own_operator(
    kafka: ApacheKafka, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(Broker(kafka.bootstrap, "apache-kafka"), database, monkeypatch, capsys)


def _write(topic: Topic, records: Sequence[Record], *, partition: int = DAMAGED, compression: str = "none") -> None:
    """In batches of `BATCH`, all to a partition that is to be damaged."""
    for start in range(0, len(records), BATCH):
        producer = topic.broker.producer(compression_type=compression, linger_ms=200)
        for record in records[start : start + BATCH]:
            headers: list[tuple[str, str | bytes | None]] = [*record.headers]
            producer.produce(topic.name, record.value, record.key, partition, headers=headers)
        assert producer.flush(15) == 0


def _on_disk(kafka: ApacheKafka, topic: Topic, change: Callable[[PartitionLog], object]) -> None:
    kafka.stop()
    change(PartitionLog(kafka, topic.name, DAMAGED))
    kafka.start()


def _await_stop(member: Member, partition: int = DAMAGED) -> dict[str, object]:
    return member.await_event("partition.stopped", 30, partition=partition)


def test_batches_that_cannot_be_read_stop_their_partitions_until_they_are_skipped(
    own_rig: Rig, own_topic: Topic, own_operator: Operator, kafka: ApacheKafka
) -> None:
    rig, topic, operator = own_rig, own_topic, own_operator
    built = rig.build(topic, [("square", n) for n in range(9 * BATCH)], fold="sum")
    _write(topic, built.records[: 4 * BATCH])
    _write(topic, built.records[4 * BATCH : 8 * BATCH], partition=BROKEN, compression="gzip")
    kafka.stop()
    # Bits that turned over, and two batches in a row of something whose compression is broken.
    PartitionLog(kafka, topic.name, DAMAGED).damage(1, mend_checksum=False)
    for number in (1, 2):
        PartitionLog(kafka, topic.name, BROKEN).damage(number, mend_checksum=True)
    kafka.start()
    member = rig.start(topic)
    for partition, reason in ((DAMAGED, "CRC32C"), (BROKEN, "Decompression")):
        stopped = _await_stop(member, partition)
        assert stopped["stopped"] == "unreadable"
        assert reason in str(stopped["why"])
    # What is before the batches and the other partition are done; nothing behind a batch is taken for next.
    rig.write(built.records[8 * BATCH :], partition=OTHER)
    rig.await_results(3 * BATCH)
    eventually(lambda: [rig.partitions()[p].next_offset for p in (DAMAGED, BROKEN)] == [BATCH, BATCH])

    at = ["--group", rig.group, "--topic", topic.name]
    shown = operator.run("status", "--group", rig.group)
    assert shown.out.count("unreadable") == 2
    assert f"fanfold resolve --group {rig.group} --topic {topic.name}" in shown.err
    listed = operator.run("resolve", *at, "--json").json["partitions"]
    assert [(p["partition"], p["current_offset"], p["stopped"]) for p in listed] == [
        (DAMAGED, BATCH, "unreadable"),
        (BROKEN, BATCH, "unreadable"),
    ]
    assert "CRC32C" in listed[0]["stopped_because"]

    planned = operator.run("resolve", *at, "--skip-batch", "--json").json
    assert planned["executed"] is False
    assert [(p["new_offset"], p["given_up"]) for p in planned["partitions"]] == [
        (2 * BATCH, [[BATCH, 2 * BATCH]]),
        (3 * BATCH, [[BATCH, 3 * BATCH]]),
    ]
    assert rig.partitions()[DAMAGED].stopped == "unreadable"
    ran = operator.run("resolve", *at, "--skip-batch", "--execute")
    assert ran.status == 0
    assert ran.err.count("offsets.given_up") == 2
    assert "10 offsets (10 to 19) are passed over unread" in ran.out
    rig.await_results(6 * BATCH)
    assert rig.partitions()[DAMAGED].stopped is None
    assert rig.dead_letters() == []
    assert rig.notes.again() == 0
    assert member.alive
    assert member.unknown_events() == set()


def test_a_batch_that_was_mended_goes_on_where_it_stopped_and_gives_nothing_up(
    own_rig: Rig, own_topic: Topic, own_operator: Operator, kafka: ApacheKafka
) -> None:
    rig, topic = own_rig, own_topic
    built = rig.build(topic, [("square", n) for n in range(3 * BATCH)], fold="sum")
    _write(topic, built.records)
    _on_disk(kafka, topic, lambda log: log.damage(1, mend_checksum=False))
    member = rig.start(topic)
    _await_stop(member)
    eventually(lambda: rig.partitions()[DAMAGED].stopped == "unreadable")
    at = ["--group", rig.group, "--topic", topic.name]
    # Turned over once more, the bits are what they were: as from another replica.
    _on_disk(kafka, topic, lambda log: log.damage(1, mend_checksum=False))
    refused = own_operator.run("resolve", *at, "--skip-batch")
    assert refused.status == 1
    assert "--retry" in refused.err
    assert own_operator.run("resolve", *at, "--retry", "--execute").status == 0
    assert rig.handle(built).result(40) == sum(n * n for n in range(3 * BATCH))
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_a_log_that_is_cut_off_under_a_member_stops_its_partition_for_every_later_owner_too(
    own_rig: Rig, own_topic: Topic, own_operator: Operator, kafka: ApacheKafka
) -> None:
    rig, topic = own_rig, own_topic
    lost = rig.build(topic, [("square", n) for n in range(4 * BATCH)], fold="sum")
    _write(topic, lost.records)
    first = rig.start(topic)
    assert rig.handle(lost).result(30)
    eventually(lambda: rig.partitions()[DAMAGED].next_offset == 4 * BATCH)
    _on_disk(kafka, topic, lambda log: log.cut_off(2))
    stopped = _await_stop(first)
    assert (stopped["stopped"], stopped["next_offset"]) == ("gone", 4 * BATCH)
    eventually(lambda: rig.partitions()[DAMAGED].stopped == "gone")
    # The log grows past the offset again: with other records, so going on there would skip twenty of them.
    new = rig.build(topic, [("square", n) for n in range(3 * BATCH)], thread_id="t2", fold="sum")
    _write(topic, new.records)
    assert first.stop() == 0
    second = rig.start(topic)
    assert _await_stop(second)["stopped"] == "gone"
    rig.write(rig.build(topic, [("square", n) for n in range(5)], thread_id="t3").records, partition=OTHER)
    rig.await_results(4 * BATCH + 5)

    at = ["--group", rig.group, "--topic", topic.name]
    listed = own_operator.run("resolve", *at)
    assert "the log was cut off" in listed.err
    assert own_operator.run("resolve", *at, "--to-earliest", "--execute").status == 0
    assert rig.handle(new).result(40) == sum(n * n for n in range(3 * BATCH))
    assert rig.notes.again() == 0, "what was left of the log was known"
    rig.assert_sound()


def test_a_log_that_ends_before_the_offset_stops_its_partition_at_the_claim(
    own_rig: Rig, own_topic: Topic, own_operator: Operator, kafka: ApacheKafka
) -> None:
    rig, topic = own_rig, own_topic
    built = rig.build(topic, [("square", n) for n in range(3 * BATCH)], fold="sum")
    _write(topic, built.records)
    first = rig.start(topic)
    assert rig.handle(built).result(30)
    eventually(lambda: rig.partitions()[DAMAGED].next_offset == 3 * BATCH)
    assert first.stop() == 0
    _on_disk(kafka, topic, lambda log: log.cut_off(1))
    second = rig.start(topic)
    assert _await_stop(second)["next_offset"] == 3 * BATCH
    at = ["--group", rig.group, "--topic", topic.name]
    eventually(lambda: rig.partitions()[DAMAGED].stopped == "gone")
    assert own_operator.run("resolve", *at, "--to-latest", "--execute").status == 0
    more = rig.build(topic, [("square", n) for n in range(5)], thread_id="t2", fold="sum")
    _write(topic, more.records)
    assert rig.handle(more).result(30) == 30
