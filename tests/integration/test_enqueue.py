"""Publishing inside the caller's transaction: in the outbox if it commits, nowhere if it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from fanfold_producer import aenqueue, enqueue
from fanfold_producer.fan_out import build_fan_out
from fanfold_schemas import SchemaError, derive_task_id, unpack_headers
from fanfold_sql import MigrationNeeded, OutboxRow, Store
from tests.support.database import Database


def _due(database: Database) -> list[OutboxRow]:
    """What a relay would publish now, leased for no time."""

    async def claim() -> list[OutboxRow]:
        async with Store.open(database.worker_dsn) as store:
            return await store.claim_outbox(limit=10_000, lease_ms=0)

    return asyncio.run(claim())


def test_an_enqueued_fan_out_is_seen_after_the_commit_and_not_before(database: Database) -> None:
    with psycopg.connect(database.worker_dsn) as connection:
        enqueued = enqueue(connection, "t", [("a", 1), ("b", 2)], topic="tasks", fold="sum", fan_out_id="f")
        assert _due(database) == []
        connection.commit()
    assert enqueued.task_ids == (derive_task_id("f", 0), derive_task_id("f", 1))
    built = build_fan_out("t", [("a", 1), ("b", 2)], topic="tasks", fold="sum", fan_out_id="f")
    rows = sorted(_due(database), key=lambda row: row.outbox_id)
    assert [(row.topic, row.key, row.value) for row in rows] == [(r.topic, r.key, r.value) for r in built.records]
    assert [unpack_headers(row.headers) for row in rows] == [list(record.headers) for record in built.records]


def test_nothing_is_left_of_an_enqueued_fan_out_after_a_rollback(database: Database) -> None:
    with psycopg.connect(database.worker_dsn) as connection:
        enqueue(connection, "t", [("a", 1)])
        connection.rollback()
    assert _due(database) == []


def test_an_autocommit_connection_gets_a_transaction_for_the_whole_fan_out(database: Database) -> None:
    with database.connect_as_worker() as connection:
        enqueue(connection, "t", [("a", n) for n in range(2500)])
        with pytest.raises(SchemaError):
            enqueue(connection, "t", [("a", 1), ("a", object())])
    assert len(_due(database)) == 2500


def test_an_autocommit_connection_inside_a_block_commits_with_the_block(database: Database) -> None:
    with database.connect_as_worker() as connection:
        with connection.transaction(force_rollback=True):
            enqueue(connection, "t", [("a", 1)])
        with connection.transaction():
            enqueue(connection, "t", [("a", 1)])
    assert len(_due(database)) == 1


def test_an_asynchronous_connection_does_the_same(database: Database) -> None:
    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(database.worker_dsn) as connection:
            await aenqueue(connection, "t", [("a", 1)])
            await connection.rollback()
            await aenqueue(connection, "t", [("a", 1), ("a", 2)])
        async with await psycopg.AsyncConnection.connect(database.worker_dsn, autocommit=True) as connection:
            await aenqueue(connection, "t", [("a", 3)])

    asyncio.run(scenario())
    assert len(_due(database)) == 3


def test_a_delayed_fan_out_is_not_due_yet(database: Database) -> None:
    with database.connect_as_worker() as connection:
        enqueue(connection, "t", [("a", 1)], delay=timedelta(hours=1))
        assert _due(database) == []
        row = connection.execute("select waiting from fanfold.outbox_stats()").fetchone()
        assert row == (1,)
        for delay in (timedelta(seconds=-1), timedelta(days=25)):
            with pytest.raises(ValueError, match="24 days"):
                enqueue(connection, "t", [("a", 1)], delay=delay)


def test_a_database_without_an_outbox_says_to_migrate(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection, pytest.raises(MigrationNeeded, match="fanfold migrate"):
        enqueue(connection, "t", [("a", 1)])


def test_other_errors_of_postgres_stay_psycopgs_own(database: Database) -> None:
    with psycopg.connect(database.worker_dsn) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            enqueue(connection, "t", [("a", 1)])
