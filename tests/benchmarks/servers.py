"""The servers that all parts of one run share, and what each part makes for itself on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from fanfold_consumer.devstack import ENV_DATABASE_URL, EmbeddedPostgres, temporary_folder
from fanfold_consumer.devstack.client_config import write_properties
from fanfold_consumer.devstack.maven import KAFKA_VERSION
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES, KafkaConfig
from fanfold_sql.migrate import migrate
from tests.benchmarks.machine import descendants
from tests.support.database import Server
from tests.support.kafka import Broker, create_topic, delete_topic, unique_name
from tests.support.postgres_builds import postgres_programs
from tests.support.servers import running_broker

POSTGRES_VERSION = 18
POSTGRES_SETTINGS = {
    # 100 members with a pool each, and whoever measures them.
    "max_connections": "600",
    # What an operator sets first. Else checkpoints come in the middle of some runs and not of others.
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}
"""Besides those of the dev stack. `fsync`, `synchronous_commit` and `full_page_writes` are on, as everywhere."""

_BROKER_NAMES = {
    "apache-kafka": f"Apache Kafka {KAFKA_VERSION}",
    "docker": "Apache Kafka in a container",
    "embedded": "embedded",
}


@dataclass(slots=True)
class BenchStack:
    """A broker and a PostgreSQL server, both warm, on loopback.

    Attributes:
        kafka: how Fanfold's clients reach the broker; `.consumer()` and `.producer()` are settings for plain ones.
        broker: its name, for the report.
        database_url: a migrated database of this run, empty at first.
        postgres_pid: of the postmaster.
        kafka_pids: none if the broker is no process of ours.
    """

    kafka: KafkaConfig
    broker: str
    database_url: str
    postgres: EmbeddedPostgres
    kafka_pids: list[int]
    _broker: Broker
    _server: Server
    _folder: Path
    _databases: list[str] = field(default_factory=list)

    @property
    def postgres_pid(self) -> int:
        return int((self.postgres.data_dir / "postmaster.pid").read_text().split()[0])

    def fresh_database(self) -> str:
        """The DSN of a new migrated database. It goes with the server; `drop_database` drops a large one earlier."""
        name = unique_name("bench").replace("-", "_")
        self.execute(
            self._server.dsn,
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(_TEMPLATE)),
        )
        return self._server.dsn_for(name)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The DSN of a new migrated database, for as long as the block runs."""
        dsn = self.fresh_database()
        try:
            yield dsn
        finally:
            self.drop_database(dsn)

    def drop_database(self, dsn: str) -> None:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        statement = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(str(name)))
        self.execute(self._server.dsn, statement)

    def fresh_topic(self, partitions: int) -> str:
        """The name of a new, empty topic whose partitions all have a leader."""
        return create_topic(self._broker, unique_name("bench"), partitions).name

    def drop_topic(self, name: str) -> None:
        delete_topic(self._broker, name)

    def env(self, database_url: str | None = None) -> dict[str, str]:
        """The whole environment of a child process: `FleetConfig` and `KafkaConfig.from_env` find what they need.

        Args:
            database_url: another database than that of the stack.
        """
        properties = self._folder / "kafka.properties"
        write_properties(properties, self.kafka.properties)
        return {
            **os.environ,
            ENV_DATABASE_URL: database_url or self.database_url,
            ENV_BOOTSTRAP_SERVERS: self.kafka.bootstrap_servers,
            ENV_PROPERTIES: str(properties),
        }

    def execute(self, dsn: str, statement: LiteralString | sql.Composed, *parameters: Any) -> list[tuple[Any, ...]]:
        """One statement in autocommit, as a superuser; its rows, if it has any."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []


_TEMPLATE = "bench_template"


@contextmanager
def bench_stack() -> Iterator[BenchStack]:
    """Start everything; stop it and remove its files at the end.

    Raises:
        DevStackError: no PostgreSQL or no broker could be started. The message says what to install.
    """
    folder = temporary_folder("bench", enterable=True)
    before = set(descendants(os.getpid()))
    with running_broker() as broker:
        kafka_pids = sorted(set(descendants(os.getpid())) - before)
        programs = postgres_programs(POSTGRES_VERSION)
        with EmbeddedPostgres(folder / "postgres", version=programs, settings=POSTGRES_SETTINGS) as postgres:
            server = Server(postgres.dsn)
            stack = BenchStack(
                kafka=broker.config,
                broker=_BROKER_NAMES[broker.kind],
                database_url="",
                postgres=postgres,
                kafka_pids=[] if broker.kind == "docker" else kafka_pids,
                _broker=broker,
                _server=server,
                _folder=folder,
            )
            stack.execute(server.dsn, sql.SQL("create database {}").format(sql.Identifier(_TEMPLATE)))
            migrate(server.dsn_for(_TEMPLATE))
            stack.database_url = stack.fresh_database()
            yield stack
