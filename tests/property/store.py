"""A database for a whole module of properties, whose examples roll back what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.support.database import Server


@contextmanager
def own_database(server: Server, template: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the owner of the schema to a new copy of a migrated database."""
    with (
        server.temporary_database(template) as name,
        psycopg.connect(server.dsn_for(name), autocommit=True) as connection,
    ):
        yield connection
