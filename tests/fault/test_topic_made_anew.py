"""A topic made anew where leaders were elected before: to a client, its leaders are older than those it knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fanfold_consumer.devstack import ApacheKafka, apache_kafka_available, temporary_folder
from fanfold_producer.kafka import KafkaConfig
from tests.support.database import Database
from tests.support.kafka import Broker, create_topic, unique_name
from tests.support.rig import rig_for

PARTITIONS = 4


@pytest.fixture
def kafka() -> Iterator[ApacheKafka]:
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(f"needs an Apache Kafka of its own: {missing}")
    with ApacheKafka(temporary_folder("anew") / "kafka") as running:
        yield running


def test_it_is_read_by_a_member_that_had_read_the_old_one(
    kafka: ApacheKafka, database: Database, tmp_path: Path
) -> None:
    topic = create_topic(Broker(kafka.bootstrap, "apache-kafka"), unique_name("anew"), PARTITIONS)
    with rig_for(KafkaConfig(kafka.bootstrap), database, tmp_path, atomic=True) as rig:
        # Read to different ends: some offsets of the old log are beyond the new one, some are not.
        before = rig.build(topic, [("square", n) for n in range(30)], thread_id="before")
        for partition in range(PARTITIONS):
            rig.write(before.records[: 8 * partition], partition=partition)
        member = rig.start(topic).await_partitions(PARTITIONS)
        rig.await_results(24)
        for _ in range(2):
            kafka.restart()
        topic.recreate()
        member.await_event("topic.recreated", 60, count=PARTITIONS)
        after = rig.build(topic, [("square", n) for n in range(40)], thread_id="after", fold="sum")
        for partition in range(PARTITIONS):
            rig.write(after.records[partition::PARTITIONS], partition=partition)
        assert rig.handle(after).result(60) == sum(n * n for n in range(40))
        assert member.alive
        assert member.events("partition.stopped") == []
        rig.assert_sound()
