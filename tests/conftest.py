"""Fixtures for everybody. Servers start when a test first asks for one; unit tests alone start none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.support.choose import chosen_broker, chosen_postgres
from tests.support.database import Database, Server
from tests.support.kafka import Broker, Topic, create_topic, delete_topic, unique_name
from tests.support.pgbouncer import PgBouncer, needs_pgbouncer, pgbouncer_for
from tests.support.servers import running_broker, running_postgres

_DEFAULT_PARTITIONS = 4

ENV_PGBOUNCER = "FANFOLD_TEST_PGBOUNCER"
"""Set: every test's worker goes through PgBouncer. Else those of these files do so, once more."""
_ALSO_POOLED = frozenset(f"tests.integration.test_{name}" for name in ("enqueue", "fleet_cancel", "status_commands"))


def pytest_report_header() -> list[str]:
    broker, postgres = chosen_broker(), chosen_postgres()
    return [f"broker: {broker.kind} ({broker.why})", f"postgres: {postgres.kind} ({postgres.why})"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("needs_real_kafka")
        if marker is None:
            continue
        if len(marker.args) != 1 or not isinstance(marker.args[0], str):
            raise pytest.UsageError(f"{item.nodeid}: needs_real_kafka takes one argument, the reason why")
        if chosen_broker().kind == "embedded":
            item.add_marker(pytest.mark.skip(reason=f"needs a real Kafka: {marker.args[0]}"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames and metafunc.module.__name__ in _ALSO_POOLED:
        ways = [pytest.param(False, id="direct"), pytest.param(True, id="pooled", marks=needs_pgbouncer)]
        metafunc.parametrize("database", ways, indirect=True)


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The best real broker there is; see `tests.support.choose`."""
    with running_broker() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Server) -> Iterator[str]:
    """The name of a migrated database nobody is connected to, to be copied."""
    # Not at the top: tests that need no database need no driver either.
    from fanfold_sql.migrate import migrate

    with postgres_server.temporary_database() as name:
        migrate(postgres_server.dsn_for(name))
        yield name


@pytest.fixture(scope="session")
def worker_login(postgres_server: Server, migrated_template: str) -> Iterator[tuple[str, str]]:
    """User and password of a worker. Roles belong to the server, so one does for all databases of the run."""
    with postgres_server.worker_login() as login:
        yield login


@pytest.fixture
def empty_database(postgres_server: Server) -> Iterator[str]:
    """The owner's DSN of a new database without our schema."""
    with postgres_server.temporary_database() as name:
        yield postgres_server.dsn_for(name)


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: Server, worker_login: tuple[str, str]) -> Iterator[PgBouncer]:
    """Two servers for all clients of a database: what one leaves behind on a connection, another one finds."""
    user, password = worker_login
    dsn = postgres_server.dsn_for("postgres", user=user, password=password)
    with pgbouncer_for(dsn, default_pool_size=2) as bouncer:
        yield bouncer


@pytest.fixture
def database(
    request: pytest.FixtureRequest,
    postgres_server: Server,
    migrated_template: str,
    worker_login: tuple[str, str],
) -> Iterator[Database]:
    """A new, migrated database of this test's own."""
    user, password = worker_login
    with postgres_server.temporary_database(migrated_template) as name:
        worker_dsn = postgres_server.dsn_for(name, user=user, password=password)
        if getattr(request, "param", os.environ.get(ENV_PGBOUNCER)):
            worker_dsn = request.getfixturevalue("pgbouncer").through(worker_dsn)
        yield Database(name=name, dsn=postgres_server.dsn_for(name), worker_dsn=worker_dsn)


@pytest.fixture
def make_topic(broker: Broker) -> Iterator[Callable[..., Topic]]:
    """Make topics of one's own: `make_topic(partitions=2)`, `make_topic("label")`. They are deleted after."""
    made: list[str] = []

    def make(label: str = "test", *, partitions: int = _DEFAULT_PARTITIONS) -> Topic:
        name = unique_name(label)
        made.append(name)
        return create_topic(broker, name, partitions)

    yield make
    for name in made:
        delete_topic(broker, name)


@pytest.fixture
def topic(request: pytest.FixtureRequest, make_topic: Callable[..., Topic]) -> Topic:
    """A topic of this test's own; `parametrize("topic", [n], indirect=True)` gives it n partitions."""
    return make_topic(partitions=getattr(request, "param", _DEFAULT_PARTITIONS))
