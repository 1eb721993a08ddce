"""Whether a broker is really there: one record written, read back, and no trace left."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fanfold_consumer.devstack.client_config import Setting
from fanfold_consumer.devstack.errors import ServerFailed

_STEP_TIMEOUT_S = 10.0


def probe_broker(bootstrap: str, *, timeout_s: float, client_config: Mapping[str, Setting] | None = None) -> None:
    """Create a topic, send a record through it, commit its offset for a group, and delete both again.

    Committing makes a fresh broker create its internal offsets topic now, not under the first consumer.

    Raises:
        ServerFailed: it did not work within `timeout_s`; the message says which step, and what Kafka said.
    """
    deadline = time.monotonic() + timeout_s
    name = f"fanfold-probe-{uuid.uuid4().hex[:12]}"
    common: dict[str, Setting] = {"bootstrap.servers": bootstrap, "log_level": 0, **(client_config or {})}
    admin = AdminClient(common)
    step = "describe the cluster"
    try:
        admin.describe_cluster(request_timeout=_STEP_TIMEOUT_S).result()
        step = f"create the topic {name}"
        admin.create_topics([NewTopic(name, 1, 1)], operation_timeout=_STEP_TIMEOUT_S)[name].result()
        step = f"write a record to {name}"
        _write(common, name, deadline)
        step = f"read the record back from {name}"
        _read(common, name, deadline)
        step = f"delete {name}"
        admin.delete_topics([name], operation_timeout=_STEP_TIMEOUT_S)[name].result()
        admin.delete_consumer_groups([name])[name].result()
    except (KafkaException, TimeoutError) as error:
        raise ServerFailed(f"the broker at {bootstrap} could not {step}: {error}") from error


def _write(common: Mapping[str, Setting], topic: str, deadline: float) -> None:
    left_ms = max(1, int((deadline - time.monotonic()) * 1_000))
    failures: list[KafkaException] = []
    producer = Producer({**common, "message.timeout.ms": left_ms})
    producer.produce(
        topic,
        b"probe",
        on_delivery=lambda error, _: failures.append(KafkaException(error)) if error else None,
    )
    producer.flush()
    if failures:
        raise failures[0]


def _read(common: Mapping[str, Setting], topic: str, deadline: float) -> None:
    consumer = Consumer({**common, "group.id": topic, "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                _commit(consumer, topic, deadline)
                return
        raise TimeoutError("no record arrived")
    finally:
        consumer.close()


def _commit(consumer: Consumer, topic: str, deadline: float) -> None:
    while True:
        try:
            consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        except KafkaException as error:
            # While the offsets topic is being created there is no coordinator to commit to.
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
        else:
            return
