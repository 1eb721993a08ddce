"""The store as the members use it, where every answer, and after it every table, is compared with the prediction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from fanfold_schemas import Task, VectorClock
from fanfold_sql import (
    Claim,
    CommitBatch,
    CommitReply,
    Conflict,
    Fenced,
    Finished,
    OutboxRecord,
    OutboxRow,
    Rewound,
    Store,
    StoredResult,
    StoreError,
    StoreRejected,
    reopen_fan_out,
)
from fanfold_sql.outbox import enqueue_records
from tests.property.model.ledger import Ledger, Refused
from tests.property.model.observer import DEAD_LETTERS, Observer, expected
from tests.sql.oracle import CONFLICT, Oracle, explain
from tests.sql.support import CLUSTER, TOPIC, TOPIC_ID

GROUP = "g"
LEASE_MS = 600_000
PROGRESS_BACKWARDS = "ZF005"

_OF_RESULTS = ("rows", "fan_outs")
_COMMIT_RESULT: LiteralString = (
    "select outcome, completed from fanfold.commit_result(%s, %s, %s::int4, %s, %s::int4, %s::bytea, %s::jsonb, %s,"
    " %s::int4, %s::int8, %s, %s::int4, %s, %s::int8, %s::int4, %s)"
)
T = TypeVar("T")


class Violation(AssertionError):
    """The database did what it must not do."""


class Database:
    """A migrated database: the product's store, which may do what a worker may, and its tables.

    It forgets on a crash (`synchronous_commit=off`): nothing here crashes a server, and waiting for the disk is most of
    a commit.
    """

    def __init__(self, dsn: str) -> None:
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        worker = make_conninfo(dsn, options="-c role=fanfold_worker -c synchronous_commit=off")
        self.store = self.call(self._stack.enter_async_context(Store.open(worker, pool_size=1)))
        owner = make_conninfo(dsn, options="-c synchronous_commit=off")
        self._connection = psycopg.connect(owner, autocommit=True)
        self.observer = Observer(self._connection)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        self._connection.close()
        self.call(self._stack.aclose())
        self._loop.close()


class CheckedStore:
    """One episode on a database, from empty tables on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = database.store
        self.observer = database.observer
        self.ledger = Ledger()
        self._aside: Ledger | None = None
        self._looked: dict[str, Any] = {}
        self._now = 0
        self.observer.empty()

    # Partitions

    def claim(self, partition: int, owner: UUID) -> Claim:
        claim = self._call(self._store.claim_partition(GROUP, CLUSTER, TOPIC, TOPIC_ID, partition, owner))
        held = self.ledger.claim(claim.progress_id, owner, claim.epoch)
        got = (claim.epoch, claim.next_offset, claim.islands, claim.commit_seq)
        same((held.epoch, held.next_offset, held.islands, held.commit_seq), got, "claim_partition")
        return claim

    def release(self, owner: UUID, progress_id: int, epoch: int) -> None:
        self._call(self._store.release_partitions(owner, [(progress_id, epoch)]))
        self.ledger.release(progress_id, epoch, owner)

    def renew(self, owner: UUID, claims: Sequence[tuple[int, int, int]]) -> dict[int, bool]:
        held = [(progress_id, epoch) for progress_id, epoch, _ in claims]
        lost = self._call(self._store.renew_partitions(owner, held, [commit_seq for _, _, commit_seq in claims]))
        same(self.ledger.lost(owner, claims), lost, "renew_partitions")
        return lost

    def reset(self, partition: int, progress_id: int, epoch: int, next_offset: int) -> None:
        done = self._call(
            self._store.reset_partition(
                GROUP, CLUSTER, TOPIC, TOPIC_ID, partition, epoch=epoch, next_offset=next_offset
            )
        )
        same(self.ledger.reset(progress_id, epoch, next_offset), done, "reset_partition")

    # Tasks

    def check(self, tasks: Sequence[Task], hashes: Sequence[int]) -> list[str | None]:
        """Verdicts. What a check says before the commit is what a commit of the task alone would answer."""
        verdicts = self._call(self._store.check_tasks(tasks, hashes))
        for task, arg_hash, verdict in zip(tasks, hashes, verdicts, strict=True):
            alone = self.alone(Finished(task, b"", arg_hash))
            # A check does not compare fan-outs: what contradicts its own may pass for known already.
            if verdict not in (None, alone) and not (alone == CONFLICT and self._contradicts(task)):
                raise Violation(f"check_tasks says {verdict} of {task}, and a commit would say {alone}")
            if verdict is None and alone not in ("applied", CONFLICT):
                raise Violation(f"check_tasks lets {task} run, which a commit would refuse as {alone}")
        return verdicts

    def commit(self, batch: CommitBatch) -> CommitReply | StoreError:
        """Send a commit; an error that was to be expected is returned."""
        fence = self.ledger.refusal(batch)
        try:
            reply = self._call(self._store.commit(batch, lease_ms=LEASE_MS))
        except (Fenced, Rewound) as error:
            why = "fenced" if isinstance(error, Fenced) else "rewound"
            same(fence, Refused(why, error.progress_ids), "the fence")
            return error
        except Conflict as error:
            same(fence, None, "the fence, which comes before a conflict")
            self._check_conflict(batch, error)
            return error
        except StoreRejected as error:
            if error.sqlstate != PROGRESS_BACKWARDS or fence is not None or not self.ledger.goes_back(batch):
                raise Violation(f"commit_results refused {batch}: {error}") from error
            return error
        same(fence, None, f"the fence of {batch}")
        if self.ledger.goes_back(batch):
            raise Violation(f"progress went back: {batch}")
        self.ledger.store(batch, self._explain(batch, reply), reply)
        return reply

    def commit_alone(self, result: Finished) -> None:
        """One result through `commit_result`, as from a script without Kafka."""
        task, fan_out = result.task, result.task.fan_out
        declared = (Jsonb(task.base), fan_out.fold, fan_out.quorum, fan_out.deadline_ms, TOPIC)
        ends = (fan_out.max_failures, fan_out.on_deadline)
        what = (task.thread_id, fan_out.id, fan_out.size, task.task_id, task.index, result.payload)
        oracle = self.ledger.oracle.copy()
        want: tuple[str, bool] = (oracle.commit(result), bool(oracle.completed))
        got = (CONFLICT, False)
        with suppress(Conflict):
            got = self._call(
                self._one(_COMMIT_RESULT, (*what, *declared, task.run, result.failed, result.arg_hash, *ends))
            )
        same(want, got, f"commit_result of {result}")
        self.ledger.oracle = oracle
        if oracle.completed and fan_out.fold is not None:
            self._adopt([(None, completed) for completed in oracle.completed])

    # Reruns and what ends work

    def open(self, tasks: Sequence[Task]) -> None:
        self._call(self._store.open_fan_outs([(task, TOPIC) for task in tasks]))
        for task in tasks:
            self.ledger.oracle.open(task)

    def expire(self) -> None:
        """Every deadline passes, and somebody looks."""
        want = self.ledger.oracle.expire()
        same(want, [(f.fan_out_id, f.folds) for f in self._call(self._store.expire_fan_outs())], "expire_fan_outs")
        folds = {name for name, folds in want if folds and self._has_fold(name)}
        for outbox_id, row in self.observer.view().tables["outbox"].items():
            if int(outbox_id) not in self.ledger.outbox:
                folds.remove(row[1])
                self.ledger.queue(int(outbox_id), value=None, fold_of=(row[1], 1), due=self._now)
        same(set(), folds, "folds that expire_fan_outs did not queue")

    def rerun(self, chosen: dict[str, list[Task]], record: Callable[[Task, int | None], OutboxRecord]) -> None:
        """Reopen fan-outs and queue their tasks at the run they get, in one transaction."""
        runs = {name: self.ledger.oracle.reopen(name, [t.task_id for t in tasks]) for name, tasks in chosen.items()}
        records = [record(task, runs[name]) for name, tasks in chosen.items() for task in tasks]

        async def queue() -> dict[str, int | None]:
            async with self._store.transaction() as connection:
                given = {
                    name: await reopen_fan_out(connection, name, [task.task_id for task in tasks])
                    for name, tasks in chosen.items()
                }
                await enqueue_records(connection, records)
                return given

        same(runs, self._call(queue()), "reopen_fan_out")
        self._adopt([(record.value, None) for record in records])

    def cancel(self, fan_out_id: str, thread_id: str | None) -> None:
        answer = self.ledger.oracle.cancel(fan_out_id, thread_id)
        try:
            given: str = self._call(self._store.cancel_fan_out(fan_out_id, thread_id))
        except StoreRejected:
            given = "refused"
        same(answer, given, "cancel_fan_out")

    def cancel_thread(self, thread_id: str) -> None:
        clock, ended = self.ledger.oracle.cancel_thread(thread_id)
        given = self._call(self._store.cancel_thread(thread_id))
        same((None if clock is None else clock.to_dict(), ended), (given.clock, given.fan_out_ids), "cancel_thread")

    def advance(self, thread_id: str, clock: VectorClock) -> None:
        given = self._call(self._store.advance_thread(thread_id, clock))
        same(self.ledger.oracle.advance(thread_id, clock).to_dict(), given, "advance_thread")

    def read_results(self, fan_out_id: str) -> list[StoredResult]:
        found = self._call(self._store.read_results(fan_out_id))
        rows = {row.index: row for row in self.ledger.oracle.rows.values() if row.fan_out_id == fan_out_id}
        want = [
            (index, row.run, row.status, row.payload if row.status == "done" else None)
            for index, row in sorted(rows.items())
            if index >= 0
        ]
        same(want, [(row.index, row.run, row.status, row.payload) for row in found], "read_results")
        return found

    def prune(self) -> None:
        """Forget all that is finished, however new."""
        want = self.ledger.prune()
        pruned = self._call(self._store.prune(datetime.now(UTC) + timedelta(days=1)))
        same(want, (pruned.fan_outs, pruned.results, pruned.threads, pruned.dead_letters), "prune")

    # The outbox

    def claim_outbox(self, limit: int) -> list[OutboxRow]:
        rows = self._call(self._store.claim_outbox(limit=limit, lease_ms=LEASE_MS))
        same(self.ledger.lease(limit), [row.outbox_id for row in rows], "claim_outbox")
        return rows

    def ack_outbox(self, outbox_ids: Sequence[int]) -> None:
        self._call(self._store.ack_outbox(outbox_ids))
        for outbox_id in outbox_ids:
            self.ledger.outbox.pop(outbox_id, None)

    def end_leases(self) -> None:
        self.observer.end_leases()
        self.ledger.end_leases(self._now)

    # Failover

    @property
    def has_copy(self) -> bool:
        return self._aside is not None

    def put_aside(self) -> None:
        self.observer.put_aside()
        self._aside = self.ledger.copy()

    def fail_over(self, *, promoted: bool) -> None:
        """Become the copy that was put aside: a promoted standby, on a timeline of its own, or a restored snapshot."""
        assert self._aside is not None
        self.observer.put_back(promoted=promoted)
        self.ledger, self._aside, self._looked = self._aside, None, {}
        if promoted:
            self.ledger.begin_timeline()

    # What must hold

    def verify(self) -> None:
        """Every table holds what was predicted, and every guarantee that can be asked for holds."""
        self._now += 1
        view = self.observer.view()
        want = expected(self.ledger)
        for table, rows in want.items():
            same(rows, view.tables[table], table)
        broken = [name for name in view.broken if name != DEAD_LETTERS or not self.ledger.replaying]
        if broken:
            raise Violation(f"guarantee broken: {', '.join(broken)}")
        if view.tables["partitions"] != self._looked:
            self.observer.look()
            self._looked = view.tables["partitions"]

    def alone(self, result: Finished) -> str:
        """What a commit of this result and nothing else would answer."""
        return self.ledger.oracle.copy().commit(result)

    def _explain(self, batch: CommitBatch, reply: CommitReply) -> Oracle:
        completed = [(done.fan_out_id, done.run) for done in reply.completed]
        outcomes = [outcome.value for outcome in reply.outcomes]
        orders = explain(self.ledger.oracle, batch.results, outcomes, completed)
        if len(orders) > 1:
            tables = self.observer.view().tables
            orders = [
                order for order in orders if all(expected(Ledger(order))[name] == tables[name] for name in _OF_RESULTS)
            ]
        if not orders:
            raise Violation(f"no order of {batch.results} answers {outcomes} and completes {completed}")
        return orders[0]

    def _check_conflict(self, batch: CommitBatch, conflict: Conflict) -> None:
        """Each result that is called a conflict contradicts what is stored, or another one of its batch."""
        for position in conflict.positions:
            result = batch.results[position]
            # Where a batch says two things about a new fan-out, the first opens it, even if it is then refused itself
            # for another reason; the other is parked, which is safe, though alone it would have been taken.
            said = {r.task.fan_out for r in batch.results if r.task.fan_out.id == result.task.fan_out.id}
            if len(said) == 1 and not any(self._collide(other, result) for other in batch.results):
                raise Violation(f"{result} is no conflict")

    def _collide(self, first: Finished, then: Finished) -> bool:
        """Whether `then` is a conflict once `first` is in, or would be if `first` were not enough for the quorum."""
        one, two = first.task, then.task
        if (one.fan_out.id, one.index) == (two.fan_out.id, two.index) and one.task_id != two.task_id:
            return True
        oracle = self.ledger.oracle.copy()
        oracle.commit(first)
        return oracle.commit(then) == CONFLICT

    def _contradicts(self, task: Task) -> bool:
        barrier = self.ledger.oracle.barriers.get(task.fan_out.id)
        return barrier is not None and (barrier.thread_id, barrier.declared) != (
            task.thread_id,
            (task.fan_out, VectorClock(task.base)),
        )

    def _has_fold(self, name: str) -> bool:
        declared = self.ledger.oracle.barriers[name].declared
        return declared is not None and declared[0].fold is not None

    def _adopt(self, queued: Sequence[tuple[bytes | None, tuple[str, int] | None]]) -> None:
        """Give new outbox rows, in order, the ids that they have in the table: no reply names them."""
        new = [outbox_id for outbox_id in self.observer.view().outbox_ids() if outbox_id not in self.ledger.outbox]
        same(len(queued), len(new), "how many rows were queued")
        for outbox_id, (value, fold_of) in zip(new, queued, strict=True):
            self.ledger.queue(outbox_id, value=value, fold_of=fold_of, due=self._now)

    async def _one(self, query: LiteralString, parameters: Sequence[Any]) -> Any:
        async with self._store.transaction() as connection:
            return await (await connection.execute(query, parameters)).fetchone()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._database.call(coroutine)


def same(want: object, got: object, what: str) -> None:
    """Raise `Violation` unless both are equal; of tables, it names the rows that differ."""
    if want == got:
        return
    if isinstance(want, dict) and isinstance(got, dict):
        differing = {key for key in want.keys() | got.keys() if want.get(key) != got.get(key)}
        want, got = ({key: one.get(key) for key in sorted(differing)} for one in (want, got))
    raise Violation(f"{what}: expected {want}, found {got}")
