"""Every PostgreSQL that can be had here: migrated by a role that is no superuser, to the same schema and behaviour."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fanfold_consumer.devstack import EmbeddedPostgres, temporary_folder
from fanfold_sql import Conflict, Fenced, MigrationRefused, Rewound, StoreRejected, migrate
from fanfold_sql.migrate import scripts
from tests.sql.episodes import play
from tests.sql.introspect import schema_text
from tests.sql.support import (
    APPLIED,
    CLOSED,
    DUPLICATE,
    STALE,
    FanOutSpec,
    Held,
    Tables,
    Worker,
    assert_invariants,
)
from tests.support.postgres_builds import available_versions, postgres_programs

_SCHEMA = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
_EPISODES = 25


@pytest.fixture(scope="module", params=[pytest.param(v, id=f"pg{v}") for v in available_versions()])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A new server, so that its roles are new too."""
    folder = temporary_folder("test-versions", enterable=True)
    with EmbeddedPostgres(folder / "data", version=postgres_programs(request.param)) as postgres:
        with psycopg.connect(postgres.dsn, autocommit=True) as admin:
            admin.execute("create role migrator login createrole")
            admin.execute("create role ordinary login")
            admin.execute("create database app owner migrator")
            admin.execute("create database refused")
        yield postgres


@pytest.fixture(scope="module")
def migrated(server: EmbeddedPostgres) -> EmbeddedPostgres:
    """The database `app`, migrated by its owner, who may create roles but is no superuser."""
    report = migrate(server.dsn_for("app", user="migrator"))
    assert len(report.scripts) == len(scripts())
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("create role worker login")
        admin.execute("grant fanfold_worker to worker")
    return server


@pytest.fixture
def tables(migrated: EmbeddedPostgres) -> Iterator[Tables]:
    with psycopg.connect(migrated.dsn_for("app"), autocommit=True) as connection:
        yield Tables(connection)
        assert_invariants(connection)


@pytest.fixture
def worker(migrated: EmbeddedPostgres, tables: Tables) -> Iterator[Worker]:
    with psycopg.connect(migrated.dsn_for("app", user="worker"), autocommit=True) as connection:
        yield Worker(connection)


def test_an_ordinary_role_is_refused_and_told_what_to_do(server: EmbeddedPostgres) -> None:
    with pytest.raises(MigrationRefused, match="create role fanfold_owner nologin"):
        migrate(server.dsn_for("refused", user="ordinary"))


def test_migrating_again_finds_nothing_to_do(migrated: EmbeddedPostgres) -> None:
    assert migrate(migrated.dsn_for("app", user="migrator")).scripts == ()
    assert migrate(migrated.dsn_for("app")).scripts == ()


def test_the_schema_is_the_same_everywhere(tables: Tables) -> None:
    assert schema_text(tables.connection) == _SCHEMA.partition("\n\n")[2]


def test_results_survive_compression(worker: Worker, tables: Tables) -> None:
    payload = b"compressible " * 50_000
    spec = FanOutSpec(id="large")
    worker.commit([spec.result(0, payload=payload)])
    assert tables.status(spec.task(0).task_id) == (1, "done", payload)


def test_every_outcome_and_every_refusal(worker: Worker) -> None:
    spec, quorum = FanOutSpec(id="v1", base=(("main", 1),)), FanOutSpec(id="v2", quorum=1)
    held = worker.claim()
    reply = worker.commit([spec.result(0), quorum.result(0)], partitions=[held.at(2, ((3, 5),))])
    assert (reply.outcomes, reply.commit_seqs) == ([APPLIED, APPLIED], [1])
    assert worker.outcomes(spec.result(0), quorum.result(1)) == [DUPLICATE, CLOSED]
    assert worker.completed(spec.result(1), spec.result(2)) == [("v1", 1)]
    assert worker.outcomes(spec.fold_result()) == [APPLIED]
    assert worker.reopen("v1", spec.task(0).task_id) == 2
    assert worker.completed(spec.result(0, run=2)) == [("v1", 2)]
    assert worker.outcomes(spec.fold_result(run=1), spec.fold_result(run=2)) == [STALE, APPLIED]
    with pytest.raises(Conflict):
        worker.commit([spec.result(0, arg_hash=8)])
    with pytest.raises(StoreRejected, match="would go back"):
        worker.commit(partitions=[held.after(reply).at(1)])
    with pytest.raises(Rewound):
        worker.commit(partitions=[Held(10**9, 1, 0).at(1)])
    worker.claim()
    with pytest.raises(Fenced):
        worker.commit(partitions=[held.at(9)])


def test_random_batches_equal_an_order_of_single_commits(worker: Worker, tables: Tables) -> None:
    for episode in range(_EPISODES):
        play(random.Random(f"versions/{episode}"), worker, tables, f"e{episode}")
