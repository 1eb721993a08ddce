"""What a worker that turned against the database could try: every way out is closed, or leads to its own things only.

Everything here is done as a login of the worker role, on the connection that it has anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from fanfold_sql import CommitBatch, Conflict, DeadLetter, Fenced
from fanfold_sql.commit import COMMIT_RESULTS_EARLY, commit_parameters
from fanfold_sql.migrate import scripts
from tests.sql.names_in import calls
from tests.sql.support import (
    APPLIED,
    CLOSED,
    CLUSTER,
    DUPLICATE,
    STALE,
    TOPIC,
    TOPIC_ID,
    FanOutSpec,
    Tables,
    Worker,
)
from tests.sql.test_roles import INTERNAL, PUBLIC, TABLES
from tests.support.database import Database

F = FanOutSpec()
_BODIES = "\n".join(script.text for script in scripts() if script.kind == "procedure")


@pytest.mark.parametrize("table", TABLES)
def test_the_worker_can_neither_read_nor_write_a_table(worker: Worker, table: str) -> None:
    for statement in (
        f"select * from fanfold.{table}",
        f"select count(*) from fanfold.{table}",
        f"insert into fanfold.{table} default values",
        f"update fanfold.{table} set {TABLES[table]} = null",
        f"delete from fanfold.{table}",
        f"truncate fanfold.{table}",
        f"lock table fanfold.{table}",
        f"copy fanfold.{table} to stdout",
        f"copy fanfold.{table} from stdin",
        f"create index on fanfold.{table} ((1))",
        f"create rule mine as on select to fanfold.{table} do instead select 1",
        f"create trigger mine before insert on fanfold.{table} execute function pg_catalog.tsvector_update_trigger()",
        f"create policy mine on fanfold.{table}",
        f"create temp table mine (like fanfold.{table})",
        f"create temp table mine () inherits (fanfold.{table})",
        f"create temp view mine as select * from fanfold.{table}; select * from pg_temp.mine",
        f"alter table fanfold.{table} add column mine int",
        f"alter table fanfold.{table} owner to current_user",
        f"alter table fanfold.{table} enable row level security",
        f"drop table fanfold.{table}",
        f"select query_to_xml('select * from fanfold.{table}', true, true, '')",
    ):
        with pytest.raises(InsufficientPrivilege), worker.connection.transaction():
            worker.connection.execute(statement.encode())


@pytest.mark.parametrize("procedure", sorted(INTERNAL))
def test_the_worker_cannot_call_a_part_of_a_procedure(worker: Worker, tables: Tables, procedure: str) -> None:
    ((arguments,),) = tables.rows(
        "select array_to_string(array(select 'null::' || format_type(t, null) from unnest(proargtypes) t), ', ')"
        " from pg_proc where pronamespace = 'fanfold'::regnamespace and proname = %s",
        procedure,
    )
    with pytest.raises(InsufficientPrivilege, match=f"permission denied for function {procedure}"):
        worker.connection.execute(f"select fanfold.{procedure}({arguments})".encode())


@pytest.mark.parametrize(
    "statement",
    [
        # Take over what is there.
        "select nextval('fanfold.outbox_outbox_id_seq')",
        "select setval('fanfold.outbox_outbox_id_seq', 1)",
        "create table fanfold.mine ()",
        "create function fanfold.mine() returns int language sql as 'select 1'",
        "create or replace function fanfold.ack_outbox(p_outbox_id bigint[]) returns void language sql as 'select 1'",
        "create operator fanfold.@> (leftarg = jsonb, rightarg = jsonb, function = pg_catalog.jsonb_contains)",
        "drop function fanfold.prune",
        "alter function fanfold.prune reset all",
        "alter function fanfold.prune security invoker",
        "alter schema fanfold rename to mine",
        "alter default privileges for role fanfold_owner grant select on tables to public",
        "create cast (jsonb as bytea) without function",
        # Become somebody else.
        "set role fanfold_owner",
        "set session authorization fanfold_owner",
        "grant fanfold_owner to current_user",
        "grant select on fanfold.result to current_user",
        "alter role fanfold_worker superuser",
        "alter role fanfold_owner set search_path = public",
        "create role mine",
        # Make room in the database.
        "create schema mine",
        "create publication mine for table fanfold.result",
        "create event trigger mine on ddl_command_start execute function pg_catalog.tsvector_update_trigger()",
        # Go round the tables: files, large objects, the log, other sessions, settings that switch checks off.
        "copy (select 1) to '/tmp/fanfold'",
        "copy (select 1) to program 'cat'",
        "select pg_read_file('PG_VERSION')",
        "select pg_ls_dir('.')",
        "select lo_import('PG_VERSION')",
        "select lo_export(0, 'x')",
        "select pg_create_physical_replication_slot('mine')",
        "select pg_create_logical_replication_slot('mine', 'pgoutput')",
        "set session_replication_role = replica",
        "create function pg_temp.mine() returns int language c as 'x', 'y'",
        "create function pg_temp.mine() returns int language internal as 'x'",
    ],
)
def test_the_worker_can_do_nothing_but_execute(worker: Worker, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        worker.connection.execute(statement.encode())


def test_statistics_show_the_worker_no_value(worker: Worker, tables: Tables) -> None:
    worker.commit([F.but(size=100).result(index, payload=b"secret") for index in range(100)])
    tables.connection.execute("analyze fanfold.result")
    found = "select count(*) from pg_stats where schemaname = 'fanfold' and tablename = 'result'"
    assert tables.value(found) > 0
    assert worker.one(found) == (0,)


# Names put before the real ones. Were one of them used, it would run as the owner.


def test_temporary_relations_of_the_same_names_do_not_swallow_writes(worker: Worker, tables: Tables) -> None:
    for table in TABLES:
        worker.connection.execute(f"create temp table {table} (thread_id text, payload bytea)".encode())
    worker.connection.execute("create temp sequence outbox_outbox_id_seq start 1000000")
    # Types are looked for in the temporary schema first, unless the path names it. (The statements above the procedures
    # name other types: those would be the caller's own.)
    for name in ("int8multirange", '"char"'):
        worker.connection.execute(f"create domain pg_temp.{name} as pg_catalog.{name} check (false)".encode())
    worker.connection.execute("set search_path = pg_temp, fanfold, pg_catalog")
    _use_every_procedure(worker)
    assert tables.fan_out("life") == {"remaining": 0, "failed": 0, "run": 2, "complete": True}
    for table in TABLES:
        assert worker.one(f"select count(*) from pg_temp.{table}") == (0,)


@pytest.fixture
def hostile(worker: Worker, database: Database) -> Callable[[str], None]:
    """`hostile(statement)` runs it as the worker, whose own schema `hostile` is searched before pg_catalog."""
    (login,) = worker.one("select current_user")
    with database.connect() as owner:
        owner.execute(sql.SQL("create schema hostile authorization {}").format(sql.Identifier(str(login))))
    # A schema that the owner may not use would be passed over in its search.
    worker.connection.execute("grant usage on schema hostile to public")
    worker.connection.execute("set search_path = hostile, pg_temp, pg_catalog")

    def run(statement: str) -> None:
        worker.connection.execute(statement.encode())

    return run


def test_functions_named_like_those_the_procedures_call_are_not_called(
    worker: Worker, tables: Tables, hostile: Callable[[str], None]
) -> None:
    names = sorted(name.removeprefix("pg_catalog.") for name in calls(_BODIES))
    signatures = tables.rows(
        "select quote_ident(proname), pg_get_function_arguments(oid), pg_get_function_result(oid) from pg_proc p"
        " where pronamespace = 'pg_catalog'::regnamespace and prokind in ('f', 'a', 'w') and proname = any (%s)"
        # What takes any argument cannot be written in PL/pgSQL.
        " and not proargtypes::oid[] && array['internal', '\"any\"']::regtype[]::oid[]",
        names,
    )
    assert len({name for name, _, _ in signatures}) > 15
    for name, arguments, result in signatures:
        body = "language plpgsql as $$ begin raise exception 'hijacked'; end $$"
        hostile(f"create function hostile.{name}({arguments}) returns {result} {body}")
    with pytest.raises(psycopg.Error, match="hijacked"):
        worker.connection.execute("select cardinality('{1}'::int[])")
    _use_every_procedure(worker)


def test_operators_of_the_callers_path_are_not_used(
    worker: Worker, tables: Tables, hostile: Callable[[str], None]
) -> None:
    operators = tables.rows(
        "select oprname, l::text, r::text, oprresult::regtype::text from pg_operator o,"
        " lateral (select oprleft::regtype, oprright::regtype) as t (l, r)"
        " where oprnamespace = 'pg_catalog'::regnamespace and oprkind = 'b' and oprleft = any (%s::regtype[]::oid[])"
        " and oprright = any (%s::regtype[]::oid[])",
        *[["text", "int4", "int8", "bool", "jsonb", "uuid", "timestamptz", "interval", '"char"', "int8multirange"]] * 2,
    )
    assert len(operators) > 50
    for number, (name, left, right, result) in enumerate(operators):
        hostile(
            f"create function hostile.f{number}(a {left}, b {right}) returns {result} language plpgsql"
            " as $$ begin raise exception 'hijacked'; end $$"
        )
        hostile(f"create operator hostile.{name} (leftarg = {left}, rightarg = {right}, function = hostile.f{number})")
    with pytest.raises(psycopg.Error, match="hijacked"):
        worker.connection.execute("select '{}'::jsonb @> '{}'::jsonb")
    _use_every_procedure(worker)


def test_a_cast_of_the_workers_own_making_runs_as_the_worker(worker: Worker, hostile: Callable[[str], None]) -> None:
    hostile("create table hostile.ran_as (who text)")
    hostile("create type hostile.disguise as (id text)")
    hostile(
        "create function hostile.reveal(hostile.disguise) returns text language sql"
        " as $$ insert into hostile.ran_as select current_user; select 't1'::text $$"
    )
    hostile("create cast (hostile.disguise as text) with function hostile.reveal(hostile.disguise) as implicit")
    hostile("select * from fanfold.read_thread(row('x')::hostile.disguise)")
    assert worker.one("select who = session_user from hostile.ran_as") == (True,)


def test_settings_of_the_callers_session_change_nothing(worker: Worker) -> None:
    for setting in (
        "transform_null_equals = on",
        "row_security = off",
        "default_transaction_deferrable = on",
        "check_function_bodies = off",
        "constraint_exclusion = on",
        "intervalstyle = iso_8601",
        "datestyle = 'SQL, DMY'",
        "timezone = 'Pacific/Kiritimati'",
        "bytea_output = escape",
        "extra_float_digits = -15",
        "plan_cache_mode = force_custom_plan",
        "default_toast_compression = pglz",
    ):
        worker.connection.execute(f"set {setting}".encode())
    _use_every_procedure(worker)


def _use_every_procedure(worker: Worker) -> None:
    """One life of everything, through most branches of every procedure; what each answers is asserted."""
    called: set[str] = set()

    def one(statement: str, *parameters: object) -> object:
        called.update(name.removeprefix("fanfold.") for name in calls(statement) if name.startswith("fanfold."))
        return worker.one(statement, parameters)[0]

    spec, quorum = F.but(id="life", base=(("main", 1),)), F.but(id="quorum", thread_id="t2", quorum=1)
    held = worker.claim()
    assert worker.check(spec.result(0)) == [None]
    letter = DeadLetter(held.progress_id, 0, b"k", b"v", b"h", "E_HANDLER", "boom", spec.task(1))
    reply = worker.commit([spec.result(0), quorum.result(0)], partitions=[held.at(2, ((3, 5),))], dead_letters=[letter])
    assert reply.outcomes == [APPLIED, APPLIED]
    assert worker.outcomes(spec.result(0), quorum.result(1), spec.fold_result()) == [DUPLICATE, CLOSED, STALE]
    assert worker.completed(spec.result(1), spec.result(2)) == [("life", 1)]
    assert worker.outcomes(spec.fold_result()) == [APPLIED]
    assert worker.reopen("life", spec.task(0).task_id) == 2
    assert worker.completed(spec.result(0, run=2)) == [("life", 2)]
    with pytest.raises(Conflict):
        worker.commit([spec.result(0, run=2, arg_hash=8)])
    worker.claim()
    with pytest.raises(Fenced):
        worker.commit(partitions=[held.after(reply).at(9)])
    known = commit_parameters(CommitBatch([spec.result(0, run=2)]), 0)
    assert worker.one(COMMIT_RESULTS_EARLY, known)[0] == ["duplicate"]
    called |= {"claim_partition", "check_tasks", "commit_results", "commit_results_early", "reopen_fan_out"}

    single = "select outcome from fanfold.commit_result('t3', 'single', 1, 'task', 0, '\\x01', p_base => '{\"a\": 1}')"
    assert one(single) == "applied"
    assert one("select fanfold.existing_fan_outs('{single,none}')") == ["single"]
    assert one("select fanfold.advance_thread('t3', '{\"a\": 2, \"b\": 1}')") == {"a": 2, "b": 1}
    assert one("select clock from fanfold.read_thread('t3')") == {"a": 2, "b": 1}
    assert one("select fanfold.cancel_fan_out('cancelled', 't4')") == "cancelled"
    assert one("select fan_out_ids from fanfold.cancel_thread('t3')") == []
    assert one("select state from fanfold.list_fan_outs('{life}', null, null, 1)") == "folding"
    assert one("select payload from fanfold.read_results('life', -1, 1)") == b"\x01"
    assert one("select topic_id from fanfold.list_partitions('g', null)") == "topic-id-1"
    assert one("select array(select fan_out_id from fanfold.expire_fan_outs(9))") == []
    assert one("select remaining from fanfold.audit_fan_outs('{life}')") == 0
    at = f"'{CLUSTER}', '{TOPIC_ID}', '{{g}}', '{{0}}', '{{0}}'"
    stored = f"'{{t1}}', '{{life}}', '{{{spec.task(0).task_id}}}', '{{0}}', '{{7}}'"
    assert one(f"select run from fanfold.audit_tasks({at}, {stored})") == 2
    assert one("select fanfold.audit_outbox('topic', '{a}', '{b}')") == [False]
    assert one(f"select fanfold.list_topic_fan_outs('{TOPIC}', 't1', '', 9)") == "life"
    matching = "'{1}', null, 'g', 't1', 'life', null, '{E_HANDLER}', null, null, true"
    assert one(f"select value from fanfold.list_dead_letters({matching}, true, 0, 9)") == b"v"
    assert one(f"select letters from fanfold.count_dead_letters({matching})") == 1
    one("select fanfold.lock_dead_letters('{1}')")
    assert one("select status from fanfold.judge_dead_letters('{1}')") == "done"
    assert one("select fanfold.resolve_dead_letters('{1}', 'dropped')") == [1]
    assert one("select fanfold.reopen_fold('life')") is None
    one("select fanfold.enqueue('{topic}', '{a}', '{b}', '{c}', '{0}')")
    assert one("select waiting from fanfold.outbox_stats()") == 4
    assert one("select topic from fanfold.claim_outbox(10, 1000)") == "topic"
    one("select fanfold.ack_outbox('{0}')")
    one("select fanfold.renew_outbox('{0}', 1000)")
    assert [one("select fanfold.begin_life()") for _ in range(2)][1] is False
    one("select fanfold.renew_partitions(null, '{1}', '{1}')")
    one("select fanfold.release_partitions(null, '{1}', '{1}')")
    assert one("select fanfold.stop_partition(null, 1, 1, 'gone', 'why')") is False
    one("select fanfold.begin_group('g', 'cluster-1', 'y', 'z', '{7}')")
    assert one("select fanfold.reset_partition('g', 'cluster-1', 'x', 'y', 0, -1, 7)") is True
    # The single one, which has no fold, and the cancelled one.
    assert one("select fan_outs from fanfold.prune(%s, 10)", datetime.now(UTC) + timedelta(days=1)) == 2
    assert called >= PUBLIC
