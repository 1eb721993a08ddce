"""A fresh, migrated database per test, copied from a template that is migrated once per run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_WORKER_ROLE = "fanfold_worker"


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server and a superuser's DSN for it."""

    dsn: str

    def dsn_for(self, database: str, **overrides: str) -> str:
        parts = {**conninfo_to_dict(self.dsn), "dbname": database, **overrides}
        return make_conninfo("", **{name: value for name, value in parts.items() if value is not None})

    @contextmanager
    def temporary_database(self, template: str | None = None) -> Iterator[str]:
        """The name of a new database, dropped afterwards with whoever is still connected to it."""
        name = f"fanfold_test_{uuid.uuid4().hex[:12]}"
        source = sql.SQL("") if template is None else sql.SQL(" template {}").format(sql.Identifier(template))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)) + source)
        try:
            yield name
        finally:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def worker_login(self) -> Iterator[tuple[str, str]]:
        """User and password of a new LOGIN role that may do what a worker may, and nothing else."""
        name = f"fanfold_test_worker_{uuid.uuid4().hex[:12]}"
        password = uuid.uuid4().hex
        role = sql.Identifier(name)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("create role {} login password {}").format(role, sql.Literal(password)))
            connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(_WORKER_ROLE), role))
        try:
            yield name, password
        finally:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("drop role if exists {}").format(role))


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated database: as its owner (`dsn`, a superuser) and as a worker (`worker_dsn`)."""

    name: str
    dsn: str
    worker_dsn: str

    def connect(self) -> psycopg.Connection:
        """A new autocommit connection as the owner. Close it, or use it as a context manager."""
        return psycopg.connect(self.dsn, autocommit=True)

    def connect_as_worker(self) -> psycopg.Connection:
        return psycopg.connect(self.worker_dsn, autocommit=True)
