"""Dead letters in the caller's own transaction: what is found out, queued and marked there holds together.

A redrive is `lock_dead_letters`, then `judge_dead_letters`, then the records (`reopen_fan_out` and `enqueue_records`,
or `reopen_fold`), then `resolve_dead_letters`: all in one transaction (see `Store.transaction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import psycopg

from fanfold_sql.records import DeadLetterFilter, Standing, StoredDeadLetter

Resolution = Literal["redriven", "dropped"]

LIST_DEAD_LETTERS = (
    "select * from fanfold.list_dead_letters(%s::int8[], %s::text, %s::text, %s::text, %s::text, %s::text,"
    " %s::text[], %s::timestamptz, %s::timestamptz, %s::bool, %s::bool, %s::int8, %s::int4)"
)
COUNT_DEAD_LETTERS = (
    "select code, letters, newest_id from fanfold.count_dead_letters(%s::int8[], %s::text, %s::text, %s::text,"
    " %s::text, %s::text, %s::text[], %s::timestamptz, %s::timestamptz, %s::bool)"
)


def filter_parameters(where: DeadLetterFilter) -> list[Any]:
    """Parameters of `COUNT_DEAD_LETTERS`, and the first of `LIST_DEAD_LETTERS`."""
    return [
        None if where.ids is None else list(where.ids),
        where.topic,
        where.group_id,
        where.thread_id,
        where.fan_out_id,
        where.task_id,
        None if where.codes is None else list(where.codes),
        where.since,
        where.until,
        where.unresolved,
    ]


async def lock_dead_letters(connection: psycopg.AsyncConnection[Any], ids: Sequence[int]) -> None:
    """Keep dead letters, and the threads of their tasks, as they are until the transaction ends."""
    await connection.execute("select fanfold.lock_dead_letters(%s::int8[])", (list(ids),))


async def read_dead_letters(connection: psycopg.AsyncConnection[Any], ids: Sequence[int]) -> list[StoredDeadLetter]:
    """Those of them that there are, with their bytes, in the order of their ids."""
    parameters = [*filter_parameters(DeadLetterFilter(ids=ids)), True, 0, len(ids)]
    cursor = await connection.execute(LIST_DEAD_LETTERS, parameters, binary=True)
    return [StoredDeadLetter(*row) for row in await cursor.fetchall()]


async def judge_dead_letters(connection: psycopg.AsyncConnection[Any], ids: Sequence[int]) -> dict[int, Standing]:
    """{id: where its task stands}, of those that there are. It holds if they are locked."""
    cursor = await connection.execute(
        "select dead_letter_id, resolution, newer_id, ended_by, fan_out_run, complete, refused, status, run, index,"
        " arg_hash from fanfold.judge_dead_letters(%s::int8[])",
        (list(ids),),
    )
    return {row[0]: Standing(*row) for row in await cursor.fetchall()}


async def resolve_dead_letters(
    connection: psycopg.AsyncConnection[Any], ids: Sequence[int], resolution: Resolution
) -> set[int]:
    """Mark dead letters. Returns those that were unresolved until now; the others stay as they were marked first."""
    cursor = await connection.execute("select fanfold.resolve_dead_letters(%s::int8[], %s)", (list(ids), resolution))
    row = await cursor.fetchone()
    return set(row[0]) if row else set()


async def reopen_fold(connection: psycopg.AsyncConnection[Any], fan_out_id: str) -> int | None:
    """Queue a fold that failed once more. Returns its new run; None: there is nothing to fold again."""
    cursor = await connection.execute("select fanfold.reopen_fold(%s)", (fan_out_id,))
    row = await cursor.fetchone()
    return row[0] if row else None
