"""Whether a topic's log still has all that was ever written to it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeout

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from fanfold_consumer.replay.plan import LogRange
from fanfold_producer.errors import KafkaConfigError
from fanfold_producer.kafka import KafkaConfig

_TIMEOUT_S = 10.0


def what_is_gone(kafka: KafkaConfig, topic: str, logs: Mapping[int, LogRange]) -> str | None:
    """Why a task may have been in the log and is not any more; None: all that was written is there. Blocks."""
    begun = [f"{topic}-{partition} begins at {log.low}" for partition, log in sorted(logs.items()) if log.low > 0]
    if begun:
        return f"retention or a deletion took the beginning ({', '.join(begun[:3])}{', ...' if begun[3:] else ''})"
    policy = _cleanup_policy(kafka, topic)
    if policy is None:
        return "the broker does not say whether the topic is compacted"
    return f"the topic is compacted (cleanup.policy={policy})" if "compact" in policy else None


def _cleanup_policy(kafka: KafkaConfig, topic: str) -> str | None:
    try:
        admin = AdminClient(kafka.admin())
    except KafkaException as error:
        raise KafkaConfigError([error.args[0].str()]) from error
    resource = ConfigResource(ResourceType.TOPIC, topic)
    (future,) = admin.describe_configs([resource], request_timeout=_TIMEOUT_S).values()
    try:
        entry = future.result(_TIMEOUT_S).get("cleanup.policy")
    except (FutureTimeout, KafkaException):
        return None
    return None if entry is None else entry.value
