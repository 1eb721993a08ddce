"""From a stock saver's database to ours and back, with stock savers at work meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import sql
from psycopg.rows import dict_row

from fanfold_consumer.langgraph import FanfoldSaver
from tests.support.checkpoints import at, id_in, items_of, put, read, until_somebody_waits, with_saver
from tests.support.database import Server

_CATALOG = """
select 'relation', c.relname::text, c.relkind::text, c.relacl::text
from pg_class c where c.relnamespace = 'public'::regnamespace
union all
select 'column', a.attrelid::regclass::text, a.attname::text, a.atttypid::regtype::text
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'public'::regnamespace and not a.attisdropped and a.attnum > 0
union all select 'function', p.proname::text, '', '' from pg_proc p where p.pronamespace = 'public'::regnamespace
union all select 'trigger', t.tgname::text, t.tgrelid::regclass::text, '' from pg_trigger t
order by 1, 2, 3
"""


def _with_stock(dsn: str, body: Any) -> Any:
    async def main() -> Any:
        async with AsyncPostgresSaver.from_conn_string(dsn) as stock:
            await stock.setup()
            return await body(stock)

    return asyncio.run(main())


def _catalog(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(_CATALOG).fetchall()


def test_a_stock_savers_threads_are_gone_on_with(empty_database: str) -> None:
    async def before(stock: AsyncPostgresSaver) -> None:
        await put(stock, await put(stock, at("t"), [1]), [1, 2])

    async def body(saver: FanfoldSaver) -> None:
        found = await read(saver, "t")
        assert items_of(found) == [1, 2]
        await put(saver, found.config, [1, 2, 3], clock_ms=-60_000.0)
        assert items_of(await read(saver, "t")) == [1, 2, 3]
        assert await saver.aclock("t") == {"": 3}

    _with_stock(empty_database, before)
    with_saver(empty_database, body)


def test_a_stock_saver_reads_what_ours_wrote_and_ours_goes_on_with_what_it_writes(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await put(saver, at("t"), [1])
        async with AsyncPostgresSaver.from_conn_string(empty_database) as stock:
            found = await read(stock, "t")
            assert items_of(found) == [1]
            # The clock of this older member of a rolling upgrade is behind.
            await put(stock, found.config, [1, "stock"], clock_ms=-60_000.0)
        assert items_of(await read(saver, "t")) == [1, "stock"]

    with_saver(empty_database, body)


def test_pruning_a_stock_savers_thread_sets_its_clock_back_as_little_as_any_other(empty_database: str) -> None:
    async def before(stock: AsyncPostgresSaver) -> None:
        await put(stock, await put(stock, at("t"), [1]), [1, 2])

    async def body(saver: FanfoldSaver) -> None:
        await saver.aprune(["t"])
        head = await saver.ahead(at("t"))
        assert head is not None
        assert head.clock == 2

    _with_stock(empty_database, before)
    with_saver(empty_database, body)


def test_a_thread_that_a_stock_saver_deleted_is_gone_and_begins_anew_with_a_later_clock(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await put(saver, await put(saver, at("t"), [1]), [1, 2])
        async with AsyncPostgresSaver.from_conn_string(empty_database) as stock:
            await stock.adelete_thread("t")
        assert await saver.aget_tuple(at("t")) is None
        await put(saver, at("t"), ["anew"])
        assert items_of(await read(saver, "t")) == ["anew"]
        assert await saver.aclock("t") == {"": 3}

    with_saver(empty_database, body)


def test_where_the_head_was_deleted_by_hand_the_stock_savers_rule_holds_and_the_clock_stays(
    empty_database: str,
) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [1])
        second = await put(saver, first, [1, 2])
        async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as operator:
            await operator.execute("delete from checkpoints where checkpoint_id = %s", (id_in(second),))
        head = await saver.ahead(at("t"))
        assert head is not None
        assert (head.checkpoint_id, head.clock) == (id_in(first), 2)
        assert items_of(await read(saver, "t")) == [1]

    with_saver(empty_database, body)


def test_a_stock_saver_waits_for_a_put_of_ours(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        async with AsyncPostgresSaver.from_conn_string(empty_database) as stock:
            async with saver.locked("t") as held:
                first = await put(held, at("t"), [1])
                putting = asyncio.create_task(put(stock, at("t"), ["stock"]))
                await until_somebody_waits(empty_database)
                await put(held, first, [1, 2])
            await putting
        assert items_of(await read(saver, "t")) == ["stock"]

    with_saver(empty_database, body)


def test_a_role_that_knows_of_no_heads_goes_on_writing_with_a_stock_saver(empty_database: str) -> None:
    role = sql.Identifier(f"stock_{empty_database[-8:]}")

    async def body(saver: FanfoldSaver) -> None:
        async with await psycopg.AsyncConnection.connect(
            empty_database, autocommit=True, row_factory=dict_row
        ) as connection:
            await connection.execute(sql.SQL("create role {}").format(role))
            try:
                for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
                    grant = sql.SQL("grant select, insert, update on {} to {}").format(sql.Identifier(table), role)
                    await connection.execute(grant)
                await connection.execute(sql.SQL("set role {}").format(role))
                await put(AsyncPostgresSaver(connection), at("t"), ["stock"])
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute("select * from checkpoint_heads")
            finally:
                await connection.execute("reset role")
                await connection.execute(sql.SQL("drop owned by {}; drop role {}").format(role, role))
        assert items_of(await read(saver, "t")) == ["stock"]

    with_saver(empty_database, body)


def test_setting_up_again_changes_nothing_and_waits_for_no_writer(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await put(saver, at("t"), [1])
        before = await asyncio.to_thread(_catalog, empty_database)
        async with saver.locked("t") as held:
            await put(held, at("t"), [1, 2])
            await saver.setup()
        assert await asyncio.to_thread(_catalog, empty_database) == before
        assert items_of(await read(saver, "t")) == [1, 2]

    with_saver(empty_database, body)


def test_many_may_set_up_a_new_database_at_once_and_it_is_the_stock_savers(
    empty_database: str, postgres_server: Server
) -> None:
    async def set_up() -> None:
        async with FanfoldSaver.from_conn_string(empty_database, size=1) as saver:
            await saver.setup()

    async def everybody() -> None:
        await asyncio.gather(*(set_up() for _ in range(6)))

    async def nothing(stock: AsyncPostgresSaver) -> None:
        return None

    async def body(saver: FanfoldSaver) -> None:
        await saver.revert()

    asyncio.run(everybody())
    with_saver(empty_database, body)
    with postgres_server.temporary_database() as name:
        _with_stock(postgres_server.dsn_for(name), nothing)
        assert _catalog(empty_database) == _catalog(postgres_server.dsn_for(name))


def test_on_the_way_back_no_trace_is_left_and_the_stock_saver_finds_the_same_heads(empty_database: str) -> None:
    async def nothing(stock: AsyncPostgresSaver) -> None:
        return None

    async def body(saver: FanfoldSaver) -> None:
        await put(saver, await put(saver, at("good"), [1]), [1, 2])
        ahead = await put(saver, at("skewed"), [1], clock_ms=60_000.0)
        await put(saver, ahead, [1, 2])
        assert await saver.revert() == 1
        assert await saver.revert() == 0

    async def after(stock: AsyncPostgresSaver) -> None:
        assert items_of(await read(stock, "good")) == [1, 2]
        found = await read(stock, "skewed")
        assert items_of(found) == [1, 2]
        assert found.checkpoint["id"] == id_in(found.config)
        assert (found.metadata["source"], found.metadata["step"]) == ("fork", 3)

    _with_stock(empty_database, nothing)
    before = _catalog(empty_database)
    with_saver(empty_database, body)
    assert _catalog(empty_database) == before
    _with_stock(empty_database, after)


def test_a_database_that_was_taken_back_can_be_taken_over_again(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [1])
        await saver.revert()
        await saver.setup()
        await put(saver, first, [1, 2], clock_ms=-60_000.0)
        assert items_of(await read(saver, "t")) == [1, 2]

    with_saver(empty_database, body)


def test_set_up_on_a_connection_as_the_stock_savers_documentation_makes_it(empty_database: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(
            empty_database, autocommit=True, prepare_threshold=0, row_factory=dict_row
        ) as connection:
            saver = FanfoldSaver(connection)
            await saver.setup()
            await put(saver, at("t"), [1])
            assert items_of(await read(saver, "t")) == [1]
            assert await saver.revert() == 0

    asyncio.run(main())


def test_tables_in_a_schema_of_their_own_are_found_where_the_connection_looks(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute('create schema "My Graphs"')
    dsn = psycopg.conninfo.make_conninfo(empty_database, options='-csearch_path="My\\ Graphs"')

    async def body(saver: FanfoldSaver) -> None:
        await put(saver, await put(saver, at("t"), [1]), [1, 2], clock_ms=-60_000.0)
        assert items_of(await read(saver, "t")) == [1, 2]

    with_saver(dsn, body)
    with psycopg.connect(empty_database) as connection:
        assert connection.execute('select clock from "My Graphs".checkpoint_heads').fetchall() == [(2,)]
