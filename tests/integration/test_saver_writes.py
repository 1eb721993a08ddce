"""Pending writes of many tasks at once."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from fanfold_consumer.langgraph import FanfoldSaver, TaskWrites
from tests.support.checkpoints import at, put, read, until_somebody_waits, with_saver

_WIDE = 5_000


async def _written(saver: FanfoldSaver) -> list[tuple[str, str, Any]]:
    return sorted((await read(saver, "t")).pending_writes or [])


def test_thousands_of_tasks_land_at_once(empty_database: str) -> None:
    tasks = [TaskWrites(f"task{n}", [("items", [n]), ("branch:to:x", None)], f"~{n:010d}") for n in range(_WIDE)]

    async def body(saver: FanfoldSaver) -> None:
        config = await put(saver, at("t"), [])
        stored = await saver.aput_task_writes(config, tasks)
        assert stored == {task.task_id for task in tasks}
        pending = (await read(saver, "t")).pending_writes
        assert pending is not None
        assert sorted(pending, key=lambda write: int(write[0].removeprefix("task"))) == [
            (task.task_id, channel, value) for task in tasks for channel, value in task.writes
        ]

    with_saver(empty_database, body)


def test_the_rows_are_those_that_the_stock_saver_writes(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        writes = [("a", {"k": (1, b"2")}), ("b", None), (ERROR, "why"), ("c", "text")]
        await put(saver, at("one"), [])
        await put(saver, at("many"), [])
        one, many = await read(saver, "one"), await read(saver, "many")
        await saver.aput_writes(one.config, writes, "task", "path")
        await saver.aput_task_writes(many.config, [TaskWrites("task", writes, "path")])
        assert (await read(saver, "one")).pending_writes == (await read(saver, "many")).pending_writes

    with_saver(empty_database, body)
    with psycopg.connect(empty_database) as connection:
        rows = connection.execute(
            "select array_agg((task_id, task_path, idx, channel, type, blob)::text order by idx) "
            "from checkpoint_writes group by thread_id"
        ).fetchall()
    assert rows[0] == rows[1]


def test_a_task_that_has_written_keeps_all_of_its_first_attempt(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        config = await put(saver, at("t"), [])
        await saver.aput_writes(config, [("a", 1)], "done")

        stored = await saver.aput_task_writes(
            config,
            [
                TaskWrites("done", [("a", 2), ("b", 2)]),
                TaskWrites("done", [(ERROR, "late")]),
                TaskWrites("new", [("a", 3), ("b", 3)]),
                TaskWrites("new", [("a", 4), ("b", 4), ("c", 4)]),
            ],
        )

        assert stored == {"new"}
        assert await _written(saver) == [("done", "a", 1), ("new", "a", 3), ("new", "b", 3)]

    with_saver(empty_database, body)


def test_a_second_finisher_waits_for_the_first_and_adds_nothing_to_its_tasks(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        config = await put(saver, at("t"), [])
        async with saver.locked("t") as held:
            assert await held.aput_task_writes(config, [TaskWrites("task", [("a", 1)])]) == {"task"}
            second = asyncio.create_task(
                saver.aput_task_writes(
                    config, [TaskWrites("task", [("a", 2), ("b", 2)]), TaskWrites("new", [("a", 2)])]
                )
            )
            await until_somebody_waits(empty_database)
        assert await second == {"new"}
        assert await _written(saver) == [("new", "a", 2), ("task", "a", 1)]

    with_saver(empty_database, body)


def test_a_parked_task_takes_its_result_and_a_new_question_replaces_the_old_one(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        config = await put(saver, at("t"), [])
        for task_id in ("answered", "asks"):
            await saver.aput_writes(config, [(INTERRUPT, "parked")], task_id)

        stored = await saver.aput_task_writes(
            config, [TaskWrites("answered", [("a", 1)]), TaskWrites("asks", [(INTERRUPT, "which?")])]
        )

        assert stored == {"answered", "asks"}
        assert await _written(saver) == [
            ("answered", INTERRUPT, "parked"),
            ("answered", "a", 1),
            ("asks", INTERRUPT, "which?"),
        ]

    with_saver(empty_database, body)


def test_a_task_without_writes_is_refused_because_it_would_look_unfinished(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        config = await put(saver, at("t"), [])
        with pytest.raises(ValueError, match="task7"):
            await saver.aput_task_writes(config, [TaskWrites("task7", [])])
        assert await saver.aput_task_writes(config, []) == frozenset()

    with_saver(empty_database, body)
