"""The typed face of every procedure. One method, one statement, one transaction; nothing holds a lock or a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal, LiteralString, TypeVar
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from fanfold_schemas import Outcome, Task, VectorClock
from fanfold_sql.audit import (
    AUDIT_FAN_OUTS,
    AUDIT_OUTBOX,
    AUDIT_TASKS,
    LIST_TOPIC_FAN_OUTS,
    AuditedFanOut,
    AuditedTask,
    Place,
    audited_fan_out,
    audited_task,
    task_parameters,
)
from fanfold_sql.commit import (
    CHECK_TASKS,
    COMMIT_RESULTS,
    COMMIT_RESULTS_EARLY,
    check_parameters,
    commit_parameters,
    commit_reply,
)
from fanfold_sql.dead_letters import COUNT_DEAD_LETTERS, LIST_DEAD_LETTERS, filter_parameters
from fanfold_sql.errors import Busy, LockTimedOut, StoreUnavailable, translate
from fanfold_sql.outbox import outbox_row
from fanfold_sql.pool import open_pool
from fanfold_sql.records import (
    CancelledThread,
    Claim,
    CommitBatch,
    CommitReply,
    DeadLetterCount,
    DeadLetterFilter,
    ExpiredFanOut,
    FanOutState,
    OutboxRow,
    PartitionState,
    Pruned,
    Stopped,
    StoredDeadLetter,
    StoredResult,
    ThreadState,
    islands_from_text,
)

Row = tuple[Any, ...]
CancelAnswer = Literal["cancelled", "done", "unknown"]
Record = TypeVar("Record")

EVERY_DEAD_LETTER = DeadLetterFilter()


class Store:
    """Fanfold's tables behind a pool of connections.

    Every method raises `StoreUnavailable` (unknown outcome: repeat the call), `StoreRejected` (do not repeat) or
    `MigrationNeeded`; those that say more, say it in their own docstring.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], *, early_lock_release: bool = False) -> None:
        self._pool = pool
        self._early_lock_release = early_lock_release
        self._commit: LiteralString = COMMIT_RESULTS_EARLY if early_lock_release else COMMIT_RESULTS

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, *, pool_size: int = 4, prepare: bool = True, early_lock_release: bool = False
    ) -> AsyncIterator[Store]:
        """A store on a pool of its own.

        Args:
            prepare: prepared statements, where the connection is direct.
            early_lock_release: commits give their threads' locks back before they are on disk, and are answered when
                they are. Others may see meanwhile what a crash then takes back.
        """
        async with open_pool(dsn, size=pool_size, prepare=prepare) as pool:
            yield cls(pool, early_lock_release=early_lock_release)

    async def commit(self, batch: CommitBatch, *, lease_ms: int = 30_000, wait_ms: int | None = None) -> CommitReply:
        """Store finished tasks and their partitions' progress in one transaction.

        New outbox rows are leased to the caller for `lease_ms`: publish them, then `ack_outbox`.

        Args:
            wait_ms: how long to wait for each thread that others commit to; 0: not at all; None: for ever.

        Raises:
            Busy: that was not enough. Commit the other threads, or ask with 0 which they are.
            Fenced: a newer owner holds a partition. Drop its work; do not retry.
            Rewound: the database went back in time. Claim the partition again and seek.
            Conflict: some results contradict what is stored. Park those and commit the rest.
            StoreUnavailable: outcome unknown. Retry the same batch; it is idempotent.
        """
        try:
            row = await self._one(self._commit, commit_parameters(batch, lease_ms, wait_ms))
        except LockTimedOut as error:
            if not wait_ms:
                raise  # a limit of the server's, on any lock
            raise Busy(str(error)) from error
        return commit_reply(row, len(batch.results))

    async def try_commit(self, batch: CommitBatch) -> None:
        """Go through a commit and take it back: nothing is stored. Raises what `commit` would."""
        async with self.transaction() as connection:
            await connection.execute(COMMIT_RESULTS, commit_parameters(batch, 0), binary=True)
            raise psycopg.Rollback

    async def open_fan_outs(self, tasks: Sequence[tuple[Task, str]]) -> None:
        """Open the fan-outs of these tasks, each with its topic, ahead of a result: a deadline holds from then on.

        A base that is newer than its thread's clock moves it, as a first result would.
        """
        await self.commit(CommitBatch(results=[], opens=list(tasks)))

    async def expire_fan_outs(self, *, limit: int = 100) -> list[ExpiredFanOut]:
        """Act on up to `limit` deadlines that have passed. Any member may, at any time; what it ended is returned."""
        rows = await self._all("select fan_out_id, folds from fanfold.expire_fan_outs(%s::int4)", (limit,))
        return [ExpiredFanOut(*row) for row in rows]

    async def check_tasks(self, tasks: Sequence[Task], arg_hashes: Sequence[int]) -> list[str | None]:
        """Per task, why its handler need not run: `duplicate`, `stale`, `closed`, `conflict`; None: it must run."""
        row = await self._one(CHECK_TASKS, check_parameters(tasks, arg_hashes))
        verdicts: list[str | None] = row[0]
        return verdicts

    async def claim_partition(
        self, group_id: str, cluster_id: str, topic: str, topic_id: str, partition: int, owner: UUID
    ) -> Claim:
        """Take a partition under a new epoch; commits of every earlier owner are fenced from here on."""
        if self._early_lock_release:
            # The first commit would do so, and make this claim void.
            await self._one("select fanfold.begin_life()", ())
        row = await self._one(
            "select progress_id, epoch, next_offset, islands, commit_seq, previous_topic_id, stopped_because"
            " from fanfold.claim_partition(%s, %s, %s, %s, %s::int4, %s)",
            (group_id, cluster_id, topic, topic_id, partition, owner),
        )
        progress_id, epoch, next_offset, islands, commit_seq, previous, stopped_because = row
        islands = islands_from_text(islands)
        return Claim(progress_id, epoch, next_offset, islands, commit_seq, previous, stopped_because)

    async def begin_group(
        self, group_id: str, cluster_id: str, topic: str, topic_id: str, next_offsets: Sequence[int]
    ) -> None:
        """Make a group without any progress in a topic begin at these offsets, of partition 0 and so on.

        Nothing happens if it has progress in one of them. Claims made before are void either way: claim again.
        """
        await self._one(
            "select fanfold.begin_group(%s, %s, %s, %s, %s::int8[])",
            (group_id, cluster_id, topic, topic_id, list(next_offsets)),
        )

    async def stop_partition(self, owner: UUID, progress_id: int, epoch: int, stopped: Stopped, because: str) -> bool:
        """Note why the owner does not read on. False: it is somebody else's by now."""
        row = await self._one(
            "select fanfold.stop_partition(%s, %s::int8, %s::int8, %s, %s)",
            (owner, progress_id, epoch, stopped, because),
        )
        return bool(row[0])

    async def release_partitions(self, owner: UUID, held: Sequence[tuple[int, int]]) -> None:
        """Give up partitions, each as (progress_id, epoch)."""
        await self._one(
            "select fanfold.release_partitions(%s, %s::int8[], %s::int8[])",
            (owner, [progress_id for progress_id, _ in held], [epoch for _, epoch in held]),
        )

    async def renew_partitions(
        self, owner: UUID, held: Sequence[tuple[int, int]], commit_seqs: Sequence[int] | None = None
    ) -> dict[int, bool]:
        """Say that the owner lives. Returns what it lost: {progress_id: whether it may be claimed again at once}.

        `commit_seqs`: the last one acknowledged of each; what is behind it in the database counts as lost.
        """
        rows = await self._all(
            "select progress_id, vacant from fanfold.renew_partitions(%s, %s::int8[], %s::int8[], %s::int8[])",
            (
                owner,
                [progress_id for progress_id, _ in held],
                [epoch for _, epoch in held],
                None if commit_seqs is None else list(commit_seqs),
            ),
        )
        return dict(rows)

    async def reset_partition(
        self,
        group_id: str,
        cluster_id: str,
        topic: str,
        topic_id: str,
        partition: int,
        *,
        epoch: int,
        next_offset: int,
    ) -> bool:
        """Make a group read a partition from `next_offset`. False: somebody claimed it since `epoch` was read.

        `epoch` -1 stands for a partition without progress.
        """
        row = await self._one(
            "select fanfold.reset_partition(%s, %s, %s, %s, %s::int4, %s::int8, %s::int8)",
            (group_id, cluster_id, topic, topic_id, partition, epoch, next_offset),
        )
        return bool(row[0])

    async def list_partitions(self, group_id: str | None = None, topic: str | None = None) -> list[PartitionState]:
        rows = await self._all("select * from fanfold.list_partitions(%s::text, %s::text)", (group_id, topic))
        return [PartitionState(*(*row[:9], islands_from_text(row[9]), *row[10:])) for row in rows]

    async def read_results(self, fan_out_id: str, *, after: int = -1, limit: int = 1000) -> list[StoredResult]:
        """A page of results in index order, after an index; `after=-2` begins with the fold's own (index -1)."""
        rows = await self._all(
            "select index, task_id, run, status, payload, committed_at"
            " from fanfold.read_results(%s, %s::int4, %s::int4)",
            (fan_out_id, after, limit),
        )
        return [StoredResult(*row) for row in rows]

    async def read_fan_out(self, fan_out_id: str) -> FanOutState | None:
        """One fan-out; None until its first result is committed."""
        found = await self.list_fan_outs(ids=[fan_out_id], limit=1)
        return found[0] if found else None

    async def list_fan_outs(
        self,
        *,
        ids: Sequence[str] | None = None,
        thread_id: str | None = None,
        state: str | None = None,
        limit: int = 50,
    ) -> list[FanOutState]:
        """Fan-outs, newest first; a filter that is None lets all pass."""
        rows = await self._all(
            "select * from fanfold.list_fan_outs(%s::text[], %s::text, %s::text, %s::int4)",
            (list(ids) if ids is not None else None, thread_id, state, limit),
        )
        return [FanOutState(*row) for row in rows]

    async def read_thread(self, thread_id: str) -> ThreadState | None:
        rows = await self._all("select * from fanfold.read_thread(%s)", (thread_id,))
        return ThreadState(*rows[0]) if rows else None

    async def cancel_fan_out(self, fan_out_id: str, thread_id: str | None = None) -> CancelAnswer:
        """End a fan-out: from here on none of its results and no fold of it is taken. There is no way back.

        `thread_id` is needed for one of which no result is in yet; without it that is `unknown`. `done`: too late.

        Raises:
            StoreRejected: it belongs to another thread.
        """
        row = await self._one("select fanfold.cancel_fan_out(%s, %s::text)", (fan_out_id, thread_id))
        answer: CancelAnswer = row[0]
        return answer

    async def cancel_thread(self, thread_id: str) -> CancelledThread:
        """Cancel every fan-out of a thread that is not done, and move every branch of its clock on by one."""
        row = await self._one("select clock, fan_out_ids from fanfold.cancel_thread(%s)", (thread_id,))
        return CancelledThread(*row)

    async def advance_thread(self, thread_id: str, clock: VectorClock) -> dict[str, int]:
        """Move a thread's clock up to `clock`: what was derived from less on those branches is stale from here on.

        Returns the thread's clock, the least upper bound of what it was and `clock`.
        """
        row = await self._one("select fanfold.advance_thread(%s, %s)", (thread_id, Jsonb(clock.to_dict())))
        advanced: dict[str, int] = row[0]
        return advanced

    async def list_dead_letters(
        self,
        where: DeadLetterFilter = EVERY_DEAD_LETTER,
        *,
        after: int = 0,
        limit: int = 100,
        with_bytes: bool = False,
    ) -> list[StoredDeadLetter]:
        """A page of parked records, oldest first, those with an id above `after`; their bytes only on request."""
        rows = await self._all(LIST_DEAD_LETTERS, [*filter_parameters(where), with_bytes, after, limit])
        return [StoredDeadLetter(*row) for row in rows]

    async def count_dead_letters(self, where: DeadLetterFilter = EVERY_DEAD_LETTER) -> list[DeadLetterCount]:
        """How many there are, by code, the most frequent first."""
        return [DeadLetterCount(*row) for row in await self._all(COUNT_DEAD_LETTERS, filter_parameters(where))]

    async def claim_outbox(self, *, limit: int, lease_ms: int) -> list[OutboxRow]:
        """Lease due records, oldest first. Acknowledge them in time or another relay publishes them too."""
        rows = await self._all(
            "select * from fanfold.claim_outbox(%s::int4, %s::int4)",
            (limit, lease_ms),
        )
        return [outbox_row(row) for row in rows]

    async def ack_outbox(self, outbox_ids: Sequence[int]) -> None:
        await self._one("select fanfold.ack_outbox(%s::int8[])", (list(outbox_ids),))

    async def renew_outbox(self, outbox_ids: Sequence[int], lease_ms: int) -> None:
        """Lease records for longer that are leased to the caller."""
        await self._one("select fanfold.renew_outbox(%s::int8[], %s::int4)", (list(outbox_ids), lease_ms))

    async def outbox_stats(self) -> tuple[int, float]:
        """(records waiting, seconds the oldest due one has waited)."""
        row = await self._one("select waiting, oldest_due_seconds from fanfold.outbox_stats()", ())
        return int(row[0]), float(row[1])

    async def prune(self, before: datetime, *, limit: int = 1000) -> Pruned:
        """Delete up to `limit` finished fan-outs and dead letters older than `before`; repeat until nothing is left."""
        row = await self._one(
            "select fan_outs, results, threads, dead_letters from fanfold.prune(%s, %s::int4)",
            (before, limit),
        )
        return Pruned(*row)

    async def existing_fan_outs(self, fan_out_ids: Sequence[str]) -> set[str]:
        """Those of them that there are."""
        row = await self._one("select fanfold.existing_fan_outs(%s::text[])", (list(fan_out_ids),))
        return set(row[0])

    async def audit_tasks(
        self, cluster_id: str, topic_id: str, groups: Sequence[str], places: Sequence[Place]
    ) -> list[AuditedTask]:
        """What is stored about records of a topic, in input order."""
        rows = await self._all(AUDIT_TASKS, task_parameters(cluster_id, topic_id, groups, places))
        return [audited_task(row) for row in rows]

    async def audit_outbox(self, topic: str, asked: Sequence[tuple[bytes | None, str]]) -> list[bool]:
        """Per (key, text), whether a record of that key (None: any) that contains the text waits to be published."""
        row = await self._one(AUDIT_OUTBOX, (topic, [key for key, _ in asked], [text for _, text in asked]))
        waits: list[bool] = row[0]
        return waits

    async def audit_fan_outs(self, fan_out_ids: Sequence[str]) -> list[AuditedFanOut]:
        """Those of them that there are, counted through."""
        return [audited_fan_out(row) for row in await self._all(AUDIT_FAN_OUTS, (list(fan_out_ids),))]

    async def list_topic_fan_outs(
        self, topic: str, *, thread_id: str | None = None, after: str = "", limit: int = 1000
    ) -> list[str]:
        """A page of the ids of fan-outs that were fed from a topic."""
        return [row[0] for row in await self._all(LIST_TOPIC_FAN_OUTS, (topic, thread_id, after, limit))]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection inside one transaction, for calls that belong together (see `reopen_fan_out`)."""
        try:
            async with self._pool.connection() as connection, connection.transaction():
                yield connection
        except psycopg.Error as error:
            raise translate(error) from error

    async def _all(self, query: LiteralString, parameters: Sequence[Any]) -> list[Row]:
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, parameters, binary=True)
                rows: list[Row] = await cursor.fetchall()
                return rows
        except psycopg.Error as error:
            raise translate(error) from error

    async def _one(self, query: LiteralString, parameters: Sequence[Any]) -> Row:
        rows = await self._all(query, parameters)
        if not rows:
            raise StoreUnavailable(f"no row came back from {query[:60]!r}")
        return rows[0]


async def reopen_fan_out(
    connection: psycopg.AsyncConnection[Any], fan_out_id: str, task_ids: Sequence[str]
) -> int | None:
    """Let tasks run again; returns the run to publish them with, None if the fan-out is unknown (their run stands).

    Call it in one transaction with the enqueueing of those tasks: a fan-out reopened without them would never close.
    """
    cursor = await connection.execute("select fanfold.reopen_fan_out(%s, %s::text[])", (fan_out_id, list(task_ids)))
    row = await cursor.fetchone()
    return row[0] if row else None


__all__ = ["Outcome", "Store", "reopen_fan_out"]
