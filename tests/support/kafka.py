"""Kafka as the tests look at it: topics made and confirmed, records sent and read without a group."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fanfold_consumer.devstack import Setting, prefixed
from fanfold_producer.kafka import KafkaConfig
from tests.support.wait import eventually

_TIMEOUT_S = 15.0
_ANY_PARTITION = -1


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker of this test run. The configs are what its clients need besides the address."""

    bootstrap: str
    kind: str
    consumer_config: dict[str, Setting] = field(default_factory=dict)
    producer_config: dict[str, Setting] = field(default_factory=dict)

    @property
    def config(self) -> KafkaConfig:
        """How Fanfold's own clients reach it."""
        return KafkaConfig(self.bootstrap, prefixed(self.consumer_config, self.producer_config))

    @property
    def is_real_kafka(self) -> bool:
        return self.kind != "embedded"

    def admin(self) -> AdminClient:
        """A new admin client. Keep it until its futures are resolved."""
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def producer(self, **settings: Setting) -> Producer:
        """A producer; settings are given as librdkafka names with `_` for `.`."""
        config = {"bootstrap.servers": self.bootstrap, **self.producer_config, **_dotted(settings)}
        return Producer(config)

    def consumer(self, group: str | None = None, **settings: Setting) -> Consumer:
        """A consumer that commits nothing by itself."""
        config: dict[str, Setting] = {
            "bootstrap.servers": self.bootstrap,
            "group.id": group or f"test-{uuid.uuid4().hex[:12]}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
        return Consumer({**config, **self.consumer_config, **_dotted(settings)})


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic made for one test."""

    name: str
    partitions: int
    broker: Broker

    def __str__(self) -> str:
        return self.name

    def send(self, values: Iterable[bytes], *, partition: int | None = None) -> None:
        """Write records and wait until the broker has them all."""
        failures: list[str] = []
        producer = self.broker.producer()
        for value in values:
            producer.produce(
                self.name,
                value,
                partition=_ANY_PARTITION if partition is None else partition,
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )
        producer.flush()
        assert not failures, f"{len(failures)} records were not written to {self.name}: {failures[0]}"

    def records(self, count: int, *, timeout_s: float = _TIMEOUT_S) -> list[Message]:
        """Read `count` records from the beginning of all partitions, belonging to no group."""
        return read_records(self.broker, self.name, self.partitions, count, timeout_s=timeout_s)

    def end_offsets(self) -> dict[int, int]:
        """The next offset each partition will give out."""
        consumer = self.broker.consumer()

        def ends() -> dict[int, int] | None:
            try:
                return {
                    p: consumer.get_watermark_offsets(TopicPartition(self.name, p), timeout=_TIMEOUT_S)[1]
                    for p in range(self.partitions)
                }
            except KafkaException as error:
                # The metadata may name a leader a moment before that broker knows that it is one.
                if error.args[0].name() != "NOT_LEADER_FOR_PARTITION":
                    raise
                return None

        try:
            return eventually(ends, what=f"end offsets of {self.name}") or {}
        finally:
            consumer.close()

    def recreate(self) -> None:
        """Delete it and make it anew: the same name, another topic id, offsets from zero."""
        delete_topic(self.broker, self.name)
        create_topic(self.broker, self.name, self.partitions)


def _dotted(settings: dict[str, Setting]) -> dict[str, Setting]:
    return {name.replace("_", "."): value for name, value in settings.items()}


def unique_name(label: str = "test") -> str:
    return f"{label}-{uuid.uuid4().hex[:12]}"


def create_topic(broker: Broker, name: str, partitions: int) -> Topic:
    """Make a topic and return when every partition has a leader."""
    admin = broker.admin()
    new = NewTopic(name, partitions, 1)

    def created() -> bool:
        try:
            admin.create_topics([new], operation_timeout=_TIMEOUT_S)[name].result()
        except KafkaException as error:
            # An earlier topic of this name is still being deleted.
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
            return False
        return True

    eventually(created, what=f"{name} created")
    eventually(lambda: _leaders(admin, name) == partitions, what=f"{name} has leaders")
    return Topic(name, partitions, broker)


def delete_topic(broker: Broker, name: str) -> None:
    """Delete a topic and return when it is gone; one that is gone already is fine."""
    admin = broker.admin()
    try:
        admin.delete_topics([name], operation_timeout=_TIMEOUT_S)[name].result()
    except KafkaException as error:
        if error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
            raise
    eventually(lambda: name not in admin.list_topics(timeout=_TIMEOUT_S).topics, what=f"{name} deleted")


def _leaders(admin: AdminClient, name: str) -> int:
    topic = admin.list_topics(timeout=_TIMEOUT_S).topics.get(name)
    if topic is None or topic.error is not None:
        return 0
    return sum(1 for partition in topic.partitions.values() if partition.leader >= 0)


def read_records(
    broker: Broker, topic: str, partitions: int, count: int, *, timeout_s: float = _TIMEOUT_S
) -> list[Message]:
    """The first `count` records found from the beginning of all partitions; fails when there are fewer."""
    consumer = broker.consumer()
    found: list[Message] = []
    deadline = time.monotonic() + timeout_s
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
        while len(found) < count and time.monotonic() < deadline:
            for message in consumer.consume(count - len(found), 0.1):
                error = message.error()
                assert error is None, f"reading {topic}: {error}"
                found.append(message)
    finally:
        consumer.close()
    assert len(found) == count, f"{len(found)} of {count} records of {topic} arrived within {timeout_s:g} s"
    return found
