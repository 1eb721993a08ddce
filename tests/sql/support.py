"""Committing as the worker does, and the guarantees as queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg

from fanfold_schemas import FOLD_INDEX, FanOut, Outcome, Task, derive_fold_task_id, derive_task_id
from fanfold_sql import (
    Claim,
    CommitBatch,
    CommitReply,
    DeadLetter,
    Finished,
    OutboxRecord,
    PartitionCommit,
)
from fanfold_sql.commit import CHECK_TASKS, COMMIT_RESULTS, check_parameters, commit_parameters, commit_reply
from fanfold_sql.errors import translate
from fanfold_sql.records import islands_from_text

TOPIC = "tests.tasks.v1"
CLUSTER = "cluster-1"
TOPIC_ID = "topic-id-1"

APPLIED, DUPLICATE, STALE, CLOSED = Outcome.APPLIED, Outcome.DUPLICATE, Outcome.STALE, Outcome.CLOSED


@dataclass(frozen=True, slots=True)
class FanOutSpec:
    """A fan-out to make results of. `result(0)`, `fold()`: finished tasks of it."""

    id: str = "f1"
    size: int = 3
    thread_id: str = "t1"
    fold: str | None = "sum"
    quorum: int | None = None
    base: tuple[tuple[str, int], ...] = ()
    max_failures: int | None = None
    deadline_ms: int | None = None
    on_deadline: Literal["fold"] | None = None
    topic: str | None = TOPIC

    def task(
        self, index: int, *, run: int = 1, task_id: str | None = None, node: str = "work", arg: Any = None
    ) -> Task:
        fan_out = FanOut(
            self.id, self.size, self.fold, self.quorum, self.deadline_ms, self.max_failures, self.on_deadline
        )
        if task_id is None:
            is_fold = index == FOLD_INDEX
            task_id = derive_fold_task_id(self.id) if is_fold else derive_task_id(self.id, index)
        return Task(task_id, self.thread_id, fan_out, index, node, arg, dict(self.base), run)

    def result(
        self,
        index: int,
        *,
        run: int = 1,
        payload: bytes | None = b"\x01",
        arg_hash: int = 7,
        task_id: str | None = None,
    ) -> Finished:
        return Finished(self.task(index, run=run, task_id=task_id), payload, arg_hash, self.topic)

    def failure(self, index: int, *, run: int = 1) -> Finished:
        return self.result(index, run=run, payload=None)

    def results(self, *, run: int = 1) -> list[Finished]:
        return [self.result(index, run=run) for index in range(self.size)]

    def fold_result(
        self, *, run: int = 1, payload: bytes | None = b"\x06", arg_hash: int = 7, task_id: str | None = None
    ) -> Finished:
        return self.result(FOLD_INDEX, run=run, payload=payload, arg_hash=arg_hash, task_id=task_id)

    def but(self, **changes: Any) -> FanOutSpec:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed partition. `at(offset)` is the progress to commit next; `after(reply)` the partition from then on."""

    progress_id: int
    epoch: int
    commit_seq: int

    def at(self, next_offset: int, islands: tuple[tuple[int, int], ...] = ()) -> PartitionCommit:
        return PartitionCommit(self.progress_id, self.epoch, self.commit_seq, next_offset, islands)

    def after(self, reply: CommitReply, position: int = 0) -> Held:
        return replace(self, commit_seq=reply.commit_seqs[position])


class Worker:
    """One worker's connection, blocking, as the worker role. The statements are those of the store."""

    def __init__(self, connection: psycopg.Connection[Any], owner: UUID | None = None) -> None:
        self.connection = connection
        self.owner = owner or uuid4()

    def commit(
        self,
        results: Iterable[Finished] = (),
        *,
        partitions: Sequence[PartitionCommit] = (),
        dead_letters: Sequence[DeadLetter] = (),
        outbox: Sequence[OutboxRecord] = (),
        owner: UUID | None = None,
        lease_ms: int = 30_000,
    ) -> CommitReply:
        batch = CommitBatch(list(results), list(partitions), list(dead_letters), list(outbox), owner or self.owner)
        try:
            cursor = self.connection.execute(COMMIT_RESULTS, commit_parameters(batch, lease_ms), binary=True)
            row = cursor.fetchone()
        except psycopg.Error as error:
            raise translate(error) from error
        assert row is not None
        return commit_reply(row, len(batch.results))

    def outcomes(self, *results: Finished) -> list[Outcome]:
        return self.commit(results).outcomes

    def completed(self, *results: Finished) -> list[tuple[str, int]]:
        return [(done.fan_out_id, done.run) for done in self.commit(results).completed]

    def check(self, *results: Finished) -> list[str | None]:
        tasks = [result.task for result in results]
        row = self.one(CHECK_TASKS, check_parameters(tasks, [result.arg_hash for result in results]))
        verdicts: list[str | None] = row[0]
        return verdicts

    def claim(self, partition: int = 0, *, group: str = "g", topic_id: str = TOPIC_ID) -> Held:
        claim = self.claim_in_full(partition, group=group, topic_id=topic_id)
        return Held(claim.progress_id, claim.epoch, claim.commit_seq)

    def claim_in_full(self, partition: int = 0, *, group: str = "g", topic_id: str = TOPIC_ID) -> Claim:
        row = self.one(
            "select progress_id, epoch, next_offset, islands, commit_seq, previous_topic_id, stopped_because"
            " from fanfold.claim_partition(%s, %s, %s, %s, %s::int4, %s)",
            (group, CLUSTER, TOPIC, topic_id, partition, self.owner),
        )
        progress_id, epoch, next_offset, islands, commit_seq, previous, stopped_because = row
        islands = islands_from_text(islands)
        return Claim(progress_id, epoch, next_offset, islands, commit_seq, previous, stopped_because)

    def reopen(self, fan_out_id: str, *task_ids: str) -> int | None:
        run: int | None = self.one("select fanfold.reopen_fan_out(%s, %s::text[])", (fan_out_id, list(task_ids)))[0]
        return run

    def open(self, *tasks: Task) -> None:
        """Open the fan-outs of tasks that have no result yet."""
        batch = CommitBatch(results=[], opens=[(task, TOPIC) for task in tasks])
        self.connection.execute(COMMIT_RESULTS, commit_parameters(batch, 0), binary=True)

    def expire(self, limit: int = 10) -> list[tuple[str, bool]]:
        """(fan_out_id, whether it folds) of the fan-outs that their deadline ended now."""
        query = "select fan_out_id, folds from fanfold.expire_fan_outs(%s)"
        return [(row[0], row[1]) for row in self.connection.execute(query, (limit,)).fetchall()]

    def cancel(self, fan_out_id: str = "f1", thread_id: str | None = None) -> str:
        answer: str = self.one("select fanfold.cancel_fan_out(%s, %s::text)", (fan_out_id, thread_id))[0]
        return answer

    def one(self, query: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        try:
            row = self.connection.execute(query.encode(), parameters).fetchone()
        except psycopg.Error as error:
            raise translate(error) from error
        assert row is not None
        return tuple(row)


class Tables:
    """A look at the tables that no worker has: as their owner."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), parameters).fetchall()

    def value(self, query: str, *parameters: Any) -> Any:
        return self.rows(query, *parameters)[0][0]

    def clock(self, thread_id: str = "t1") -> dict[str, int] | None:
        found = self.rows("select clock from fanfold.thread where thread_id = %s", thread_id)
        return found[0][0] if found else None

    def fan_out(self, fan_out_id: str = "f1") -> dict[str, Any] | None:
        """`remaining`, `failed`, `run` and whether it is `complete`; None: unknown."""
        found = self.rows(
            "select remaining, failed, run, completed_at is not null from fanfold.fan_out where fan_out_id = %s",
            fan_out_id,
        )
        return dict(zip(("remaining", "failed", "run", "complete"), found[0], strict=True)) if found else None

    def status(self, task_id: str) -> tuple[int, str, bytes | None] | None:
        """(run, status, payload) of a stored result."""
        found = self.rows("select run, status, payload from fanfold.result where task_id = %s", task_id)
        return (found[0][0], found[0][1], found[0][2]) if found else None

    def queued_folds(self, fan_out_id: str | None = None) -> list[tuple[str, int]]:
        """(fan_out_id, run) of the fold tasks in the outbox, in the order in which they were queued."""
        return [
            (row[0], row[1])
            for row in self.rows(
                "select fan_out_id, run from fanfold.outbox where fan_out_id is not null"
                " and (%s::text is null or fan_out_id = %s) order by outbox_id",
                fan_out_id,
                fan_out_id,
            )
        ]

    def fingerprint(self) -> str:
        """A text that differs whenever anything in any table does, partitions' liveness aside."""
        parts = []
        for table, columns in (
            ("thread", "thread_id, clock"),
            ("fan_out", "fan_out_id, remaining, failed, run, completed_at, folded_at, cancelled_at, cancelled_by"),
            ("deadline", "fan_out_id, due_at"),
            ("result", "thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload, committed_at"),
            ("partition_progress", "progress_id, epoch, owner, next_offset, islands, commit_seq, stopped_because"),
            ("outbox", "outbox_id, due_at, topic, key, value, headers, fan_out_id, run"),
            ("dead_letter", "dead_letter_id, record_offset, value"),
        ):
            parts.append(f"{table}: {self.rows(f'select {columns} from fanfold.{table} order by 1, 2')}")
        return "\n".join(parts)


# Each query selects what breaks a guarantee; its name is what the failure says.
_INVARIANTS = {
    "1 one effect per task: an index outside its fan-out, or a result of another thread": """
        select r.thread_id, r.task_id, r.index from fanfold.result r
        left join fanfold.fan_out f on f.fan_out_id = r.fan_out_id
        where f.fan_out_id is null or f.thread_id <> r.thread_id or r.index >= f.size""",
    "1 one effect per task: a task_id or an index twice": """
        select thread_id, task_id, count(*)::text from fanfold.result group by 1, 2 having count(*) > 1
        union all
        select fan_out_id, index::text, count(*)::text from fanfold.result group by 1, 2 having count(*) > 1""",
    "2+3 remaining = size - (done or failed), failed = failed, neither negative": """
        select f.fan_out_id, f.size, f.remaining, f.failed, r.settled, r.failed from fanfold.fan_out f
        cross join lateral (
            select count(*) filter (where status in ('done', 'failed')) as settled,
                count(*) filter (where status = 'failed') as failed
            from fanfold.result r where r.fan_out_id = f.fan_out_id and r.index >= 0) r
        where f.remaining <> f.size - r.settled or f.failed <> r.failed or f.remaining < 0 or f.failed < 0""",
    "4 complete iff every result, or a quorum of successes, is in": """
        select fan_out_id, size, remaining, failed, quorum, run, completed_at from fanfold.fan_out f
        where completed_at is null and (
                remaining = 0 and size > 0 and cancelled_at is null
                or run = 1 and cancelled_at is null and size - remaining - failed >= quorum)
            or completed_at is not null and remaining > 0 and quorum is null and on_deadline is null""",
    "more failures than it takes, and it goes on": """
        select fan_out_id, failed, max_failures from fanfold.fan_out
        where completed_at is null and cancelled_at is null and run = 1 and failed > max_failures""",
    "4 one fold per (fan-out, run), iff complete": """
        select f.fan_out_id, f.run, o.queued, r.run from fanfold.fan_out f
        left join (
            select fan_out_id, run, count(*) as queued from fanfold.outbox where fan_out_id is not null group by 1, 2) o
            on o.fan_out_id = f.fan_out_id and o.run = f.run
        left join fanfold.result r on r.fan_out_id = f.fan_out_id and r.index = -1
        where o.queued > 1 or f.completed_at is null and o.queued > 0 or r.run > f.run
            or f.completed_at is null and r.run = f.run
            or f.completed_at is not null and f.fold is not null and f.topic is not null and o.queued is null
                and r.run is distinct from f.run""",
    "a thread's clock is at least every base it accepted": """
        select f.fan_out_id, f.base, t.clock from fanfold.fan_out f left join fanfold.thread t using (thread_id)
        where t.thread_id is null or exists (
            select from jsonb_each_text(f.base) b where coalesce((t.clock ->> b.key)::bigint, 0) < b.value::bigint)""",
}


def assert_invariants(connection: psycopg.Connection[Any]) -> None:
    """Guarantees 1 to 4 of the design, and the clock's, over all tables. Folds must not have been acknowledged away."""
    for name, query in _INVARIANTS.items():
        broken = connection.execute(query.encode()).fetchall()
        assert not broken, f"{name}: {broken[:5]}"
