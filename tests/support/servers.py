"""The servers of a test run, started when the first test asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fanfold_consumer.devstack import (
    EMBEDDED_CONSUMER_CONFIG,
    EMBEDDED_PRODUCER_CONFIG,
    ENV_DATABASE_URL,
    ApacheKafka,
    EmbeddedBroker,
    EmbeddedPostgres,
    temporary_folder,
)
from tests.support.choose import chosen_broker, chosen_postgres
from tests.support.database import Server
from tests.support.kafka import Broker
from tests.support.postgres_builds import postgres_programs

# As for the Kafka we start ourselves: tests that kill members cannot wait for production's timeouts.
_CONTAINER_SETTINGS = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "500",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
}


@contextmanager
def running_broker() -> Iterator[Broker]:
    kind = chosen_broker().kind
    if kind == "docker":
        from testcontainers.kafka import KafkaContainer

        container = KafkaContainer().with_kraft()
        for name, value in _CONTAINER_SETTINGS.items():
            container.with_env(name, value)
        with container:
            yield Broker(container.get_bootstrap_server(), kind)
    elif kind == "apache-kafka":
        with ApacheKafka() as kafka:
            yield Broker(kafka.bootstrap, kind)
    else:
        with EmbeddedBroker() as broker:
            yield Broker(broker.bootstrap, kind, dict(EMBEDDED_CONSUMER_CONFIG), dict(EMBEDDED_PRODUCER_CONFIG))


@contextmanager
def running_postgres() -> Iterator[Server]:
    kind = chosen_postgres().kind
    if kind == "external":
        yield Server(os.environ[ENV_DATABASE_URL])
    elif kind == "docker":
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer("postgres:18", username="postgres", driver=None) as container:
            yield Server(container.get_connection_url())
    else:
        folder = temporary_folder("test-postgres", enterable=True)
        with EmbeddedPostgres(folder / "data", version=postgres_programs(int(kind))) as postgres:
            yield Server(postgres.dsn)
