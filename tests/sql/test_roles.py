"""The worker may execute the public procedures and nothing else; nobody else may do anything."""

from __future__ import annotations

import pytest
from psycopg.errors import InsufficientPrivilege

from tests.sql.support import FanOutSpec, Tables, Worker
from tests.support.database import Database

F = FanOutSpec()

PUBLIC = {
    "ack_outbox",
    "check_tasks",
    "claim_outbox",
    "claim_partition",
    "commit_result",
    "commit_results",
    "enqueue",
    "list_dead_letters",
    "list_fan_outs",
    "list_partitions",
    "outbox_stats",
    "prune",
    "read_results",
    "read_thread",
    "release_partitions",
    "renew_partitions",
    "reopen_fan_out",
    "reset_partition",
}
INTERNAL = {"admit_results", "advance_clocks", "clock_makes_stale", "progress_key", "settle_results"}
# A table and one of its columns.
TABLES = {
    "thread": "thread_id",
    "fan_out": "size",
    "result": "status",
    "partition_progress": "epoch",
    "outbox": "topic",
    "dead_letter": "error",
    "migration": "name",
}


def test_the_worker_executes_exactly_the_public_procedures(tables: Tables) -> None:
    rows = tables.rows(
        "select p.proname, has_function_privilege('fanfold_worker', p.oid, 'execute'), p.prosecdef"
        " from pg_proc p where p.pronamespace = 'fanfold'::regnamespace"
    )
    assert {name for name, allowed, _ in rows if allowed} == PUBLIC
    assert {name for name, allowed, _ in rows if not allowed} == INTERNAL
    assert all(definer for name, _, definer in rows if name in PUBLIC)


def test_no_procedure_has_two_versions_side_by_side(tables: Tables) -> None:
    assert tables.value("select count(*) from pg_proc where pronamespace = 'fanfold'::regnamespace") == len(
        PUBLIC | INTERNAL
    )


def test_every_procedure_that_runs_as_the_owner_pins_its_search_path_with_temp_last(tables: Tables) -> None:
    rows = tables.rows(
        "select proname, proconfig from pg_proc where pronamespace = 'fanfold'::regnamespace and prosecdef"
    )
    assert [name for name, config in rows if "search_path=pg_catalog, pg_temp" not in (config or [])] == []


def test_everything_belongs_to_the_owner_role(tables: Tables) -> None:
    owners = tables.rows(
        "select distinct pg_get_userbyid(proowner) from pg_proc where pronamespace = 'fanfold'::regnamespace"
        " union select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'fanfold'::regnamespace"
        " union select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'fanfold'"
    )
    assert owners == [("fanfold_owner",)]


def test_the_public_has_nothing(tables: Tables) -> None:
    assert not tables.value("select has_schema_privilege('public', 'fanfold', 'usage')")
    assert not tables.value("select has_schema_privilege('public', 'fanfold', 'create')")
    assert (
        tables.rows(
            "select proname from pg_proc where pronamespace = 'fanfold'::regnamespace"
            " and has_function_privilege('public', oid, 'execute')"
        )
        == []
    )
    assert (
        tables.rows(
            "select relname from pg_class where relnamespace = 'fanfold'::regnamespace and relkind in ('r', 'S')"
            " and exists (select from aclexplode(relacl) a where a.grantee = 0)"
        )
        == []
    )


@pytest.mark.parametrize("table", TABLES)
def test_the_worker_can_neither_read_nor_write_a_table(worker: Worker, table: str) -> None:
    for statement in (
        f"select * from fanfold.{table}",
        f"insert into fanfold.{table} default values",
        f"update fanfold.{table} set {TABLES[table]} = null",
        f"delete from fanfold.{table}",
        f"truncate fanfold.{table}",
        f"lock table fanfold.{table}",
        f"create index on fanfold.{table} ((1))",
        f"drop table fanfold.{table}",
    ):
        with pytest.raises(InsufficientPrivilege), worker.connection.transaction():
            worker.connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "select nextval('fanfold.outbox_outbox_id_seq')",
        "select setval('fanfold.outbox_outbox_id_seq', 1)",
        "select fanfold.clock_makes_stale('{}', '{}')",
        "select fanfold.advance_clocks('{t1}', '{\"{}\"}', '{n}')",
        "select fanfold.admit_results('{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        "create table fanfold.mine ()",
        "create function fanfold.mine() returns int language sql as 'select 1'",
        "create or replace function fanfold.ack_outbox(p_outbox_id bigint[]) returns void language sql as 'select 1'",
        "drop function fanfold.prune",
        "alter function fanfold.prune reset all",
        "alter schema fanfold rename to mine",
        "set role fanfold_owner",
        "grant fanfold_owner to current_user",
    ],
)
def test_the_worker_can_do_nothing_but_execute(worker: Worker, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        worker.connection.execute(statement.encode())


def test_temporary_tables_of_the_same_names_do_not_swallow_writes(worker: Worker, tables: Tables) -> None:
    for table in TABLES:
        worker.connection.execute(f"create temp table {table} (thread_id text, payload bytea)".encode())
    worker.connection.execute("set search_path = pg_temp, fanfold, pg_catalog")
    worker.commit(F.results())
    assert tables.fan_out() == {"remaining": 0, "failed": 0, "run": 1, "complete": True}
    for table in TABLES:
        rows = worker.connection.execute(f"select count(*) from pg_temp.{table}".encode()).fetchall()
        assert rows == [(0,)]


def test_functions_and_operators_of_the_callers_path_are_not_called(worker: Worker, tables: Tables) -> None:
    # The worker may create these in its own temp schema; were one of them called, it would run as the owner.
    for definition in (
        "hashtextextended(text, bigint) returns bigint",
        "cardinality(anyarray) returns int",
        "pg_advisory_xact_lock(bigint) returns void",
        "jsonb_each_text(jsonb) returns table (key text, value text)",
        "clock_timestamp() returns timestamptz",
    ):
        worker.connection.execute(
            f"create function pg_temp.{definition} language plpgsql"
            " as $$ begin raise exception 'hijacked'; end $$".encode()
        )
    worker.connection.execute("set search_path = pg_temp, public, pg_catalog")
    based = F.but(base=(("main", 1),))
    worker.commit(based.results())
    worker.commit([FanOutSpec(id="f2", base=(("main", 2),)).result(0)])
    assert [outcome.value for outcome in worker.outcomes(based.result(0))] == ["stale"]


def test_a_role_outside_may_not_even_look_up_a_procedure(database: Database, tables: Tables) -> None:
    with database.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("create role fanfold_test_stranger")
        connection.execute("set local role fanfold_test_stranger")
        with pytest.raises(InsufficientPrivilege, match="schema fanfold"):
            connection.execute("select fanfold.outbox_stats()")
