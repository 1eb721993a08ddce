"""One lock a thread, for savers, members and callers' transactions; none for the saver itself."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from fanfold_consumer.langgraph import FanfoldSaver
from fanfold_sql import Busy, CommitBatch, Store
from tests.sql.support import FanOutSpec, Worker
from tests.support.checkpoints import at, items_of, pool_of, put, read, until_somebody_waits, with_saver
from tests.support.database import Database
from tests.support.pgbouncer import PgBouncer, needs_pgbouncer


def test_a_put_waits_for_a_commit_of_the_fleet_to_the_same_thread_and_not_to_another(database: Database) -> None:
    async def body(saver: FanfoldSaver) -> None:
        with database.connect_as_worker() as connection:
            with connection.transaction():
                Worker(connection).commit([FanOutSpec(thread_id="t").result(0)])
                putting = asyncio.create_task(put(saver, at("t"), [1]))
                await until_somebody_waits(database.dsn)
                await put(saver, at("u"), [1])
                assert await saver.aget_tuple(at("t")) is None
            await putting
        assert items_of(await read(saver, "t")) == [1]

    with_saver(database.dsn, body)


def test_a_commit_of_the_fleet_finds_a_thread_busy_that_a_put_holds(database: Database) -> None:
    async def body(saver: FanfoldSaver) -> None:
        async with saver.locked("t"), Store.open(database.worker_dsn, pool_size=1) as store:
            with pytest.raises(Busy):
                await store.commit(CommitBatch([FanOutSpec(thread_id="t").result(0)]), wait_ms=0)

    with_saver(database.dsn, body)


def test_hundreds_of_tasks_use_one_saver_at_once_and_wait_for_their_own_thread_only(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        async with saver.locked("held"):
            stuck = asyncio.create_task(put(saver, at("held"), [1]))
            await asyncio.gather(*(put(saver, at(f"t{number}"), [number]) for number in range(200)))
            assert not stuck.done()
        await stuck
        assert items_of(await read(saver, "t199")) == [199]

    with_saver(empty_database, body)


def test_what_is_put_in_a_callers_transaction_is_stored_with_it_or_not_at_all(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await put(saver, at("t"), [])
        async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
            ours = FanfoldSaver(connection)
            async with connection.transaction(force_rollback=True):
                await put(ours, (await read(ours, "t")).config, ["gone"])
            assert items_of(await read(saver, "t")) == []
            async with connection.transaction():
                await connection.execute("create table along (with_it text)")
                await put(ours, (await read(ours, "t")).config, ["kept"])
        assert items_of(await read(saver, "t")) == ["kept"]

    with_saver(empty_database, body)


def test_a_block_under_the_lock_that_raises_stores_nothing(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        async def fails() -> None:
            async with saver.locked("t") as held:
                await put(held, at("t"), [1])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fails()
        assert await saver.aget_tuple(at("t")) is None

    with_saver(empty_database, body)


def test_many_tasks_share_a_saver_on_a_single_connection(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
            ours = FanfoldSaver(connection)

            async def use(thread_id: str) -> list[Any]:
                config = await put(ours, at(thread_id), [1])
                await ours.aput_writes(config, [("items", 2)], "task")
                return items_of(await read(ours, thread_id))

            assert await asyncio.gather(*(use(f"t{number}") for number in range(20))) == [[1]] * 20

    with_saver(empty_database, body)


@needs_pgbouncer
def test_it_works_behind_a_pooler_that_lends_connections_for_a_transaction(
    database: Database, pgbouncer: PgBouncer
) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as owner:
        owner.execute("grant create on schema public to public")
    pooled = pgbouncer.through(database.worker_dsn)

    async def body(saver: FanfoldSaver) -> None:
        async with pool_of(pooled, 8, prepare=False) as pool:
            plain = FanfoldSaver(pool)

            async def write(number: int) -> None:
                for ours in (saver, plain):
                    async with ours.locked("t") as held:
                        before = await held.aget_tuple(at("t"))
                        config = at("t") if before is None else before.config
                        await put(held, config, [*(items_of(before) if before else []), number])
                    config = await put(ours, at(f"own{number}"), [number])
                    await ours.aput_writes(config, [("items", number)], "task")

            await asyncio.gather(*map(write, range(10)))
        assert sorted(items_of(await read(saver, "t"))) == sorted([*range(10), *range(10)])

    with_saver(pooled, body, size=8)


def test_without_its_event_loop_in_the_way_the_plain_methods_work(empty_database: str) -> None:
    def elsewhere(saver: FanfoldSaver) -> list[Any]:
        config = asyncio.run_coroutine_threadsafe(put(saver, at("t"), [1]), saver.loop).result()
        saver.put_writes(config, [("items", 2)], "task")
        saver.copy_thread("t", "u")
        saver.prune(["u"])
        saver.delete_for_runs(["none"])
        found = saver.get_tuple(at("u"))
        assert found is not None
        assert [item.config for item in saver.list(at("u"))] == [found.config]
        saver.delete_thread("u")
        assert saver.get_tuple(at("u")) is None
        return items_of(found)

    async def body(saver: FanfoldSaver) -> list[Any]:
        return await asyncio.to_thread(elsewhere, saver)

    assert with_saver(empty_database, body) == [1]


@pytest.mark.parametrize(
    "call",
    [
        lambda saver: saver.get_tuple(at("t")),
        lambda saver: saver.prune(["t"]),
        lambda saver: saver.copy_thread("t", "u"),
        lambda saver: saver.delete_for_runs(["run"]),
    ],
    ids=["get_tuple", "prune", "copy_thread", "delete_for_runs"],
)
def test_on_the_event_loop_the_plain_methods_refuse_instead_of_waiting_for_ever(empty_database: str, call: Any) -> None:
    async def body(saver: FanfoldSaver) -> None:
        with pytest.raises(asyncio.InvalidStateError):
            call(saver)

    with_saver(empty_database, body)
