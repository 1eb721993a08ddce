"""Workers on a database of one's own, whose guarantees are checked when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.sql.support import Tables, Worker, assert_invariants
from tests.support.database import Database


@pytest.fixture
def make_worker(database: Database) -> Iterator[Callable[[], Worker]]:
    """More workers, each on its own connection and with its own owner id."""
    with ExitStack() as stack:
        yield lambda: Worker(stack.enter_context(database.connect_as_worker()))


@pytest.fixture
def tables(database: Database) -> Iterator[Tables]:
    with database.connect() as connection:
        yield Tables(connection)


@pytest.fixture
def worker(make_worker: Callable[[], Worker], tables: Tables) -> Iterator[Worker]:
    yield make_worker()
    assert_invariants(tables.connection)
