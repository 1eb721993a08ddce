"""Who may go on from which checkpoint, and which one is the latest."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver

from fanfold_consumer import ConfigError
from fanfold_consumer.langgraph import FanfoldSaver, ForkRefused
from tests.support.checkpoints import at, id_in, items_of, made, pool_of, put, read, until_somebody_waits, with_saver

_WRITERS = 100


@pytest.mark.parametrize("skew_ms", [10.0, 250.0])
def test_of_a_hundred_writers_on_one_thread_with_half_the_clocks_wrong_none_is_lost(
    empty_database: str, skew_ms: float
) -> None:
    async def body(saver: FanfoldSaver) -> list[Any]:
        await put(saver, at("t"), [])

        async def write(number: int) -> None:
            async with saver.locked("t") as held:
                before = await read(held, "t")
                clock_ms = skew_ms if number % 2 else 0.0
                await put(held, before.config, [*items_of(before), number], clock_ms=clock_ms)

        await asyncio.gather(*map(write, range(_WRITERS)))
        return items_of(await read(saver, "t"))

    assert sorted(with_saver(empty_database, body, size=8)) == list(range(_WRITERS))


def test_writers_that_try_again_when_they_are_refused_lose_nothing_either(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> tuple[list[Any], int]:
        refused = 0
        await put(saver, at("t"), [])

        async def write(number: int) -> None:
            nonlocal refused
            while True:
                before = await read(saver, "t")
                try:
                    await put(saver, before.config, [*items_of(before), number], clock_ms=-250.0 * (number % 2))
                except ForkRefused:
                    refused += 1
                else:
                    return

        await asyncio.gather(*map(write, range(12)))
        return items_of(await read(saver, "t")), refused

    items, refused = with_saver(empty_database, body, size=8)
    assert sorted(items) == list(range(12))
    assert refused, "nobody was ever overtaken: this has shown nothing"


def test_a_writer_that_was_overtaken_is_refused_with_both_heads_and_stores_nothing(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await put(saver, at("t"), [])
        ours, theirs = await read(saver, "t"), await read(saver, "t")
        first = await put(saver, ours.config, ["ours"])

        with pytest.raises(ForkRefused) as refused:
            await put(saver, theirs.config, ["theirs"], clock_ms=1000.0)

        assert (refused.value.thread_id, refused.value.checkpoint_ns) == ("t", "")
        assert refused.value.parent == id_in(theirs.config)
        assert refused.value.head == id_in(first)
        assert refused.value.parent in str(refused.value)
        assert refused.value.head in str(refused.value)
        assert [items_of(found) async for found in saver.alist(at("t"))] == [["ours"], []]
        assert await saver.aclock("t") == {"": 2}

    with_saver(empty_database, body)


def test_the_latest_checkpoint_is_the_one_put_last_though_its_clock_is_behind(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        ahead = await put(saver, at("t"), [1], clock_ms=60_000.0)
        behind = await put(saver, ahead, [1, 2], clock_ms=-60_000.0)
        assert id_in(behind) < id_in(ahead)

        assert items_of(await read(saver, "t")) == [1, 2]
        head = await saver.ahead(at("t"))
        assert head is not None
        assert (head.checkpoint_id, head.clock) == (id_in(behind), 2)

    with_saver(empty_database, body)


def test_who_loads_an_old_checkpoint_by_its_id_may_fork_and_the_fork_is_the_head(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        old = await put(saver, at("t"), [1])
        await put(saver, old, [1, 2])
        past = await saver.aget_tuple(old)
        assert past is not None

        await put(saver, past.config, [1, "fork"], clock_ms=-1000.0)

        assert items_of(await read(saver, "t")) == [1, "fork"]
        assert await saver.aclock("t") == {"": 3}

    with_saver(empty_database, body)


def test_an_old_checkpoint_that_was_listed_may_be_forked(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        old = await put(saver, at("t"), [1])
        await put(saver, old, [1, 2])
        listed = [found async for found in saver.alist(at("t"))]

        await put(saver, listed[-1].config, [1, "fork"])

        assert items_of(await read(saver, "t")) == [1, "fork"]

    with_saver(empty_database, body)


def test_a_mark_of_one_fork_is_no_leave_for_another(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [1])
        second = await put(saver, first, [1, 2])
        third = await put(saver, second, [1, 2, 3])
        past = await saver.aget_tuple(first)
        assert past is not None
        stale = {"configurable": {**past.config["configurable"], "checkpoint_id": id_in(second)}}

        with pytest.raises(ForkRefused) as refused:
            await put(saver, stale, ["stray"])  # type: ignore[arg-type]

        assert refused.value.head == id_in(third)

    with_saver(empty_database, body)


def test_naming_the_head_by_its_id_is_no_fork_so_who_is_overtaken_is_refused(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        head = await put(saver, at("t"), [1])
        named = await saver.aget_tuple(head)
        assert named is not None
        await put(saver, head, [1, "other"])

        with pytest.raises(ForkRefused):
            await put(saver, named.config, [1, "ours"])

    with_saver(empty_database, body)


def test_the_same_put_again_is_taken_and_moves_no_head(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [])
        checkpoint = made(["once"])
        told: Any = {"source": "loop", "step": 1, "parents": {}}
        once = await saver.aput(first, checkpoint, told, checkpoint["channel_versions"])
        last = await put(saver, once, ["once", "more"])

        again = await saver.aput(first, checkpoint, told, checkpoint["channel_versions"])

        assert id_in(again) == id_in(once)
        assert id_in((await read(saver, "t")).config) == id_in(last)
        assert await saver.aclock("t") == {"": 3}

    with_saver(empty_database, body)


def test_namespaces_and_threads_have_heads_of_their_own(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        for config in (at("t"), at("t", checkpoint_ns="sub:1"), at("u")):
            first = await put(saver, config, [])
            await put(saver, first, [config["configurable"]["checkpoint_ns"]], clock_ms=-1000.0)

        assert await saver.aclock("t") == {"": 2, "sub:1": 2}
        sub = await saver.aget_tuple(at("t", checkpoint_ns="sub:1"))
        assert sub is not None
        assert items_of(sub) == ["sub:1"]

    with_saver(empty_database, body)


@pytest.mark.skipif(
    not hasattr(BaseCheckpointSaver, "aget_delta_channel_history"), reason="this LangGraph has no DeltaChannel"
)
@pytest.mark.parametrize("step_ms", [1.0, -60_000.0], ids=["clocks that are right", "clocks that are wrong"])
def test_what_a_delta_channel_is_put_together_from_is_the_line_to_the_head(empty_database: str, step_ms: float) -> None:
    async def body(saver: FanfoldSaver) -> None:
        config = at("t")
        for n in range(4):
            config = await put(saver, config, [n], clock_ms=n * step_ms)
            await saver.aput_writes(config, [("delta", n)], f"task{n}")

        for where in (at("t"), config):
            history = await saver.aget_delta_channel_history(config=where, channels=["delta"])
            # The head's own writes are not in its value yet.
            assert [value for _, _, value in history["delta"]["writes"]] == [0, 1, 2]
        empty = await saver.aget_delta_channel_history(config=at("none"), channels=["delta"])
        assert empty == {"delta": {"writes": []}}

    with_saver(empty_database, body)


def test_a_transaction_whose_snapshot_is_older_than_the_lock_is_refused(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [])
        async with await psycopg.AsyncConnection.connect(empty_database) as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            with pytest.raises(ConfigError, match="READ COMMITTED"):
                await put(FanfoldSaver(connection), first, [1])

    with_saver(empty_database, body)


def test_a_connection_killed_in_the_middle_of_a_put_leaves_nothing_half(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [])
        async with (
            pool_of(empty_database, 1) as pool,
            await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as operator,
        ):
            victim = FanfoldSaver(pool)
            async with operator.transaction():
                # Blobs are in, the checkpoint is next.
                await operator.execute("lock table checkpoints in exclusive mode")
                putting = asyncio.create_task(put(victim, first, ["half"]))
                await until_somebody_waits(empty_database, "relation")
                await operator.execute(
                    "select pg_terminate_backend(pid) from pg_locks where not granted and relation is not null"
                )
                with pytest.raises(psycopg.OperationalError):
                    await putting
            rows = await (await operator.execute("select count(*) from checkpoint_blobs")).fetchone()
            assert rows == (1,)
            assert id_in((await read(saver, "t")).config) == id_in(first)
            await put(victim, first, ["whole"])
            assert items_of(await read(saver, "t")) == ["whole"]

    with_saver(empty_database, body)
