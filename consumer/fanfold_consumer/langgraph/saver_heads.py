"""Which checkpoint a thread has come to, and who may go on from where.

The head of a (thread, namespace) is the checkpoint that was put last under the thread's lock, and no longer the one
whose id, a timestamp of some worker's clock, is the largest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from langchain_core.runnables import RunnableConfig
from psycopg.rows import tuple_row

from fanfold_consumer.errors import ConfigError, FanfoldError

# The key is that of `commit_results`, so a thread has one lock, whoever writes to it; and so is the order of several.
LOCK = """
select pg_advisory_xact_lock(k.key)
from (select distinct hashtextextended(t, 4207) as key from unnest(%s::text[]) t order by 1) k
"""

# A thread that nobody has put to since `setup` has no row yet, and one whose head was deleted by other means has a row
# that leads nowhere: for both the stock saver's rule holds.
_HEAD = """
select coalesce(c.checkpoint_id, (
        select max(checkpoint_id) from checkpoints o
        where o.thread_id = k.thread_id and o.checkpoint_ns = k.checkpoint_ns)),
    coalesce(h.clock, (
        select count(*) from checkpoints o
        where o.thread_id = k.thread_id and o.checkpoint_ns = k.checkpoint_ns)),
    current_setting('transaction_isolation')
from (values (%s::text, %s::text)) k (thread_id, checkpoint_ns)
left join checkpoint_heads h on h.thread_id = k.thread_id and h.checkpoint_ns = k.checkpoint_ns
left join checkpoints c on c.thread_id = h.thread_id and c.checkpoint_ns = h.checkpoint_ns
    and c.checkpoint_id = h.checkpoint_id
"""
_IN_ORDER = """
with recursive line as (
    select checkpoint_id, parent_checkpoint_id from checkpoints
    where thread_id = %(thread_id)s and checkpoint_ns = %(checkpoint_ns)s and checkpoint_id = %(checkpoint_id)s
    union
    select p.checkpoint_id, p.parent_checkpoint_id
    from line l
    join checkpoints p on p.thread_id = %(thread_id)s and p.checkpoint_ns = %(checkpoint_ns)s
        and p.checkpoint_id = l.parent_checkpoint_id)
select not exists (select from line where parent_checkpoint_id > checkpoint_id)
"""
_EXISTS = "select 1 from checkpoints where thread_id = %s and checkpoint_ns = %s and checkpoint_id = %s"
_CLOCK = "select checkpoint_ns, clock from checkpoint_heads where thread_id = %s"

# LangGraph hands the config of the checkpoint that a run began with on to each `aput` of the run, and leaves names that
# begin with two underscores out of the metadata.
_FORK_MARK = "__fanfold_fork"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a (thread, namespace) has come to.

    Attributes:
        clock: the namespace's component of the thread's vector clock. It grows with every checkpoint that is put, forks
            included, and never goes back while the thread exists; LangGraph's step does, with time travel.
    """

    checkpoint_id: str
    clock: int


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of checkpoints: a thread's own (`checkpoint_ns` is empty), or that of a subgraph."""

    thread_id: str
    checkpoint_ns: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Branch:
        configurable = config["configurable"]
        return cls(str(configurable["thread_id"]), configurable.get("checkpoint_ns", ""))


class ForkRefused(FanfoldError):
    """A checkpoint was to follow one that is not the head any more. Nothing was stored.

    Do: load the thread again and apply the change to what it has become, or load `parent` by its id and go on from
    there, which is a fork on purpose.

    Attributes:
        thread_id, checkpoint_ns: where.
        parent: the head as the caller knew it.
        head: the head as it is.
    """

    def __init__(self, branch: Branch, parent: str, head: str) -> None:
        super().__init__(
            f"cannot put a checkpoint after {parent} in thread {branch.thread_id!r}, namespace "
            f"{branch.checkpoint_ns!r}: the head is {head} by now. Somebody else went on from the same checkpoint; "
            "load the thread again and repeat the change, or load the old checkpoint by its id to fork on purpose."
        )
        self.thread_id = branch.thread_id
        self.checkpoint_ns = branch.checkpoint_ns
        self.parent = parent
        self.head = head


async def read_head(connection: psycopg.AsyncConnection[Any], branch: Branch, *, locked: bool = False) -> Head | None:
    """The head, None without a checkpoint. `locked`: the caller is about to act on it."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_HEAD, (branch.thread_id, branch.checkpoint_ns))
        row = await cursor.fetchone()
    assert row is not None
    checkpoint_id, clock, isolation = row
    if locked and isolation != "read committed":
        # Its snapshot is older than the lock, so the head could be one that was replaced while we waited.
        problem = (
            f"FanfoldSaver needs READ COMMITTED, not {isolation.upper()}; set default_transaction_isolation of the "
            "database or the role back, or begin the transaction around the saver with that level"
        )
        raise ConfigError([problem])
    return None if checkpoint_id is None else Head(checkpoint_id, clock)


async def read_clock(connection: psycopg.AsyncConnection[Any], thread_id: str) -> dict[str, int]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_CLOCK, (thread_id,))
        return dict(await cursor.fetchall())


async def is_in_order(connection: psycopg.AsyncConnection[Any], branch: Branch, checkpoint_id: str) -> bool:
    """Whether ids grow along the line that leads to a checkpoint, as they do where clocks are right."""
    parameters = {
        "thread_id": branch.thread_id,
        "checkpoint_ns": branch.checkpoint_ns,
        "checkpoint_id": checkpoint_id,
    }
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_IN_ORDER, parameters)
        return await cursor.fetchone() == (True,)


async def check_parent(
    connection: psycopg.AsyncConnection[Any],
    branch: Branch,
    config: RunnableConfig,
    metadata: Mapping[str, Any],
    checkpoint_id: str,
) -> None:
    """Raise ForkRefused unless `checkpoint_id` may follow the parent that `config` names, if any. The lock is ours."""
    head = await read_head(connection, branch, locked=True)
    parent = config["configurable"].get("checkpoint_id")
    if head is None or not parent or parent == head.checkpoint_id:
        return
    if metadata.get("source") == "fork" or config["configurable"].get(_FORK_MARK) == parent:
        return
    cursor = await connection.execute(_EXISTS, (branch.thread_id, branch.checkpoint_ns, checkpoint_id))
    if await cursor.fetchone() is None:
        raise ForkRefused(branch, parent, head.checkpoint_id)
    # It is there: the caller repeats a put whose answer was lost. That moves no head.


def marked(config: RunnableConfig, head: Head | None) -> RunnableConfig:
    """The config of a checkpoint that was read: going on from one that was not the head is a fork on purpose.

    What was the head is left as it is. So who read the head and was overtaken is refused, and who went back is not.
    """
    configurable = config["configurable"]
    if head is None or configurable["checkpoint_id"] == head.checkpoint_id:
        return config
    return {**config, "configurable": {**configurable, _FORK_MARK: configurable["checkpoint_id"]}}
