"""What Kafka says about itself: brokers, one topic, their settings, and whether the clients' settings are accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.doctor.findings import Unknown
from fanfold_producer.client import (
    DELIVERY_TIMEOUT_S,
    LINGER_MS,
    QUEUE_BYTES_MAX,
    QUEUE_RECORDS_MAX,
    new_producer,
    producer_settings,
)
from fanfold_producer.errors import BrokerUnavailable, KafkaConfigError, ProducerError
from fanfold_producer.kafka import KafkaConfig, client_error
from fanfold_producer.transaction import TRANSACTION_TIMEOUT_MS

# What librdkafka takes when nothing is said.
_SESSION_TIMEOUT_MS = 45_000
_HEARTBEAT_INTERVAL_MS = 3_000

# Its constructors have no type information.
_Spec: Any = OffsetSpec


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic. Of its partitions, the one with the fewest copies counts.

    Attributes:
        settings: a text: why they are not known. So with the next.
        newest_ahead_s: how far its newest timestamp is ahead of this machine's clock.
    """

    partitions: int
    replication: int
    in_sync: int
    settings: Mapping[str, str] | str
    newest_ahead_s: float | str

    def setting(self, name: str) -> str:
        return _known(self.settings, name)


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What the clients will use. `session_timeout_ms` None: the broker decides (KIP-848)."""

    session_timeout_ms: int | None
    heartbeat_interval_ms: int
    message_bytes_max: int
    transaction_timeout_ms: int


@dataclass(frozen=True, slots=True)
class KafkaFacts:
    """What was found; a text in place of a part: why it is not known.

    Attributes:
        broker: the settings of one broker, for all.
        clients: a text: what librdkafka has against their settings.
    """

    cluster_id: str
    brokers: int
    topic: TopicFacts | str
    broker: Mapping[str, str] | str
    clients: ClientFacts | str

    def the_topic(self) -> TopicFacts:
        if isinstance(self.topic, str):
            raise Unknown("see kafka.topic")
        return self.topic

    def the_clients(self) -> ClientFacts:
        if isinstance(self.clients, str):
            raise Unknown("see kafka.client-settings")
        return self.clients

    def broker_setting(self, name: str) -> str:
        return _known(self.broker, name)


def _known(settings: Mapping[str, str] | str, name: str) -> str:
    if isinstance(settings, str):
        raise Unknown(settings)
    if name not in settings:
        raise Unknown(f"the broker does not say what {name} is")
    return settings[name]


def read_kafka(config: FleetConfig, topic: str, timeout_s: float, clock: Callable[[], float]) -> KafkaFacts:
    """Everything; blocks, up to `timeout_s` and a second a question. Raises `ProducerError` if nobody answers."""
    config = replace(config, kafka=config.kafka.muted())
    asked = _Asked(config.kafka, timeout_s)
    cluster = asked.resolve("describe the cluster", asked.admin.describe_cluster(request_timeout=timeout_s))
    return KafkaFacts(
        cluster_id=str(cluster.cluster_id),
        brokers=len(cluster.nodes),
        topic=_read_topic(asked, topic, clock),
        broker=_read_settings(asked, ResourceType.BROKER, str(cluster.nodes[0].id)),
        clients=read_clients(config),
    )


def read_clients(config: FleetConfig) -> ClientFacts | str:
    """The settings of a member's clients. Both are made, and look for the cluster, but join and write nothing."""
    consumer = config.consumer_settings()
    producer = producer_settings(
        config.kafka,
        linger_ms=LINGER_MS,
        queue_records_max=QUEUE_RECORDS_MAX,
        queue_bytes_max=QUEUE_BYTES_MAX,
        delivery_timeout_s=DELIVERY_TIMEOUT_S,
        required={},
    )
    try:
        Consumer(consumer).close()
        new_producer(producer, lambda _: None)
    except KafkaConfigError as error:
        return "; ".join(error.problems)
    except KafkaException as error:
        text: str = error.args[0].str()
        return text
    by_broker = str(consumer.get("group.protocol", "")).lower() == "consumer"
    return ClientFacts(
        None if by_broker else int(str(consumer.get("session.timeout.ms", _SESSION_TIMEOUT_MS))),
        int(str(consumer.get("heartbeat.interval.ms", _HEARTBEAT_INTERVAL_MS))),
        int(producer["message.max.bytes"]),
        int(producer.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)),
    )


class _Asked:
    """A client and its questions, all under one deadline. It must outlive their futures."""

    def __init__(self, kafka: KafkaConfig, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._kafka = kafka
        self._deadline = time.monotonic() + timeout_s
        try:
            self.admin = AdminClient(kafka.admin())
        except KafkaException as error:
            raise KafkaConfigError([error.args[0].str()]) from error

    def resolve(self, what: str, future: Future[Any]) -> Any:
        try:
            # librdkafka's own timeout comes first as a rule; the second more lets its better message through.
            return future.result(max(0.0, self._deadline - time.monotonic()) + 1.0)
        except FutureTimeout as error:
            raise BrokerUnavailable(
                f"cannot {what} at {self._kafka.bootstrap_servers}: no answer within {self.timeout_s:g} s"
            ) from error
        except KafkaException as error:
            raise client_error(what, self._kafka, error) from error


def _read_topic(asked: _Asked, topic: str, clock: Callable[[], float]) -> TopicFacts | str:
    futures = asked.admin.describe_topics(TopicCollection([topic]), request_timeout=asked.timeout_s)
    try:
        described = asked.resolve(f"describe topic {topic}", futures[topic])
    except ProducerError as error:
        return str(error)
    partitions = described.partitions
    return TopicFacts(
        partitions=len(partitions),
        replication=min(len(partition.replicas) for partition in partitions),
        in_sync=min(len(partition.isr) for partition in partitions),
        settings=_read_settings(asked, ResourceType.TOPIC, topic),
        newest_ahead_s=_read_newest(asked, topic, len(partitions), clock),
    )


def _read_settings(asked: _Asked, kind: ResourceType, name: str) -> Mapping[str, str] | str:
    (future,) = asked.admin.describe_configs([ConfigResource(kind, name)], request_timeout=asked.timeout_s).values()
    try:
        entries = asked.resolve(f"read the settings of {kind.name.lower()} {name}", future)
    except ProducerError as error:
        return str(error)
    return {key: entry.value for key, entry in entries.items() if entry.value is not None}


def _read_newest(asked: _Asked, topic: str, partitions: int, clock: Callable[[], float]) -> float | str:
    """A record needs no reading for it: brokers index timestamps."""
    wanted = {TopicPartition(topic, partition): _Spec.max_timestamp() for partition in range(partitions)}
    try:
        # Without it the client may not know the topic's leaders yet, and looks again only after three seconds.
        asked.admin.list_topics(topic, timeout=asked.timeout_s)
    except KafkaException as error:
        return str(error.args[0].str())
    futures = asked.admin.list_offsets(wanted, request_timeout=asked.timeout_s)
    try:
        newest_ms = max(asked.resolve(f"list offsets of {topic}", future).timestamp for future in futures.values())
    except ProducerError as error:
        return str(error)
    return newest_ms / 1000 - clock() if newest_ms >= 0 else "the topic is empty, or the broker does not say"
