"""Every method of the store once, over its own pool, as the worker: the statements, the types, the records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from fanfold_schemas import FOLD_INDEX, FanOut
from fanfold_sql import (
    CommitBatch,
    Conflict,
    DeadLetter,
    DeadLetterFilter,
    Fenced,
    FoldOf,
    OutboxRecord,
    PartitionCommit,
    Rewound,
    Store,
    StoreUnavailable,
    reopen_fan_out,
)
from tests.sql.support import APPLIED, CLUSTER, DUPLICATE, TOPIC, TOPIC_ID, FanOutSpec, Tables, assert_invariants
from tests.support.database import Database

F = FanOutSpec(base=(("main", 4),), deadline_ms=99)

Use = Callable[[Callable[[Store], Awaitable[None]]], None]


@pytest.fixture(
    params=[{}, {"prepare": False}, {"early_lock_release": True}], ids=["prepared", "unprepared", "early_lock_release"]
)
def use(request: pytest.FixtureRequest, database: Database, tables: Tables) -> Use:
    """Run a coroutine function with a store: with prepared statements; without, as behind an old PgBouncer; with early
    lock release."""

    def run(body: Callable[[Store], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Store.open(database.worker_dsn, **request.param) as store:
                await body(store)

        asyncio.run(main())
        assert_invariants(tables.connection)

    return run


def test_a_partition_from_claim_to_release(use: Use) -> None:
    async def body(store: Store) -> None:
        owner = uuid4()
        claim = await store.claim_partition("g", CLUSTER, TOPIC, TOPIC_ID, 3, owner)
        assert (claim.epoch, claim.next_offset, claim.islands, claim.previous_topic_id) == (1, None, (), None)
        progress = PartitionCommit(claim.progress_id, 1, 0, 5, ((7, 9),))
        letter = DeadLetter(claim.progress_id, 4, b"k", b"v", None, "E_FRAME", "broken", F.task(1))
        reply = await store.commit(CommitBatch([F.result(0)], [progress], [letter], owner=owner))
        assert (reply.outcomes, reply.commit_seqs) == ([APPLIED], [1])
        assert await store.renew_partitions(owner, [(claim.progress_id, 1)]) == {}
        [state] = await store.list_partitions("g", TOPIC)
        assert (state.owner, state.next_offset, state.islands, state.commit_seq) == (owner, 5, ((7, 9),), 1)
        assert state.idle_seconds is not None
        where = DeadLetterFilter(topic=TOPIC, fan_out_id="f1", codes=["E_FRAME"])
        [parked] = await store.list_dead_letters(where, with_bytes=True)
        assert (parked.partition, parked.offset, parked.task_id) == (3, 4, F.task(1).task_id)
        assert (parked.key, parked.value, parked.headers) == (b"k", b"v", None)
        assert await store.reset_partition("g", CLUSTER, TOPIC, TOPIC_ID, 3, epoch=1, next_offset=0)
        assert await store.renew_partitions(owner, [(claim.progress_id, 1)]) == {claim.progress_id: True}
        with pytest.raises(Fenced) as fenced:
            await store.commit(CommitBatch([], [replace(progress, commit_seq=1)], owner=owner))
        assert fenced.value.progress_ids == {claim.progress_id}
        with pytest.raises(Rewound):
            await store.commit(CommitBatch([], [replace(progress, progress_id=10**12)], owner=owner))
        again = await store.claim_partition("g", CLUSTER, TOPIC, TOPIC_ID, 3, owner)
        await store.release_partitions(owner, [(again.progress_id, again.epoch)])
        assert [state.owner for state in await store.list_partitions()] == [None]

    use(body)


def test_a_fan_out_from_its_first_result_to_its_fold(use: Use) -> None:
    async def body(store: Store) -> None:
        assert await store.read_fan_out("f1") is None
        assert await store.read_thread("t1") is None
        record = OutboxRecord("out", b"k", b"v", b"h", result=0)
        reply = await store.commit(CommitBatch(F.results(), outbox=[record]), lease_ms=0)
        [done] = reply.completed
        rows = await store.claim_outbox(limit=10, lease_ms=0)
        assert {row.outbox_id for row in rows} == {done.outbox_id, *reply.outbox_ids}
        fold_of = FoldOf(FanOut("f1", 3, "sum", None, 99), 1, "t1", {"main": 4})
        assert [(row.topic, row.value, row.fold_of) for row in rows if row.fold_of] == [(TOPIC, None, fold_of)]
        assert [(row.topic, row.key, row.value, row.headers) for row in rows if not row.fold_of] == [
            ("out", b"k", b"v", b"h")
        ]
        waiting, oldest = await store.outbox_stats()
        assert (waiting, oldest >= 0) == (2, True)
        assert await store.check_tasks([F.task(0), F.task(FOLD_INDEX)], [7, 7]) == ["duplicate", None]
        assert (await store.commit(CommitBatch([F.fold_result(payload=b"sum"), F.result(0)]))).outcomes == [
            APPLIED,
            DUPLICATE,
        ]
        await store.ack_outbox([row.outbox_id for row in rows])
        assert await store.outbox_stats() == (0, 0.0)
        state = await store.read_fan_out("f1")
        assert state is not None
        assert (state.state, state.size, state.remaining, state.base, state.topic) == ("done", 3, 0, {"main": 4}, TOPIC)
        assert [result.payload for result in await store.read_results("f1", after=-2)] == [b"sum"] + [b"\x01"] * 3
        thread = await store.read_thread("t1")
        assert thread is not None
        assert thread.clock == {"main": 4}
        with pytest.raises(Conflict) as conflict:
            await store.commit(CommitBatch([F.result(0), F.result(0, arg_hash=8)]))
        assert conflict.value.positions == {1}

    use(body)


def test_reopening_goes_with_the_callers_transaction(use: Use) -> None:
    async def body(store: Store) -> None:
        await store.commit(CommitBatch(F.results()))
        await store.commit(CommitBatch([F.fold_result()]))

        async def reopen_and_fail() -> None:
            async with store.transaction() as connection:
                assert await reopen_fan_out(connection, "f1", [F.task(0).task_id]) == 2
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await reopen_and_fail()
        assert [state.state for state in await store.list_fan_outs(thread_id="t1")] == ["done"]
        async with store.transaction() as connection:
            assert await reopen_fan_out(connection, "unknown", []) is None
            assert await reopen_fan_out(connection, "f1", [F.task(0).task_id]) == 2
        assert [state.run for state in await store.list_fan_outs(state="open")] == [2]
        pruned = await store.prune(datetime.now(UTC) + timedelta(hours=1))
        assert (pruned.fan_outs, pruned.results, pruned.threads, pruned.dead_letters) == (0, 0, 0, 0)
        assert (await store.commit(CommitBatch([F.result(0, run=2)]))).completed[0].run == 2

    use(body)


def test_an_empty_commit_and_an_empty_check(use: Use) -> None:
    async def body(store: Store) -> None:
        reply = await store.commit(CommitBatch([]))
        assert (reply.outcomes, reply.completed, reply.outbox_ids, reply.commit_seqs) == ([], [], [], [])
        assert await store.check_tasks([], []) == []

    use(body)


def test_a_server_that_does_not_answer_is_unavailable_not_an_outcome() -> None:
    async def main() -> None:
        async with Store.open("postgresql://nobody@127.0.0.1:1/nothing") as store:
            store._pool.timeout = 0.2
            with pytest.raises(StoreUnavailable):
                await store.commit(CommitBatch([F.result(0)]))

    asyncio.run(main())
