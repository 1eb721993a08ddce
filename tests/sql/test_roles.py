"""The worker may execute the public procedures and nothing else; nobody else may do anything.

A new table or procedure fails here until it is listed, which is where it is decided who may use it.
"""

from __future__ import annotations

from importlib import import_module

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from fanfold_sql import migrate
from tests.sql.support import Tables, Worker
from tests.support.database import Database

# For the worker.
PUBLIC = {
    "ack_outbox",
    "advance_thread",
    "audit_fan_outs",
    "audit_outbox",
    "audit_tasks",
    "begin_group",
    "begin_life",
    "cancel_fan_out",
    "cancel_thread",
    "check_tasks",
    "claim_outbox",
    "claim_partition",
    "commit_result",
    "commit_results",
    "commit_results_early",
    "count_dead_letters",
    "enqueue",
    "existing_fan_outs",
    "expire_fan_outs",
    "judge_dead_letters",
    "list_dead_letters",
    "list_fan_outs",
    "list_partitions",
    "list_topic_fan_outs",
    "lock_dead_letters",
    "outbox_stats",
    "prune",
    "read_results",
    "read_thread",
    "release_partitions",
    "renew_outbox",
    "renew_partitions",
    "reopen_fan_out",
    "reopen_fold",
    "reset_partition",
    "resolve_dead_letters",
    "stop_partition",
}
# Parts of those: they rely on locks that their caller holds.
INTERNAL = {
    "admit_results",
    "advance_clocks",
    "clock_makes_stale",
    "match_dead_letters",
    "next_outbox_id",
    "progress_key",
    "timeline",
    "settle_results",
}
# Of these, what has no rights of its own: it runs with those and with the search path of the procedure that calls it (a
# path of its own would be set and reset at every call).
UNPINNED = {"clock_makes_stale", "match_dead_letters", "next_outbox_id", "progress_key", "timeline"}
# And one of the worker's: a procedure that has either cannot commit.
UNPINNED |= {"commit_results_early"}
# The public procedures that give out what a handler was given or returned. Any other must not.
GIVE_OUT_PAYLOADS = {"claim_outbox", "list_dead_letters", "read_results"}
# A table and one of its columns.
TABLES = {
    "thread": "thread_id",
    "fan_out": "size",
    "deadline": "due_at",
    "result": "status",
    "partition_progress": "epoch",
    "outbox": "topic",
    "dead_letter": "error",
    "life": "life_id",
    "migration": "name",
}
SEQUENCES = {"outbox_outbox_id_seq", "dead_letter_dead_letter_id_seq"}

# Whoever is granted anything, by whatever means; the owner is left out. Null stands for the built-in defaults.
_GRANTS = """
    select o.object, case a.grantee when 0 then 'public' else a.grantee::regrole::text end, a.privilege_type,
        a.is_grantable
    from (
        select 'schema ' || nspname, coalesce(nspacl, acldefault('n', nspowner)), nspowner
        from pg_namespace where nspname = 'fanfold'
        union all
        select 'relation ' || relname,
            coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)), relowner
        from pg_class where relnamespace = 'fanfold'::regnamespace and relkind not in ('i', 'I', 'c')
        union all
        select 'column ' || relname || '.' || attname, attacl, relowner
        from pg_attribute join pg_class c on c.oid = attrelid
        where relnamespace = 'fanfold'::regnamespace and attacl is not null
        union all
        select 'function ' || proname, coalesce(proacl, acldefault('f', proowner)), proowner
        from pg_proc where pronamespace = 'fanfold'::regnamespace
        union all
        select 'later ' || defaclobjtype::text, defaclacl, defaclrole from pg_default_acl) o (object, acl, owner)
    cross join aclexplode(o.acl) a
    where a.grantee <> o.owner"""

_OBJECTS = """
    select 'relation ' || relname from pg_class
    where relnamespace = 'fanfold'::regnamespace and relkind not in ('i', 'I', 'c')
    union all select 'function ' || proname from pg_proc where pronamespace = 'fanfold'::regnamespace"""


def test_every_object_is_listed_here(tables: Tables) -> None:
    # As a list, so that a second version of a procedure beside the first is seen.
    expected = [f"relation {name}" for name in (*TABLES, *SEQUENCES)]
    expected += [f"function {name}" for name in PUBLIC | INTERNAL]
    assert sorted(row[0] for row in tables.rows(_OBJECTS)) == sorted(expected)


def test_the_worker_is_granted_the_public_procedures_and_nobody_anything_else(tables: Tables) -> None:
    expected = {("schema fanfold", "fanfold_worker", "USAGE", False)}
    expected |= {(f"function {name}", "fanfold_worker", "EXECUTE", False) for name in PUBLIC}
    assert set(tables.rows(_GRANTS)) == expected


def test_a_login_of_a_worker_has_no_privilege_on_anything_but_the_procedures(worker: Worker) -> None:
    def holds(function: str, name: str, privileges: tuple[str, ...]) -> list[str]:
        query = f"select p from unnest(%s::text[]) p where {function}(current_user, %s, p)"
        return [row[0] for row in worker.connection.execute(query.encode(), (list(privileges), name)).fetchall()]

    newer = ("MAINTAIN",) if worker.connection.info.server_version >= 170_000 else ()
    for table in TABLES:
        everything = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", *newer)
        assert holds("has_table_privilege", f"fanfold.{table}", everything) == []
        columns = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
        assert holds("has_any_column_privilege", f"fanfold.{table}", columns) == []
    for sequence in SEQUENCES:
        assert holds("has_sequence_privilege", f"fanfold.{sequence}", ("USAGE", "SELECT", "UPDATE")) == []
    assert holds("has_schema_privilege", "fanfold", ("CREATE", "USAGE")) == ["USAGE"]
    # Without CREATE on the database there are no schemas, extensions, publications or trusted languages of its own.
    assert holds("has_database_privilege", worker.connection.info.dbname, ("CREATE",)) == []


def test_the_roles_have_no_power_of_their_own_and_belong_to_nobody(tables: Tables) -> None:
    rows = tables.rows(
        "select rolname, rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls,"
        " exists (select from pg_auth_members m where m.member = r.oid)"
        " from pg_roles r where rolname in ('fanfold_owner', 'fanfold_worker') order by 1"
    )
    assert rows == [("fanfold_owner", False, False), ("fanfold_worker", False, False)]


def test_a_worker_is_no_member_of_the_owner(worker: Worker) -> None:
    assert worker.one("select pg_has_role(current_user, 'fanfold_owner', 'member')") == (False,)


def test_everything_belongs_to_the_owner_role(tables: Tables) -> None:
    owners = tables.rows(
        "select distinct pg_get_userbyid(proowner) from pg_proc where pronamespace = 'fanfold'::regnamespace"
        " union select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'fanfold'::regnamespace"
        " union select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'fanfold'"
    )
    assert owners == [("fanfold_owner",)]


def test_every_procedure_runs_as_the_owner_with_the_temporary_schema_last_but_those_that_need_no_rights(
    tables: Tables,
) -> None:
    rows = tables.rows(
        "select proname, prosecdef, coalesce(proconfig, '{}') from pg_proc where pronamespace = 'fanfold'::regnamespace"
    )
    assert {name for name, definer, _ in rows if not definer} == UNPINNED
    assert {name for name, _, config in rows if "search_path=pg_catalog, pg_temp" not in config} == UNPINNED


def test_payloads_leave_by_the_procedures_meant_for_it_only(tables: Tables) -> None:
    rows = tables.rows(
        "select proname from pg_proc p where pronamespace = 'fanfold'::regnamespace"
        " and (prorettype = 'bytea'::regtype or exists ("
        " select from unnest(proallargtypes, proargmodes) as a (t, mode) where mode <> 'i' and t = 'bytea'::regtype))"
    )
    assert {row[0] for row in rows} == GIVE_OUT_PAYLOADS


def test_the_database_needs_no_extension(tables: Tables) -> None:
    assert tables.rows("select extname from pg_extension") == [("plpgsql",)]


def test_what_the_owner_makes_later_is_nobody_elses_until_a_release_says_so(worker: Worker, database: Database) -> None:
    with database.connect() as owner:
        owner.execute("set role fanfold_owner")
        owner.execute("create function fanfold.later() returns int language sql as 'select 1'")
        owner.execute("create table fanfold.later_table (n int)")
    for statement in ("select fanfold.later()", "select * from fanfold.later_table"):
        with pytest.raises(InsufficientPrivilege):
            worker.connection.execute(statement.encode())


def test_an_installer_that_dies_before_the_privileges_leaves_no_procedure_without_them(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("fanfold_sql.migrate")
    text = module._text
    monkeypatch.setattr(module, "_text", lambda name: "select 1/0" if name == "roles_after.sql" else text(name))
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert Tables(connection).rows("select proname from pg_proc where pronamespace = 'fanfold'::regnamespace") == []
    monkeypatch.undo()
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert {row[1] for row in Tables(connection).rows(_GRANTS)} == {"fanfold_worker"}
