"""migrate: once whoever calls it and how often, never backwards, and with a clear word when it may not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from fanfold_sql import MigrationNeeded, MigrationRefused, StoreUnavailable, migrate
from fanfold_sql.migrate import Script, scripts
from tests.sql.introspect import schema_text
from tests.sql.support import APPLIED, FanOutSpec, Worker, assert_invariants
from tests.support.database import Server

MIGRATIONS = [script.name for script in scripts() if script.kind == "migration"]


def _names(found: tuple[Script, ...]) -> list[str]:
    return [script.name for script in found]


def _has_schema(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select to_regnamespace('fanfold') is not null").fetchone()
        return bool(row and row[0])


def test_an_empty_database_gets_everything_migrations_first(empty_database: str) -> None:
    report = migrate(empty_database)
    assert not report.dry_run
    assert _names(report.scripts) == _names(tuple(scripts()))
    assert _names(report.scripts)[: len(MIGRATIONS)] == MIGRATIONS
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert Worker(connection).commit([FanOutSpec().result(0)]).outcomes == [APPLIED]
        assert_invariants(connection)


def test_a_second_run_finds_nothing_to_do_and_changes_nothing(empty_database: str) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        before = connection.execute("select * from fanfold.migration order by kind, name").fetchall()
        assert migrate(empty_database).scripts == ()
        assert connection.execute("select * from fanfold.migration order by kind, name").fetchall() == before


def test_a_dry_run_says_what_it_would_do_and_does_nothing(empty_database: str) -> None:
    report = migrate(empty_database, dry_run=True)
    assert report.dry_run
    assert _names(report.scripts) == _names(tuple(scripts()))
    assert not _has_schema(empty_database)


def test_twenty_installers_at_once_apply_everything_once(empty_database: str) -> None:
    start = Barrier(20)

    def install(_: int) -> int:
        start.wait(20)
        return len(migrate(empty_database).scripts)

    with ThreadPoolExecutor(20) as pool:
        applied = list(pool.map(install, range(20)))
    assert sorted(applied) == [0] * 19 + [len(scripts())]


def test_installers_of_several_databases_of_one_server_at_once_do_not_trip_over_the_roles(
    postgres_server: Server,
) -> None:
    # Roles belong to the server, so no lock of a database keeps these apart.
    with ExitStack() as stack:
        names = [stack.enter_context(postgres_server.temporary_database()) for _ in range(4)]
        start = Barrier(4)

        def install(name: str) -> int:
            start.wait(20)
            return len(migrate(postgres_server.dsn_for(name)).scripts)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(install, names)) == [len(scripts())] * 4


def test_a_procedure_with_other_contents_is_replaced(empty_database: str) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        before = schema_text(connection)
        connection.execute("update fanfold.migration set sha256 = 'old' where name = 'prune'")
        assert _names(migrate(empty_database).scripts) == ["prune"]
        assert schema_text(connection) == before
    assert migrate(empty_database).scripts == ()


def test_a_replaced_procedure_is_still_executable_by_the_worker_and_an_internal_one_is_not(
    empty_database: str,
) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("drop function fanfold.prune")
        connection.execute("drop function fanfold.settle_results")
        connection.execute("update fanfold.migration set sha256 = 'old' where name in ('prune', 'settle_results')")
        migrate(empty_database)
        rows = connection.execute(
            "select proname, has_function_privilege('fanfold_worker', oid, 'execute') from pg_proc"
            " where pronamespace = 'fanfold'::regnamespace and proname in ('prune', 'settle_results')"
        ).fetchall()
    assert dict(rows) == {"prune": True, "settle_results": False}


def test_an_edited_migration_is_refused_and_nothing_is_touched(empty_database: str) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("update fanfold.migration set sha256 = 'edited' where kind = 'migration'")
        connection.execute("update fanfold.migration set sha256 = 'old' where name = 'prune'")
        with pytest.raises(MigrationRefused, match=f"{MIGRATIONS[0]} was applied with other contents"):
            migrate(empty_database)
        assert connection.execute("select sha256 from fanfold.migration where name = 'prune'").fetchall() == [("old",)]


def test_a_database_with_a_migration_from_the_future_is_refused_by_name(empty_database: str) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            "insert into fanfold.migration (kind, name, sha256, release)"
            " values ('migration', '9999_more', 'x', '0.0.1')"
        )
    for dry_run in (True, False):
        with pytest.raises(MigrationRefused, match="does not know 9999_more; upgrade this installation"):
            migrate(empty_database, dry_run=dry_run)


def test_a_database_of_a_later_release_is_refused_though_its_migrations_are_known(empty_database: str) -> None:
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("update fanfold.migration set release = '999.0.0' where name = 'prune'")
    with pytest.raises(MigrationRefused, match=r"migrated by fanfold 999\.0\.0"):
        migrate(empty_database)


def test_a_server_that_does_not_answer_is_unavailable_with_its_reason() -> None:
    with pytest.raises(StoreUnavailable, match="cannot migrate"):
        migrate("postgresql://nobody@127.0.0.1:1/nothing")


def test_a_database_without_the_schema_says_what_to_run(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        worker = Worker(connection)
        with pytest.raises(MigrationNeeded, match="run `fanfold migrate`"):
            worker.commit([FanOutSpec().result(0)])


@pytest.fixture
def make_role(postgres_server: Server, empty_database: str) -> Iterator[Callable[[LiteralString], str]]:
    """`make_role("createrole")`: a DSN for a new role with these attributes."""
    made: list[sql.Identifier] = []
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        owned = psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"]

        def make(attributes: LiteralString) -> str:
            name, password = f"fanfold_test_role_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
            role = sql.Identifier(name)
            admin.execute(
                sql.SQL("create role {} login password {} ").format(role, sql.Literal(password)) + sql.SQL(attributes)
            )
            made.append(role)
            return postgres_server.dsn_for(str(owned), user=name, password=password)

        yield make
        for role in made:
            # In the database where it may own or have been granted something.
            with psycopg.connect(empty_database, autocommit=True) as connection:
                connection.execute(sql.SQL("drop owned by {} cascade").format(role))
            admin.execute(sql.SQL("drop role {}").format(role))


def _user(dsn: str) -> sql.Identifier:
    return sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["user"]))


def test_a_role_without_privileges_gets_the_commands_an_administrator_has_to_run(
    empty_database: str, make_role: Callable[[LiteralString], str]
) -> None:
    dsn = make_role("nosuperuser")
    # The second where the roles are there already, up to PostgreSQL 15.
    with pytest.raises(MigrationRefused, match=r"(permission denied|admin option).*create role fanfold_owner nologin"):
        migrate(dsn)
    assert not _has_schema(empty_database)


def test_a_role_that_cannot_read_the_schema_is_refused_with_the_same_advice(
    empty_database: str, make_role: Callable[[LiteralString], str]
) -> None:
    migrate(empty_database)
    with pytest.raises(MigrationRefused, match="grant fanfold_owner to <you>"):
        migrate(make_role("nosuperuser"))


def test_after_the_advised_commands_an_ordinary_role_migrates(
    empty_database: str, make_role: Callable[[LiteralString], str]
) -> None:
    dsn = make_role("nosuperuser")
    with psycopg.connect(empty_database, autocommit=True) as admin:
        for role in ("fanfold_owner", "fanfold_worker"):
            if not admin.execute("select from pg_roles where rolname = %s", (role,)).fetchall():
                admin.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        admin.execute(sql.SQL("grant fanfold_owner to {}").format(_user(dsn)))
        admin.execute("create schema fanfold authorization fanfold_owner")
    assert len(migrate(dsn).scripts) == len(scripts())
    assert migrate(dsn).scripts == ()
