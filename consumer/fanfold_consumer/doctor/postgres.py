"""What the database says about itself to an ordinary role: settings, procedures, privileges, standbys, clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, LiteralString

import psycopg

from fanfold_sql.migrate import scripts
from fanfold_sql.pool import connection_settings, is_direct

SETTINGS = (
    "default_transaction_isolation",
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "reserved_connections",
    "superuser_reserved_connections",
    "synchronous_commit",
    "synchronous_standby_names",
)

# Longer than any `renew_interval_s`: who was not seen for so long is gone, even if nobody claimed its partitions yet.
_ALIVE_S = 15
_CLOCK_LOOKS = 3

Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]

_ABOUT: LiteralString = """
    select r.rolname, r.rolsuper, pg_has_role(r.oid, 'pg_read_all_stats', 'usage'), pg_is_in_recovery(),
        inet_server_addr()::text, nullif(least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1)), -1)
    from pg_roles r, pg_database d
    where r.rolname = current_user and d.datname = current_database()"""
_ROUTINES: LiteralString = """
    select p.proname, p.prosrc,
        has_schema_privilege(p.pronamespace, 'usage') and has_function_privilege(p.oid, 'execute'),
        coalesce(has_function_privilege(w.oid, p.oid, 'execute'), false)
    from pg_proc p left join pg_roles w on w.rolname = 'fanfold_worker'
    where p.pronamespace = to_regnamespace('fanfold')"""
_WRITABLE: LiteralString = """
    select count(*) from pg_class c where c.relnamespace = to_regnamespace('fanfold') and c.relkind = 'r'
        and has_table_privilege(c.oid, 'insert, update, delete, truncate')"""
_STANDBYS: LiteralString = """
    select application_name, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint,
        extract(epoch from replay_lag)::float8
    from pg_stat_replication where state is distinct from 'backup'"""
_MEMBERS: LiteralString = """
    select count(distinct owner) from fanfold.list_partitions(%s, null) where idle_seconds < %s"""


@dataclass(frozen=True, slots=True)
class Routine:
    """A procedure of the database: its text, and whether our role and `fanfold_worker` may execute it."""

    body: str
    ours: bool
    workers: bool


@dataclass(frozen=True, slots=True)
class Standby:
    """None: our role may not see it (`sync_state`), or there is nothing to say."""

    name: str | None
    sync_state: str | None
    behind_bytes: int | None
    behind_s: float | None


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """What was found.

    Attributes:
        settings: as they are for our role in this database, in the units of `pg_settings`.
        connection_limit: the smaller of the role's and the database's; None: neither has one.
        direct: no pooler is in between.
        on_this_machine: the server runs here, so its cores are ours.
        migrations: names of those applied; None: our role may not read them.
        writable_tables: how many of our tables our role may write to, past the procedures.
        members: how many members hold partitions now; None: our role may not ask.
        clock_ahead_s: by how much the database's clock is ahead of this machine's.
        clock_error_s: by how much that may be wrong.
    """

    version: int
    in_recovery: bool
    role: str
    superuser: bool
    settings: Mapping[str, str]
    connection_limit: int | None
    direct: bool
    on_this_machine: bool
    routines: Mapping[str, Routine]
    migrations: frozenset[str] | None
    writable_tables: int
    standbys: tuple[Standby, ...]
    sees_standbys: bool
    members: int | None
    clock_ahead_s: float
    clock_error_s: float


async def read_postgres(dsn: str, group: str | None, clock: Callable[[], float]) -> PostgresFacts:
    """Everything, in one transaction that only reads. Raises `psycopg.Error`."""
    async with await psycopg.AsyncConnection.connect(dsn, **connection_settings(prepare=False)) as connection:
        direct = await is_direct(connection)
        async with connection.transaction():
            await connection.execute("set transaction read only")
            # No function or operator of somebody else's is called, whoever we are.
            await connection.execute("set local search_path = pg_catalog, pg_temp")
            role, superuser, sees, in_recovery, address, limit = await _one(connection, _ABOUT)
            settings = await _all(
                connection, "select name, setting from pg_settings where name = any (%s)", list(SETTINGS)
            )
            routines = await _all(connection, _ROUTINES)
            standbys = [] if in_recovery else await _all(connection, _STANDBYS)
            migrations = await _if_allowed(connection, "select name from fanfold.migration where kind = 'migration'")
            members = await _if_allowed(connection, _MEMBERS, group, _ALIVE_S)
            ahead_s, error_s = await _compare_clocks(connection, clock)
            return PostgresFacts(
                version=connection.info.server_version,
                in_recovery=in_recovery,
                role=role,
                superuser=superuser,
                settings=dict(settings),
                connection_limit=limit,
                direct=direct,
                on_this_machine=_is_here(connection.info)
                and (address is None or ip_address(address.split("/")[0]).is_loopback),
                routines={name: Routine(body, ours, workers) for name, body, ours, workers in routines},
                migrations=None if migrations is None else frozenset(name for (name,) in migrations),
                writable_tables=(await _one(connection, _WRITABLE))[0],
                standbys=tuple(Standby(*row) for row in standbys),
                sees_standbys=sees,
                members=None if members is None else members[0][0],
                clock_ahead_s=ahead_s,
                clock_error_s=error_s,
            )


def expected_routines() -> dict[str, str]:
    """{name: body} of this release's procedures, as `pg_proc` keeps them: everybody may read those."""
    bodies = {}
    for script in scripts():
        if script.kind == "procedure":
            body = re.search(r"\$\$(.*)\$\$", script.text, re.DOTALL)
            assert body is not None, script.name
            bodies[script.name] = body[1]
    return bodies


def expected_migrations() -> frozenset[str]:
    return frozenset(script.name for script in scripts() if script.kind == "migration")


async def _one(connection: Connection, query: LiteralString) -> Row:
    (row,) = await _all(connection, query)
    return row


async def _all(connection: Connection, query: LiteralString, *parameters: Any) -> list[Row]:
    return await (await connection.execute(query, parameters or None)).fetchall()


async def _if_allowed(connection: Connection, query: LiteralString, *parameters: Any) -> list[Row] | None:
    """None: our role may not, or there is no such thing."""
    try:
        async with connection.transaction():
            return await _all(connection, query, *parameters)
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ):
        return None


async def _compare_clocks(connection: Connection, clock: Callable[[], float]) -> tuple[float, float]:
    """(how far the database is ahead, by how much that may be wrong), from the look that took the shortest."""
    best = (0.0, float("inf"))
    for _ in range(_CLOCK_LOOKS):
        before = clock()
        (theirs,) = await _one(connection, "select extract(epoch from clock_timestamp())::float8")
        after = clock()
        error_s = (after - before) / 2
        if error_s < best[1]:
            best = (theirs - (before + after) / 2, error_s)
    return best


def _is_here(info: psycopg.ConnectionInfo) -> bool:
    """Whether the connection ends on this machine: at a socket, or at a loopback address."""
    if info.host.startswith("/"):
        return True
    try:
        return ip_address(info.hostaddr).is_loopback
    except ValueError:
        return False
