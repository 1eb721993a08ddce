"""Pending writes of many tasks in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.rows import tuple_row

from fanfold_consumer.langgraph.saver_heads import Branch

# A task that has written to a channel is finished, and all that comes under its id later is another attempt's. Its
# interrupts and errors (negative positions) are not that: they stand until the next attempt replaces them.
_INSERT = """
insert into checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select k.thread_id, k.checkpoint_ns, k.checkpoint_id, w.*
from (values (%b::text, %b::text, %b::text)) k (thread_id, checkpoint_ns, checkpoint_id)
cross join unnest(%b::text[], %b::text[], %b::integer[], %b::text[], %b::text[], %b::bytea[])
    as w (task_id, task_path, idx, channel, type, blob)
where not exists (
    select from checkpoint_writes o
    where o.thread_id = k.thread_id and o.checkpoint_ns = k.checkpoint_ns and o.checkpoint_id = k.checkpoint_id
        and o.task_id = w.task_id and o.idx >= 0)
on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do update
set channel = excluded.channel, type = excluded.type, blob = excluded.blob
where excluded.idx < 0
returning task_id
"""


@dataclass(frozen=True, slots=True)
class TaskWrites:
    """What one task wrote: pairs of channel and value, at least one, as `aput_writes` takes them."""

    task_id: str
    writes: Sequence[tuple[str, Any]]
    task_path: str = ""


async def insert_writes(
    connection: psycopg.AsyncConnection[Any],
    branch: Branch,
    checkpoint_id: str,
    tasks: Sequence[TaskWrites],
    serde: SerializerProtocol,
) -> frozenset[str]:
    """The ids of the tasks whose writes were stored. The caller holds the thread's lock."""
    columns = await asyncio.to_thread(_columns, tasks, serde)
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_INSERT, (branch.thread_id, branch.checkpoint_ns, checkpoint_id, *columns))
        return frozenset(task_id for (task_id,) in await cursor.fetchall())


def _columns(tasks: Sequence[TaskWrites], serde: SerializerProtocol) -> tuple[list[Any], ...]:
    first: dict[str, TaskWrites] = {}
    for task in tasks:
        first.setdefault(task.task_id, task)
    rows = [
        (task.task_id, task.task_path, WRITES_IDX_MAP.get(channel, idx), channel, *serde.dumps_typed(value))
        for task in first.values()
        for idx, (channel, value) in enumerate(task.writes)
    ]
    return tuple(map(list, zip(*rows, strict=True)))
