"""Copying, thinning out and deleting what a thread has stored, under the locks of the threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

_THREADS_OF_RUNS = "select distinct thread_id from checkpoints where metadata ->> 'run_id' = any (%s)"

_DELETE_HEADS = "delete from checkpoint_heads where thread_id = %s"

_IS_THERE = "select exists (select from checkpoints where thread_id = %s)"
_COPY: tuple[LiteralString, ...] = (
    """
    insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    select %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    from checkpoints where thread_id = %(source)s
    order by checkpoint_ns, checkpoint_id
    """,
    """
    insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    select %(target)s, checkpoint_ns, channel, version, type, blob
    from checkpoint_blobs where thread_id = %(source)s
    """,
    """
    insert into checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    select %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    from checkpoint_writes where thread_id = %(source)s
    """,
    # The trigger has made heads in the order of the ids. Theirs is another one where clocks were wrong.
    """
    update checkpoint_heads t
    set checkpoint_id = s.checkpoint_id, clock = s.clock
    from checkpoint_heads s
    where t.thread_id = %(target)s and s.thread_id = %(source)s and s.checkpoint_ns = t.checkpoint_ns
    """,
)

# All but: every namespace's head; of an old checkpoint (before version 4) its parent, if that holds its Sends; of a
# thread with delta channels the whole line, which their values are put together from. A subgraph's call, in a namespace
# that ends in the id of its task, goes with the checkpoint that it was made from.
_NOT_LATEST = """
with recursive head as (
    select distinct on (c.checkpoint_ns) c.*
    from checkpoints c
    left join checkpoint_heads h using (thread_id, checkpoint_ns, checkpoint_id)
    where c.thread_id = %(thread_id)s
    order by c.checkpoint_ns, (h.clock is null), c.checkpoint_id desc),
delta as (
    select exists (
        select from checkpoints c
        where c.thread_id = %(thread_id)s and (
            c.metadata ?| array['counters_since_delta_snapshot', 'delta_writes_versioned']
            or exists (
                select from jsonb_each(c.checkpoint -> 'channel_values') v
                join checkpoint_blobs b on b.thread_id = c.thread_id and b.checkpoint_ns = c.checkpoint_ns
                    and b.channel = v.key and b.version = c.checkpoint -> 'channel_versions' ->> v.key
                where v.value = 'true'))) as yes),
kept as (
    select checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint from head
    union
    select p.checkpoint_ns, p.checkpoint_id, p.parent_checkpoint_id, p.checkpoint
    from kept k
    cross join delta
    join checkpoints p on p.thread_id = %(thread_id)s and p.checkpoint_ns = k.checkpoint_ns
        and p.checkpoint_id = k.parent_checkpoint_id
    where delta.yes or (k.checkpoint ->> 'v')::integer < 4 and exists (
        select from checkpoint_writes w
        where w.thread_id = %(thread_id)s and w.checkpoint_ns = p.checkpoint_ns and w.checkpoint_id = p.checkpoint_id
            and w.channel = '__pregel_tasks')),
finished as (
    select h.checkpoint_ns
    from head h
    join checkpoints r on r.thread_id = %(thread_id)s and r.checkpoint_ns = ''
        and r.checkpoint_id = h.metadata -> 'parents' ->> ''
    where h.checkpoint_ns like '%%:%%'
        and not exists (select from kept k where k.checkpoint_ns = '' and k.checkpoint_id = r.checkpoint_id))
select c.checkpoint_ns, c.checkpoint_id
from checkpoints c
where c.thread_id = %(thread_id)s and (
    c.checkpoint_ns in (select checkpoint_ns from finished)
    or not exists (
        select from kept k where k.checkpoint_ns = c.checkpoint_ns and k.checkpoint_id = c.checkpoint_id))
"""

_OF_RUNS = """
select checkpoint_ns, checkpoint_id from checkpoints
where thread_id = %(thread_id)s and metadata ->> 'run_id' = any (%(run_ids)s)
"""

_DELETE: tuple[LiteralString, ...] = (
    # A thread that nobody has put to since `setup` gets heads, by the stock saver's rule, before their number is lost.
    """
    insert into checkpoint_heads (thread_id, checkpoint_ns, checkpoint_id, clock)
    select thread_id, checkpoint_ns, max(checkpoint_id), count(*)
    from checkpoints where thread_id = %(thread_id)s
    group by thread_id, checkpoint_ns
    on conflict do nothing
    """,
    # A head that goes gives way to the nearest one before it that stays.
    """
    with recursive doomed as (
        select * from unnest(%(namespaces)s::text[], %(ids)s::text[]) as d (checkpoint_ns, checkpoint_id)),
    line as (
        select c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id
        from checkpoint_heads h
        join checkpoints c using (thread_id, checkpoint_ns, checkpoint_id)
        where c.thread_id = %(thread_id)s
        union
        select p.checkpoint_ns, p.checkpoint_id, p.parent_checkpoint_id
        from line l
        join doomed using (checkpoint_ns, checkpoint_id)
        join checkpoints p on p.thread_id = %(thread_id)s and p.checkpoint_ns = l.checkpoint_ns
            and p.checkpoint_id = l.parent_checkpoint_id)
    update checkpoint_heads h
    set checkpoint_id = l.checkpoint_id, clock = h.clock + 1
    from line l
    where h.thread_id = %(thread_id)s and h.checkpoint_ns = l.checkpoint_ns and h.checkpoint_id <> l.checkpoint_id
        and not exists (
            select from doomed d where d.checkpoint_ns = l.checkpoint_ns and d.checkpoint_id = l.checkpoint_id)
    """,
    """
    with doomed as (
        select * from unnest(%(namespaces)s::text[], %(ids)s::text[]) as d (checkpoint_ns, checkpoint_id)),
    writes as (
        delete from checkpoint_writes w using doomed d
        where w.thread_id = %(thread_id)s and w.checkpoint_ns = d.checkpoint_ns and w.checkpoint_id = d.checkpoint_id)
    delete from checkpoints c using doomed d
    where c.thread_id = %(thread_id)s and c.checkpoint_ns = d.checkpoint_ns and c.checkpoint_id = d.checkpoint_id
    """,
    """
    update checkpoints c set parent_checkpoint_id = null
    from unnest(%(namespaces)s::text[], %(ids)s::text[]) as d (checkpoint_ns, checkpoint_id)
    where c.thread_id = %(thread_id)s and c.checkpoint_ns = d.checkpoint_ns and c.parent_checkpoint_id = d.checkpoint_id
    """,
    """
    delete from checkpoint_blobs b
    where b.thread_id = %(thread_id)s and not exists (
        select from checkpoints c
        where c.thread_id = b.thread_id and c.checkpoint_ns = b.checkpoint_ns
            and c.checkpoint -> 'channel_versions' ->> b.channel = b.version)
    """,
    """
    delete from checkpoint_heads h
    where h.thread_id = %(thread_id)s and not exists (
        select from checkpoints c where c.thread_id = h.thread_id and c.checkpoint_ns = h.checkpoint_ns)
    """,
)


async def copy_thread(connection: psycopg.AsyncConnection[Any], source: str, target: str) -> None:
    """Everything of a thread, under another id that has nothing yet."""
    if (await _rows(connection, _IS_THERE, (target,)))[0][0]:
        raise ValueError(
            f"cannot copy thread {source!r} to {target!r}: that one has checkpoints of its own, and two histories in "
            "one thread have no common head; delete it first, or copy to another id"
        )
    for statement in _COPY:
        await connection.execute(statement, {"source": source, "target": target})


async def threads_of_runs(connection: psycopg.AsyncConnection[Any], run_ids: list[str]) -> list[str]:
    """Which threads have checkpoints of these runs. Reads the whole table: no index knows runs."""
    return [thread_id for (thread_id,) in await _rows(connection, _THREADS_OF_RUNS, (run_ids,))]


async def keep_latest(connection: psycopg.AsyncConnection[Any], thread_id: str) -> None:
    """Delete what no head needs."""
    await _delete(connection, thread_id, await _rows(connection, _NOT_LATEST, {"thread_id": thread_id}))


async def delete_for_runs(connection: psycopg.AsyncConnection[Any], thread_id: str, run_ids: list[str]) -> None:
    """Delete the checkpoints that these runs put."""
    of_runs = await _rows(connection, _OF_RUNS, {"thread_id": thread_id, "run_ids": run_ids})
    await _delete(connection, thread_id, of_runs)


async def forget_heads(connection: psycopg.AsyncConnection[Any], thread_id: str) -> None:
    await connection.execute(_DELETE_HEADS, (thread_id,))


async def _delete(connection: psycopg.AsyncConnection[Any], thread_id: str, checkpoints: list[tuple[str, str]]) -> None:
    parameters = {
        "thread_id": thread_id,
        "namespaces": [namespace for namespace, _ in checkpoints],
        "ids": [checkpoint_id for _, checkpoint_id in checkpoints],
    }
    if checkpoints:
        for statement in _DELETE:
            await connection.execute(statement, parameters)


async def _rows(
    connection: psycopg.AsyncConnection[Any], statement: LiteralString, parameters: tuple[Any, ...] | Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()
