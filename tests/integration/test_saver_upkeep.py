"""Copying, thinning out and deleting threads, where heads are not the newest ids."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig

from fanfold_consumer.langgraph import FanfoldSaver
from tests.support.checkpoints import at, id_in, items_of, put, read, with_saver


async def _listed(saver: FanfoldSaver, thread_id: str) -> list[list[Any]]:
    return [items_of(found) async for found in saver.alist(at(thread_id))]


async def _skewed(saver: FanfoldSaver, thread_id: str, **metadata: Any) -> list[RunnableConfig]:
    """Three checkpoints, each by a clock a minute behind the one before."""
    configs = [at(thread_id)]
    for n in range(3):
        configs.append(await put(saver, configs[-1], list(range(n)), clock_ms=-60_000.0 * n, **metadata))
    return configs[1:]


def _count(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_pruning_keeps_the_head_and_what_it_needs_and_no_more(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        configs = await _skewed(saver, "t")
        await saver.aput_writes(configs[0], [("items", 0)], "old")
        await saver.aput_writes(configs[-1], [("items", 0)], "pending")
        await _skewed(saver, "other")

        await saver.aprune(["t"])

        assert await _listed(saver, "t") == [[0, 1]]
        assert (await read(saver, "t")).parent_config is None
        assert (await read(saver, "t")).pending_writes == [("pending", "items", 0)]
        assert len(await _listed(saver, "other")) == 3
        # And the thread goes on.
        await put(saver, configs[-1], ["next"])
        assert items_of(await read(saver, "t")) == ["next"]

    with_saver(empty_database, body)
    assert _count(empty_database, "checkpoint_blobs where thread_id = 't'") == 2
    assert _count(empty_database, "checkpoint_writes") == 1


def test_pruning_keeps_the_whole_line_of_a_thread_with_delta_channels_and_drops_what_was_abandoned(
    empty_database: str,
) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [1], counters_since_delta_snapshot={"items": [1, 1]})
        await put(saver, first, [1, "abandoned"])
        past = await saver.aget_tuple(first)
        assert past is not None
        await put(saver, past.config, [1, 2])

        await saver.aprune(["t"])

        assert sorted(map(str, await _listed(saver, "t"))) == ["[1, 2]", "[1]"]

    with_saver(empty_database, body)


def test_pruning_drops_the_calls_of_subgraphs_that_are_over_and_keeps_those_of_the_head(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        first = await put(saver, at("t"), [1])
        await put(saver, at("t", checkpoint_ns="node:task1"), [], parents={"": id_in(first)})
        second = await put(saver, first, [1, 2])
        await put(saver, at("t", checkpoint_ns="node:task2"), [], parents={"": id_in(second)})
        await put(saver, at("t", checkpoint_ns="lasting"), [], parents={"": id_in(first)})

        await saver.aprune(["t"])

        assert set(await saver.aclock("t")) == {"", "node:task2", "lasting"}

    with_saver(empty_database, body)


def test_deleting_a_run_gives_the_head_back_to_the_checkpoint_before_it(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        kept = await _skewed(saver, "t", run_id="kept")
        gone = await put(saver, kept[-1], ["gone"], clock_ms=60_000.0, run_id="gone")
        await put(saver, gone, ["gone", "too"], run_id="gone")

        await saver.adelete_for_runs(["gone"])

        head = await saver.ahead(at("t"))
        assert head is not None
        # By the largest id it would have been the first of the three.
        assert head.checkpoint_id == id_in(kept[-1])
        assert head.clock == 6
        await put(saver, kept[-1], ["on"])
        assert items_of(await read(saver, "t")) == ["on"]

    with_saver(empty_database, body)


def test_deleting_a_thread_leaves_nothing_of_it(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        for thread_id in ("deleted", "pruned", "of a run"):
            config = (await _skewed(saver, thread_id, run_id=thread_id))[-1]
            await saver.aput_writes(config, [("items", 1)], "task")
        await saver.adelete_thread("deleted")
        await saver.aprune(["pruned"], strategy="delete")
        await saver.adelete_for_runs(["of a run"])
        assert await saver.aget_tuple(at("deleted")) is None

    with_saver(empty_database, body)
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_heads"):
        assert _count(empty_database, table) == 0, table


def test_a_copy_has_the_same_head_and_clock_and_goes_its_own_way(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        last = (await _skewed(saver, "source"))[-1]

        await saver.acopy_thread("source", "target")

        assert await saver.ahead(at("target")) == await saver.ahead(at("source"))
        await put(saver, at("target", id_in(last)), ["on"])
        assert items_of(await read(saver, "source")) == [0, 1]

    with_saver(empty_database, body)


def test_a_copy_over_a_thread_that_has_checkpoints_is_refused(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await _skewed(saver, "source")
        await put(saver, at("target"), ["mine"])
        with pytest.raises(ValueError, match="target"):
            await saver.acopy_thread("source", "target")
        assert await _listed(saver, "target") == [["mine"]]

    with_saver(empty_database, body)


@pytest.mark.parametrize(
    ("thread_ids", "strategy", "error"), [("t", "keep_latest", TypeError), (["t"], "all", ValueError)]
)
def test_pruning_what_is_not_meant_is_refused(
    empty_database: str, thread_ids: Any, strategy: str, error: type[Exception]
) -> None:
    async def body(saver: FanfoldSaver) -> None:
        await _skewed(saver, "t")
        with pytest.raises(error):
            await saver.aprune(thread_ids, strategy=strategy)
        assert len(await _listed(saver, "t")) == 3

    with_saver(empty_database, body)
