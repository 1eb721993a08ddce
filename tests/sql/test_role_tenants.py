"""Who else is in the cluster, the database or the same role: what is kept apart, and what is not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from fanfold_sql import Conflict, MigrationRefused, StoreUnavailable, migrate
from tests.sql.support import APPLIED, CLOSED, FanOutSpec, Tables, Worker
from tests.sql.test_roles import PUBLIC, TABLES
from tests.support.database import Database, Server

# Other roles.


@pytest.fixture
def make_login(postgres_server: Server) -> Iterator[Callable[[], tuple[str, str]]]:
    """User and password of new logins without any privilege. Ask for it before the database in which they own things:
    only when that is gone they can be dropped."""
    made: list[str] = []
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:

        def make() -> tuple[str, str]:
            name, password = f"fanfold_test_tenant_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
            admin.execute(
                sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(password))
            )
            made.append(name)
            return name, password

        yield make
        for name in made:
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def _connect(server: Server, database: str, login: tuple[str, str]) -> psycopg.Connection:
    return psycopg.connect(server.dsn_for(database, user=login[0], password=login[1]), autocommit=True)


def test_another_role_of_the_same_database_can_do_nothing_here(
    postgres_server: Server, make_login: Callable[[], tuple[str, str]], database: Database, tables: Tables
) -> None:
    login = make_login()
    stranger = sql.Identifier(login[0])
    with database.connect() as owner, _connect(postgres_server, database.name, login) as connection:
        # With a schema of its own, as a tenant would have.
        owner.execute(sql.SQL("create schema tenant authorization {}").format(stranger))
        signatures = tables.rows(
            "select p.proname, array_to_string(array("
            "  select 'null::' || format_type(t, null) from unnest(proargtypes) t), ', ')"
            " from pg_proc p where pronamespace = 'fanfold'::regnamespace"
        )
        assert {name for name, _ in signatures} > PUBLIC
        statements = [f"select fanfold.{name}({arguments})" for name, arguments in signatures]
        statements += [f"select * from fanfold.{table}" for table in TABLES]
        for statement in statements:
            with pytest.raises(InsufficientPrivilege, match="permission denied for schema fanfold"):
                connection.execute(statement.encode())


def test_a_worker_of_another_database_is_kept_out_by_connect_only(
    postgres_server: Server, make_login: Callable[[], tuple[str, str]], database: Database
) -> None:
    # Roles are of the cluster: fanfold_worker is one role in all its databases.
    login = make_login()
    name, worker = sql.Identifier(database.name), sql.Identifier(login[0])
    with database.connect() as owner:
        owner.execute(sql.SQL("grant fanfold_worker to {}").format(worker))
        with _connect(postgres_server, database.name, login) as connection:
            connection.execute("select fanfold.outbox_stats()")
        owner.execute(sql.SQL("revoke connect on database {} from public").format(name))
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            _connect(postgres_server, database.name, login)
        owner.execute(sql.SQL("grant connect on database {} to {}").format(name, worker))
        with _connect(postgres_server, database.name, login) as connection:
            connection.execute("select fanfold.outbox_stats()")


def test_anybody_in_the_database_can_hold_up_a_thread(
    postgres_server: Server, make_login: Callable[[], tuple[str, str]], database: Database, worker: Worker
) -> None:
    # Advisory locks have no privileges. This is why the page says to let nobody else in.
    with _connect(postgres_server, database.name, make_login()) as stranger:
        stranger.execute("select pg_advisory_lock(hashtextextended('t1', 4207))")
        worker.connection.execute("set lock_timeout = '50ms'")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            worker.commit([FanOutSpec().result(0)])
        stranger.execute("select pg_advisory_unlock_all()")
        assert worker.outcomes(FanOutSpec().result(0)) == [APPLIED]


# Installing where others have been before.


def test_migrating_calls_nothing_that_somebody_left_on_the_default_path(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as stranger:
        # Each fits its arguments better than the built-in one. Up to PostgreSQL 14 everybody may create in public.
        for function in (
            "pg_advisory_lock(integer) returns void",
            "to_regclass(varchar) returns regclass",
            "pg_has_role(name, text, text) returns boolean",
            "format(text, name) returns text",
        ):
            stranger.execute(
                f"create function public.{function} language plpgsql as"
                " $$ begin raise exception 'hijacked'; end $$".encode()
            )
    migrate(empty_database)


def test_a_schema_of_our_name_that_belongs_to_somebody_else_is_refused_before_it_is_read(
    make_login: Callable[[], tuple[str, str]], empty_database: str
) -> None:
    name, _ = make_login()
    with psycopg.connect(empty_database, autocommit=True) as admin:
        admin.execute(sql.SQL("create schema fanfold authorization {}").format(sql.Identifier(name)))
        # Reading this as an administrator would run the stranger's function with an administrator's rights.
        admin.execute(
            "create function fanfold.trap() returns text language plpgsql as $$ begin raise exception 'trapped'; end $$"
        )
        admin.execute(
            "create view fanfold.migration as"
            " select 'migration' as kind, fanfold.trap() as name, '' as sha256, '0' as release"
        )
        with pytest.raises(MigrationRefused, match=f"belongs to {name}, not to fanfold_owner"):
            migrate(empty_database)


# Threads, which share the worker role: kept apart by what a commit accepts, not by privileges.

MINE = FanOutSpec(id="mine", thread_id="t1", base=(("main", 1),))
# As MINE in all but the thread.
FOREIGN = MINE.but(thread_id="t2")


def test_a_task_that_names_another_threads_fan_out_is_a_conflict_and_changes_nothing(
    worker: Worker, tables: Tables
) -> None:
    worker.commit([MINE.result(0)])
    before = tables.fingerprint()
    for result in (FOREIGN.result(0), FOREIGN.result(1), FOREIGN.result(2, run=9), FOREIGN.failure(1)):
        with pytest.raises(Conflict) as caught:
            worker.commit([result])
        assert caught.value.positions == {0}
        assert tables.fingerprint() == before


def test_it_is_one_also_in_the_very_batch_that_opens_the_fan_out(worker: Worker, tables: Tables) -> None:
    before = tables.fingerprint()
    with pytest.raises(Conflict) as caught:
        worker.commit([MINE.result(0), FOREIGN.result(1)])
    assert caught.value.positions == {1}
    assert tables.fingerprint() == before


def test_a_fold_under_another_thread_changes_nothing(worker: Worker, tables: Tables) -> None:
    worker.commit(MINE.results())
    before = tables.fingerprint()
    with pytest.raises(Conflict):
        worker.commit([FOREIGN.fold_result()])
    assert tables.fingerprint() == before


def test_a_threads_clock_moves_by_its_own_fan_outs_only(worker: Worker, tables: Tables) -> None:
    worker.commit([MINE.result(0)])
    worker.commit([FanOutSpec(id="other", thread_id="t2", base=(("main", 9),)).result(0)])
    assert tables.clock("t1") == {"main": 1}
    assert worker.outcomes(MINE.result(1)) == [APPLIED]


def test_whoever_knows_a_fan_out_may_read_reopen_and_cancel_it_whatever_its_thread(
    worker: Worker, make_worker: Callable[[], Worker]
) -> None:
    # Not separated: under one worker role an id is all it takes, even before anything of it is in.
    worker.commit([MINE.result(0)])
    other = make_worker()
    assert other.one("select count(*) from fanfold.read_results('mine', -1, 10)") == (1,)
    assert other.reopen("mine", MINE.task(0).task_id) == 2
    assert other.one("select fanfold.cancel_fan_out('mine')") == ("cancelled",)
    assert other.one("select fanfold.cancel_fan_out('next', 't2')") == ("cancelled",)
    assert worker.outcomes(MINE.but(id="next").result(0)) == [CLOSED]
