"""What becomes of the results of a member while others commit to the thread of some."""

from __future__ import annotations

import asyncio
from typing import Any

from fanfold_sql import CommitBatch, CommitReply, Store, StoreUnavailable
from tests.benchmarks.hot_thread import Member, Results, Waits
from tests.support.database import Database
from tests.support.wait import eventually_async


def test_results_of_other_threads_are_committed_while_one_thread_is_locked_and_its_own_afterwards(
    database: Database,
) -> None:
    async def play() -> None:
        results = Results()
        async with Store.open(database.worker_dsn) as store:
            member = Member(store, 0, Waits())
            await member.join()
            with database.connect() as other:
                other.execute("select pg_advisory_lock(hashtextextended('hot', 4207))")
                # Offset 0 is of the hot thread, so progress must not pass it.
                member.finish([results.of("hot"), results.of("cold"), results.of("hot"), results.of("cold")])
                await eventually_async(lambda: _remaining_is(store, "f-cold", 2), what="both cold results")
                member.finish([results.of("hot"), results.of("cold")])
                await eventually_async(lambda: _remaining_is(store, "f-cold", 3), what="a cold result that came later")
                (progress,) = await store.list_partitions()
                assert (progress.next_offset, progress.islands) == (0, ((1, 2), (3, 4), (5, 6)))
                assert await store.read_fan_out("f-hot") is None
            await member.leave()
            assert await _remaining_is(store, "f-hot", 3)
            (progress,) = await store.list_partitions()
            assert (progress.next_offset, progress.islands) == (6, ())

    asyncio.run(play())


def test_a_commit_that_is_repeated_because_its_answer_was_lost_is_not_taken_apart(database: Database) -> None:
    async def play() -> None:
        results = Results()
        async with Store.open(database.worker_dsn) as store, asyncio.timeout(30):
            member = Member(store, 0, Waits())
            await member.join()
            with database.connect() as other:
                commit, calls = store.commit, 0

                async def commit_and_lose_the_answer(batch: CommitBatch, **options: Any) -> CommitReply:
                    nonlocal calls
                    calls += 1
                    answer = commit(batch, **options)
                    if calls > 1:
                        return await answer
                    await answer
                    other.execute("select pg_advisory_lock(hashtextextended('hot', 4207))")
                    raise StoreUnavailable("the answer was lost")

                store.commit = commit_and_lose_the_answer  # type: ignore[method-assign]
                member.finish([results.of("hot"), results.of("cold")])
                await eventually_async(lambda: _remaining_is(store, "f-cold", 1), what="the commit")
                # Held back, the hot one would not be finished, and progress would go back behind it.
                await eventually_async(lambda: _waits(store), what="the same commit again, which waits for its thread")
            await member.leave()
            assert await _remaining_is(store, "f-hot", 1)
            (progress,) = await store.list_partitions()
            assert (progress.next_offset, progress.islands, progress.commit_seq) == (2, (), 2)

    asyncio.run(play())


async def _waits(store: Store) -> bool:
    async with store.transaction() as connection:
        cursor = await connection.execute(
            "select from pg_locks where locktype = 'advisory' and not granted and waitstart < now() - interval '0.2 s'"
        )
        return await cursor.fetchone() is not None


async def _remaining_is(store: Store, fan_out_id: str, committed: int) -> bool:
    state = await store.read_fan_out(fan_out_id)
    return state is not None and state.size - state.remaining == committed
