"""Bring a database to this release: numbered migrations once each, procedures whenever their text changes.

Wants a direct connection (no PgBouncer in transaction mode): twenty installers at once are kept apart by a session
advisory lock, and the one that comes second finds nothing left to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

import psycopg

from fanfold_sql.errors import StoreRejected, StoreUnavailable
from fanfold_sql.pool import CONNECT_TIMEOUT_S

LOCK_KEY = 4_207_001
SERVER_VERSION_MIN = 140_000


@dataclass(frozen=True, slots=True)
class Script:
    """One .sql file of the package. `kind` is `migration` or `procedure`."""

    kind: str
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What was applied (or, in a dry run, would be), in order; empty: the database was up to date."""

    scripts: tuple[Script, ...]
    dry_run: bool


class MigrationRefused(StoreRejected):
    """The database cannot be brought to this release; nothing was changed. The message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, None)


def scripts() -> list[Script]:
    """Every script of this release: migrations by number, then procedures by name."""
    found: list[Script] = []
    for kind, folder in (("migration", "migrations"), ("procedure", "procedures")):
        files = resources.files("fanfold_sql").joinpath(folder).iterdir()
        found += [
            Script(kind, file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
            for file in sorted(files, key=lambda file: file.name)
            if file.name.endswith(".sql")
        ]
    return found


def migrate(dsn: str, *, dry_run: bool = False) -> MigrationReport:
    """Apply what is missing.

    Raises:
        StoreUnavailable: no connection. Repeat.
        MigrationRefused: the database is of a later release, an applied migration was edited, or a privilege is
            missing. Nothing was changed.
    """
    with _connect(dsn) as connection:
        if connection.info.server_version < SERVER_VERSION_MIN:
            raise MigrationRefused(
                f"PostgreSQL {connection.info.server_version // 10000} is too old; 14 to 18 are supported"
            )
        # Before anything else is looked up. Else a stranger's function that fits an argument better than the built-in
        # one, in a schema of the default path where everybody may create, would run with our rights.
        connection.execute("set search_path = pg_catalog, pg_temp")
        connection.execute("select pg_advisory_lock(%s)", (LOCK_KEY,))
        _check_schema_owner(connection)
        applied = _applied(connection)
        pending = _pending(applied, scripts())
        if pending and not dry_run:
            _apply(connection, pending)
        return MigrationReport(tuple(pending), dry_run)


@contextmanager
def _connect(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(
            dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="fanfold migrate"
        ) as connection:
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationRefused(
            f"{error.diag.message_primary}: migrating needs a role that may create roles and a schema, or an "
            "administrator who ran `create role fanfold_owner nologin; create role fanfold_worker nologin; "
            "grant fanfold_owner to <you>; create schema fanfold authorization fanfold_owner;` before"
        ) from error
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"cannot migrate: {error}".strip()) from error


def _check_schema_owner(connection: psycopg.Connection[Any]) -> None:
    """A schema of somebody else is not even read: its owner could have put anything there, and change ours later."""
    row = connection.execute("select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'fanfold'").fetchone()
    if row is not None and row[0] != "fanfold_owner":
        raise MigrationRefused(
            f"the schema fanfold belongs to {row[0]}, not to fanfold_owner; whoever owns a schema can replace what is "
            "in it: drop or rename it, or take another database"
        )


def _applied(connection: psycopg.Connection[Any]) -> dict[tuple[str, str], tuple[str, str]]:
    """{(kind, name): (sha256, release)} of what the database has."""
    row = connection.execute("select to_regclass('fanfold.migration') is not null").fetchone()
    if row is None or not row[0]:
        return {}
    rows = connection.execute("select kind, name, sha256, release from fanfold.migration").fetchall()
    return {(kind, name): (sha256, release) for kind, name, sha256, release in rows}


def _pending(applied: dict[tuple[str, str], tuple[str, str]], ours: list[Script]) -> list[Script]:
    known = {(script.kind, script.name) for script in ours}
    newest = max((release for _, release in applied.values()), key=_version, default="0")
    unknown = sorted(name for kind, name in applied if kind == "migration" and (kind, name) not in known)
    if unknown or _version(newest) > _version(_release()):
        raise MigrationRefused(
            f"the database was migrated by fanfold {newest}, this is {_release()}"
            + (f" and does not know {', '.join(unknown)}" if unknown else "")
            + "; upgrade this installation, or point it at another database"
        )
    pending = []
    for script in ours:
        have = applied.get((script.kind, script.name))
        if have is None or (script.kind == "procedure" and have[0] != script.sha256):
            pending.append(script)
        elif have[0] != script.sha256:
            raise MigrationRefused(
                f"migration {script.name} was applied with other contents (sha256 {have[0][:12]}, here "
                f"{script.sha256[:12]}); an applied migration must never be edited: restore it and add a new one"
            )
    return pending


def _apply(connection: psycopg.Connection[Any], pending: list[Script]) -> None:
    with connection.transaction():
        _run(connection, _text("roles_before.sql"))
        connection.execute("set local role fanfold_owner")
        connection.execute(
            "create table if not exists fanfold.migration (kind text not null, name text not null,"
            " sha256 text not null, release text not null, applied_at timestamptz not null default now(),"
            " primary key (kind, name))"
        )
    # One transaction a migration; the procedures together, because some call others, and with their privileges, because
    # a new one is executable by everybody until these are set, and nothing would be pending any more to set them.
    steps = [[script] for script in pending if script.kind == "migration"]
    procedures = [script for script in pending if script.kind == "procedure"]
    for step in [*steps, procedures]:
        with connection.transaction():
            connection.execute("set local role fanfold_owner")
            # A procedure's body is checked when it is first called; another may not be there yet.
            connection.execute("set local check_function_bodies = off")
            for script in step:
                _run(connection, script.text)
                connection.execute(
                    "insert into fanfold.migration as m (kind, name, sha256, release) values (%s, %s, %s, %s)"
                    " on conflict (kind, name) do update set sha256 = excluded.sha256, release = excluded.release,"
                    " applied_at = now()",
                    (script.kind, script.name, script.sha256, _release()),
                )
            if step is procedures:
                _run(connection, _text("roles_after.sql"))


def _run(connection: psycopg.Connection[Any], text: str) -> None:
    # As bytes, because a text would have to be a literal; these are our own files, not anybody's input.
    connection.execute(text.encode())


def _text(name: str) -> str:
    return resources.files("fanfold_sql").joinpath(name).read_text(encoding="utf-8")


def _release() -> str:
    return metadata.version("fanfold")


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("+")[0].split(".") if part.isdigit())
