"""Servers for demos, development and tests: PostgreSQL and a broker on loopback, nothing to install."""

from __future__ import annotations

from fanfold_consumer.devstack.apache_kafka import ApacheKafka
from fanfold_consumer.devstack.client_config import (
    EMBEDDED_CONSUMER_CONFIG,
    EMBEDDED_PRODUCER_CONFIG,
    Setting,
    prefixed,
)
from fanfold_consumer.devstack.embedded_broker import EmbeddedBroker
from fanfold_consumer.devstack.errors import DevStackError, ExtraMissing, ServerFailed
from fanfold_consumer.devstack.maven import apache_kafka_available
from fanfold_consumer.devstack.ports import free_port
from fanfold_consumer.devstack.postgres import EmbeddedPostgres, postgres_installations
from fanfold_consumer.devstack.process import temporary_folder
from fanfold_consumer.devstack.stack import (
    ENV_DATABASE_URL,
    BrokerChoice,
    BrokerKind,
    Stack,
)

__all__ = [
    "EMBEDDED_CONSUMER_CONFIG",
    "EMBEDDED_PRODUCER_CONFIG",
    "ENV_DATABASE_URL",
    "ApacheKafka",
    "BrokerChoice",
    "BrokerKind",
    "DevStackError",
    "EmbeddedBroker",
    "EmbeddedPostgres",
    "ExtraMissing",
    "ServerFailed",
    "Setting",
    "Stack",
    "apache_kafka_available",
    "free_port",
    "postgres_installations",
    "prefixed",
    "temporary_folder",
]
