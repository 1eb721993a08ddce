"""The dev stack's servers: they start, keep or lose data as promised, and never outlive us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fanfold_consumer.devstack import (
    ENV_DATABASE_URL,
    ApacheKafka,
    DevStackError,
    EmbeddedBroker,
    EmbeddedPostgres,
    ServerFailed,
    Stack,
    apache_kafka_available,
    free_port,
    postgres_installations,
    temporary_folder,
)
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES
from tests.support.kafka import Broker, create_topic, read_records, unique_name
from tests.support.wait import eventually


@pytest.fixture
def folder() -> Path:
    return temporary_folder("test-devstack", enterable=True)


@pytest.fixture
def postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder / "data") as running:
        yield running


@pytest.mark.parametrize("version", postgres_installations())
def test_postgres_of_each_installed_version_starts_with_fsync_on(folder: Path, version: int) -> None:
    with (
        EmbeddedPostgres(folder / "data", version=version) as postgres,
        psycopg.connect(postgres.dsn) as connection,
    ):
        row = connection.execute("select current_setting('server_version_num')::int / 10000").fetchone()
        assert row == (version,)
        assert connection.execute("show fsync").fetchone() == ("on",)


def test_postgres_listens_on_loopback_only(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("show unix_socket_directories").fetchone() == ("",)


def test_postgres_keeps_committed_data_over_a_kill_and_a_restart(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (1)")
    postgres.kill()
    assert not postgres.running
    postgres.start()
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("insert into kept values (2)")
    postgres.restart()
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("select n from kept order by n").fetchall() == [(1,), (2,)]


def test_postgres_takes_further_settings(folder: Path) -> None:
    with (
        EmbeddedPostgres(folder / "data", settings={"max_connections": "17"}) as postgres,
        psycopg.connect(postgres.dsn) as connection,
    ):
        assert connection.execute("show max_connections").fetchone() == ("17",)


def test_postgres_that_cannot_start_says_why(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "data", settings={"max_connections": "none"})
    with pytest.raises(ServerFailed, match="max_connections"):
        postgres.start()
    assert not postgres.running


def test_postgres_refuses_a_folder_made_by_another_major_version(folder: Path) -> None:
    older, newer = min(postgres_installations()), max(postgres_installations())
    if older == newer:
        pytest.skip("only one version of PostgreSQL is installed")
    with EmbeddedPostgres(folder / "data", version=older):
        pass
    with pytest.raises(DevStackError, match=f"made by version {older}"):
        EmbeddedPostgres(folder / "data", version=newer).start()


def test_postgres_of_a_version_that_is_not_installed_names_those_that_are(folder: Path) -> None:
    with pytest.raises(DevStackError, match=r"PostgreSQL 9 is not installed; found .*18"):
        EmbeddedPostgres(folder / "data", version=9).start()


def test_the_embedded_broker_carries_a_record() -> None:
    with EmbeddedBroker() as running:
        broker = Broker(running.bootstrap, "embedded")
        topic = create_topic(broker, unique_name(), 2)
        topic.send([b"one"])
        assert [message.value() for message in topic.records(1)] == [b"one"]


def test_the_embedded_broker_is_another_empty_cluster_after_a_restart() -> None:
    with EmbeddedBroker() as running:
        broker = Broker(running.bootstrap, "embedded")
        topic = create_topic(broker, unique_name(), 1)
        before = broker.admin().list_topics(timeout=10)
        assert topic.name in before.topics
        running.restart()
        after = broker.admin().list_topics(timeout=10)
        assert topic.name not in after.topics
        assert after.cluster_id != before.cluster_id


def test_apache_kafka_keeps_records_over_a_kill_and_a_restart() -> None:
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(missing)
    with ApacheKafka() as kafka:
        broker = Broker(kafka.bootstrap, "apache-kafka")
        topic = create_topic(broker, unique_name(), 1)
        topic.send([b"one"])
        kafka.kill()
        assert not kafka.running
        kafka.start()
        topic.send([b"two"])
        kafka.restart()
        assert [message.value() for message in read_records(broker, topic.name, 1, 2)] == [b"one", b"two"]


def test_the_stack_gives_out_what_other_processes_need(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENV_DATABASE_URL, ENV_BOOTSTRAP_SERVERS):
        monkeypatch.delenv(name, raising=False)
    with Stack.start("embedded") as stack:
        assert stack.broker_kind == "embedded"
        env = stack.env()
        assert env[ENV_DATABASE_URL] == stack.database_url
        assert env[ENV_BOOTSTRAP_SERVERS] == stack.bootstrap_servers
        assert "batch.num.messages" in Path(env[ENV_PROPERTIES]).read_text(encoding="utf-8")
        psycopg.connect(stack.database_url).close()
    assert stack.postgres is not None
    assert stack.broker is not None
    assert not stack.postgres.running
    assert not stack.broker.running


def test_the_stack_adopts_servers_from_the_environment_and_leaves_them_running(
    monkeypatch: pytest.MonkeyPatch, postgres: EmbeddedPostgres
) -> None:
    with EmbeddedBroker() as running:
        monkeypatch.setenv(ENV_DATABASE_URL, postgres.dsn)
        monkeypatch.setenv(ENV_BOOTSTRAP_SERVERS, running.bootstrap)
        with Stack.start() as stack:
            assert stack.broker_kind == "external"
            assert stack.kafka.properties == {}
            assert (stack.database_url, stack.bootstrap_servers) == (postgres.dsn, running.bootstrap)
        assert running.running
        assert postgres.running


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (ENV_DATABASE_URL, "postgresql://nobody@127.0.0.1:1/none"),
        (ENV_BOOTSTRAP_SERVERS, "127.0.0.1:1"),
    ],
)
def test_the_stack_says_which_variable_names_a_server_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    for name in (ENV_DATABASE_URL, ENV_BOOTSTRAP_SERVERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(DevStackError, match=f"unset {variable}"):
        Stack.start()


_VICTIM = """
from pathlib import Path
from fanfold_consumer.devstack import EmbeddedBroker, EmbeddedPostgres, temporary_folder
import threading

folder = temporary_folder("victim", enterable=True)
postgres = EmbeddedPostgres(folder / "data")
postgres.start()
broker = EmbeddedBroker()
broker.start()
print(folder, postgres.port, broker.port, flush=True)
threading.Event().wait()
"""


def test_servers_and_temporary_folders_do_not_outlive_a_killed_owner() -> None:
    owner = subprocess.Popen([sys.executable, "-c", _VICTIM], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder, *ports = owner.stdout.readline().split()
    assert len(ports) == 2
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    eventually(lambda: not Path(folder).exists(), what="the guard removed the folder")
    for port in map(int, ports):
        assert not _listening(port)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_free_ports_are_given_out_once() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)


_DEV = "from fanfold_consumer.cli.dev import dev; dev()"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fanfold_dev_prints_what_to_export_and_stops_its_servers_on_a_signal(number: signal.Signals) -> None:
    ours = (ENV_DATABASE_URL, ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES)
    env = {name: value for name, value in os.environ.items() if name not in ours}
    argv = [sys.executable, "-c", _DEV, "--broker", "embedded"]
    command = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    exported: dict[str, str] = {}
    for line in command.stdout:
        if line.startswith("  export "):
            name, _, value = line.removeprefix("  export ").strip().partition("=")
            exported[name] = value.strip("'")
        if line.startswith("Ctrl-C"):
            break
    assert set(exported) == set(ours)
    with psycopg.connect(exported[ENV_DATABASE_URL]) as connection:
        row = connection.execute("select to_regnamespace('fanfold') is not null").fetchone()
        assert row == (True,)
    command.send_signal(number)
    assert command.wait(30) == 0
    command.stdout.close()
    assert not _listening(int(exported[ENV_BOOTSTRAP_SERVERS].rpartition(":")[2]))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(exported[ENV_DATABASE_URL])
