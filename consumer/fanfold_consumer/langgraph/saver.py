"""The checkpointer of a fleet: LangGraph's AsyncPostgresSaver, made safe for many writers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Self, TypeVar

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg_pool import AsyncConnectionPool

from fanfold_consumer.langgraph import saver_migration, saver_upkeep
from fanfold_consumer.langgraph.saver_heads import (
    LOCK,
    Branch,
    Head,
    check_parent,
    is_in_order,
    marked,
    read_clock,
    read_head,
)
from fanfold_consumer.langgraph.saver_serde import serializer
from fanfold_consumer.langgraph.saver_writes import TaskWrites, insert_writes
from fanfold_sql.pool import open_pool

_T = TypeVar("_T")
_POOL_SIZE = 10
_STRATEGIES = ("keep_latest", "delete")


class FanfoldSaver(AsyncPostgresSaver):
    """AsyncPostgresSaver on its own tables, with one head per thread that cannot fork unnoticed.

    - A put holds the thread's lock, which is also that of the fleet's commits. If its config names a parent that is not
      the head any more, it is refused (`ForkRefused`). Who loads an old checkpoint by its id and goes on from there
      (time travel, an update of the past) forks on purpose, and may.
    - The latest checkpoint is the one that was put last, whatever the clocks of the workers say.

    Takes a pool, or one connection, also in the middle of a transaction of the caller's. One saver on a pool serves any
    number of tasks at once. Behind a pooler give the pool `prepare_threshold=None`. Needs a running event loop; the
    methods without `a` are for other threads, as the stock saver's are.
    """

    def __init__(
        self,
        conn: psycopg.AsyncConnection[Any] | AsyncConnectionPool[Any],
        *,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Raises ConfigError if LANGGRAPH_STRICT_MSGPACK is set and `serde` is not strict."""
        super().__init__(conn, serde=serializer(serde))

    @classmethod
    @asynccontextmanager
    async def from_conn_string(  # type: ignore[override]  # a pool in place of one connection that all would wait for
        cls,
        conn_string: str,
        *,
        size: int = _POOL_SIZE,
        prepare: bool = True,
        serde: SerializerProtocol | None = None,
    ) -> AsyncIterator[Self]:
        """A saver on a pool of up to `size` connections. Behind a pooler that passes for Postgres: `prepare=False`."""
        async with open_pool(conn_string, size=size, prepare=prepare) as pool:
            yield cls(pool, serde=serde)

    async def setup(self) -> None:
        """Make the tables, or take over a stock saver's with all that is in them. To be called once, or by everybody at
        every start. Stock savers may go on with the same database; `revert` is the way back.
        """
        async with self._connection() as connection:
            await saver_migration.create_stock_tables(connection, self.MIGRATIONS)
        await super().setup()
        async with self._connection() as connection:
            await saver_migration.set_up(connection)

    async def revert(self) -> int:
        """Take away what `setup` added to a stock saver's tables, and return how many heads were copied for it.

        The stock saver takes the largest id for the latest checkpoint. Where clocks were wrong that is not the head; a
        copy of the head then gets the largest id. What such a thread had of an unfinished step is run again. Stop the
        savers of this class before: without its table each of their calls fails.
        """
        async with self._connection() as connection:
            return await saver_migration.revert(connection)

    @asynccontextmanager
    async def locked(self, thread_id: str) -> AsyncIterator[Self]:
        """A saver for one transaction that holds the thread's lock: what it reads is the head until the end of it.

        All that it puts is stored at the end, together, or not at all if the block raises. Keep it short: commits to
        the thread wait. Use no other saver, and no graph with one, on the same thread inside.
        """
        async with self._connection() as connection, connection.transaction():
            await connection.execute(LOCK, ([str(thread_id)],))
            yield type(self)(connection, serde=self.serde)

    async def ahead(self, config: RunnableConfig) -> Head | None:
        """The head of the config's thread and namespace, None if it has no checkpoint."""
        async with self._connection() as connection:
            return await read_head(connection, Branch.of(config))

    async def aclock(self, thread_id: str) -> dict[str, int]:
        """The thread's vector clock: a counter per namespace that was put to since `setup`."""
        async with self._connection() as connection:
            return await read_clock(connection, str(thread_id))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, else the head."""
        branch = Branch.of(config)
        named = config["configurable"].get("checkpoint_id")
        async with self._stock() as (connection, stock):
            while True:
                head = await read_head(connection, branch)
                if head is None:
                    return None
                found = await stock.aget_tuple(_at(config, named or head.checkpoint_id))
                if found is not None:
                    return found._replace(config=marked(found.config, head))
                if named:
                    return None
                # The head was deleted between the two looks.

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The stock saver's list, by id from the largest. The connection is given back before the first is yielded."""
        found: list[CheckpointTuple] = []
        heads: dict[Branch, Head | None] = {}
        async with self._stock() as (connection, stock):
            async for checkpoint in stock.alist(config, filter=filter, before=before, limit=limit):
                branch = Branch.of(checkpoint.config)
                if branch not in heads:
                    heads[branch] = await read_head(connection, branch)
                found.append(checkpoint._replace(config=marked(checkpoint.config, heads[branch])))
        for checkpoint in found:
            yield checkpoint

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, which becomes the head; the same one again changes no head.

        Raises:
            ForkRefused: the config names a parent that was the head when it was read and is not any more.
        """
        branch = Branch.of(config)
        async with self._holding(branch.thread_id) as (connection, stock):
            await check_parent(connection, branch, config, metadata, checkpoint["id"])
            return await stock.aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """The stock saver's: rows of one task, which need no lock."""
        async with self._stock() as (_, stock):
            await stock.aput_writes(config, writes, task_id, task_path)

    async def aput_task_writes(self, config: RunnableConfig, tasks: Sequence[TaskWrites]) -> frozenset[str]:
        """Store what many tasks wrote to the checkpoint that `config` names, in one statement; return whose was stored.

        A task that has written to a channel already is left as it is, all of it: two attempts with different writes do
        not mix. Interrupts and errors are replaced.
        """
        if not tasks:
            return frozenset()
        if empty := [task.task_id for task in tasks if not task.writes]:
            raise ValueError(f"tasks without writes cannot be told from unfinished ones: {', '.join(empty)}")
        branch = Branch.of(config)
        async with self._holding(branch.thread_id) as (connection, _):
            checkpoint_id = config["configurable"]["checkpoint_id"]
            return await insert_writes(connection, branch, checkpoint_id, tasks, self.serde)

    async def adelete_thread(self, thread_id: str) -> None:
        async with self._holding(str(thread_id)) as (connection, stock):
            await stock.adelete_thread(str(thread_id))
            await saver_upkeep.forget_heads(connection, str(thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the threads, or all of them but their heads. Thread by thread: repeat it if it breaks off.

        A thread with a DeltaChannel keeps the whole line that its heads are put together from.
        """
        if isinstance(thread_ids, str):
            raise TypeError(f"thread_ids is a sequence of thread ids, not one: [{thread_ids!r}]")
        if strategy not in _STRATEGIES:
            raise ValueError(f"the strategy is one of {', '.join(_STRATEGIES)}, not {strategy!r}")
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                await self.adelete_thread(thread_id)
                continue
            async with self._holding(thread_id) as (connection, _):
                await saver_upkeep.keep_latest(connection, thread_id)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread to an id without checkpoints, else ValueError. What is put meanwhile waits."""
        source, target = str(source_thread_id), str(target_thread_id)
        async with self._holding(source, target) as (connection, _):
            await saver_upkeep.copy_thread(connection, source, target)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs; a head gives way to the nearest one before it that stays.

        Reads the whole table. A thread with a DeltaChannel loses what its later checkpoints are put together from.
        """
        runs = [str(run_id) for run_id in run_ids]
        async with self._connection() as connection:
            thread_ids = await saver_upkeep.threads_of_runs(connection, runs)
        for thread_id in thread_ids:
            async with self._holding(thread_id) as (connection, _):
                await saver_upkeep.delete_for_runs(connection, thread_id, runs)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        """What values of DeltaChannels are put together from, at the checkpoint that the config names or the head."""
        branch = Branch.of(config)
        checkpoint_id = config["configurable"].get("checkpoint_id")
        async with self._stock() as (connection, stock):
            if not checkpoint_id:
                head = await read_head(connection, branch)
                if head is None:
                    return {channel: {"writes": []} for channel in channels}
                checkpoint_id = head.checkpoint_id
            config = _at(config, checkpoint_id)
            if await is_in_order(connection, branch, checkpoint_id):
                return await stock.aget_delta_channel_history(config=config, channels=channels)
        # The stock saver looks for ancestors among smaller ids only. So they are loaded one by one here.
        return await BaseCheckpointSaver.aget_delta_channel_history(self, config=config, channels=channels)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._wait_for(self.aprune(thread_ids, strategy=strategy))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._wait_for(self.acopy_thread(source_thread_id, target_thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._wait_for(self.adelete_for_runs(run_ids))

    def _wait_for(self, call: Coroutine[Any, Any, _T]) -> _T:
        try:
            on_the_loop = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            on_the_loop = False
        if on_the_loop:
            call.close()
            raise asyncio.InvalidStateError(
                "this would wait for the event loop that it blocks; await the method whose name begins with an a, or "
                "call it from another thread"
            )
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        if isinstance(self.conn, AsyncConnectionPool):
            async with self.conn.connection() as connection:
                yield connection
        else:
            # Statements of two tasks must not meet in one transaction. On a pool they do not.
            async with self.lock:
                yield self.conn

    @asynccontextmanager
    async def _stock(self) -> AsyncIterator[tuple[psycopg.AsyncConnection[Any], AsyncPostgresSaver]]:
        """A connection, and a stock saver on it: one for each call, because all calls of one wait for each other."""
        async with self._connection() as connection:
            yield connection, AsyncPostgresSaver(connection, serde=self.serde)

    @asynccontextmanager
    async def _holding(
        self, *thread_ids: str
    ) -> AsyncIterator[tuple[psycopg.AsyncConnection[Any], AsyncPostgresSaver]]:
        """The same in a transaction that holds the threads' locks."""
        async with self._stock() as (connection, stock):
            # One round trip for what needs no answer.
            pipeline = connection.pipeline() if self.supports_pipeline else nullcontext()
            async with pipeline, connection.transaction():
                await connection.execute(LOCK, (list(thread_ids),))
                yield connection, stock


def _at(config: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
    return {**config, "configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}
