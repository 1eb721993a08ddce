"""Publish fan-outs to Kafka, from anywhere or from inside a Postgres transaction, and wait for their outcome."""

from __future__ import annotations

from fanfold_producer.claim_store import ClaimStore
from fanfold_producer.enqueue import Enqueued, aenqueue, enqueue
from fanfold_producer.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ClaimCheckBroken,
    ClaimStoreNeeded,
    ClaimStoreRefused,
    ClaimStoreUnavailable,
    DatabaseNeeded,
    FanOutCancelled,
    FanOutExpired,
    FanOutFailed,
    FanOutStale,
    FanOutUnknown,
    FoldFailed,
    KafkaConfigError,
    ProducerError,
    PublishError,
    TaskFailure,
    TopicMissing,
)
from fanfold_producer.handle import FanOutHandle
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics, create_topics
from fanfold_producer.publisher import Publisher
from fanfold_producer.record import Record
from fanfold_producer.sender import Sender
from fanfold_schemas import Send

__all__ = [
    "BrokerRefused",
    "BrokerUnavailable",
    "ClaimCheckBroken",
    "ClaimStore",
    "ClaimStoreNeeded",
    "ClaimStoreRefused",
    "ClaimStoreUnavailable",
    "DatabaseNeeded",
    "Enqueued",
    "FanOutCancelled",
    "FanOutExpired",
    "FanOutFailed",
    "FanOutHandle",
    "FanOutStale",
    "FanOutUnknown",
    "FoldFailed",
    "KafkaConfig",
    "KafkaConfigError",
    "ProducerError",
    "PublishError",
    "Publisher",
    "Record",
    "Send",
    "Sender",
    "TaskFailure",
    "TopicMissing",
    "aenqueue",
    "cluster_and_topics",
    "create_topics",
    "enqueue",
]
