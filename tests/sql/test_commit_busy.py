"""Threads that others commit to: a commit waits for them, does not, or not for long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from fanfold_sql import Busy, CommitBatch, CommitReply, FanOutState, Finished, Store, StoreUnavailable
from tests.sql.support import FanOutSpec
from tests.support.database import Database

_HOT = FanOutSpec(id="f-hot", thread_id="hot")
_COLD = FanOutSpec(id="f-cold", thread_id="cold")


@pytest.fixture
def held(database: Database) -> Iterator[psycopg.Connection]:
    """A session that keeps the hot thread's lock until it is closed."""
    with database.connect() as connection:
        connection.execute("select pg_advisory_lock(hashtextextended('hot', 4207))")
        yield connection


def _commit(dsn: str, *results: Finished, wait_ms: int | None) -> CommitReply:
    async def commit() -> CommitReply:
        async with Store.open(dsn, pool_size=1) as store:
            return await store.commit(CommitBatch(list(results)), wait_ms=wait_ms)

    return asyncio.run(commit())


def _fan_out(database: Database, fan_out_id: str) -> FanOutState | None:
    async def read() -> FanOutState | None:
        async with Store.open(database.worker_dsn, pool_size=1) as store:
            return await store.read_fan_out(fan_out_id)

    return asyncio.run(read())


def test_a_commit_that_does_not_wait_says_whose_threads_are_busy_and_stores_nothing(
    database: Database, held: psycopg.Connection
) -> None:
    with pytest.raises(Busy) as refused:
        _commit(database.worker_dsn, _COLD.result(0), _HOT.result(0), wait_ms=0)
    assert refused.value.thread_ids == {"hot"}
    assert _fan_out(database, "f-cold") is None


def test_the_others_can_be_committed_then_and_the_busy_one_when_it_is_free(
    database: Database, held: psycopg.Connection
) -> None:
    _commit(database.worker_dsn, _COLD.result(0), wait_ms=0)
    held.close()
    _commit(database.worker_dsn, _HOT.result(0), wait_ms=0)
    assert _fan_out(database, "f-hot") is not None


def test_a_commit_gives_up_a_thread_after_so_long_and_stores_nothing(
    database: Database, held: psycopg.Connection
) -> None:
    with pytest.raises(Busy, match="lock timeout"):
        _commit(database.worker_dsn, _COLD.result(0), _HOT.result(0), wait_ms=5)
    assert _fan_out(database, "f-cold") is None


def test_the_limit_is_gone_when_the_threads_are_locked(database: Database) -> None:
    # Else a partition's row that somebody else holds for a moment would be taken for a busy thread.
    with database.connect() as connection:
        connection.execute("create table seen (lock_timeout text)")
        connection.execute(
            "create function note() returns trigger language plpgsql as $$ begin"
            " insert into public.seen values (current_setting('lock_timeout')); return new; end $$"
        )
        connection.execute("create trigger note after insert on fanfold.result execute function note()")
        connection.execute("grant insert on seen to public")
        _commit(database.worker_dsn, _COLD.result(0), wait_ms=5)
        assert connection.execute("select distinct lock_timeout from seen").fetchall() == [("0",)]


def test_a_limit_of_the_servers_is_not_taken_for_a_busy_thread(database: Database, held: psycopg.Connection) -> None:
    dsn = psycopg.conninfo.make_conninfo(database.worker_dsn, options="-c lock_timeout=5ms")
    with pytest.raises(StoreUnavailable, match="lock timeout"):
        _commit(dsn, _HOT.result(0), wait_ms=None)
