"""Two connections at once: the barrier fires once, claims and commits cannot cross, nobody deadlocks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from fanfold_sql import CommitReply, Conflict, Fenced, StoreUnavailable
from tests.sql.support import APPLIED, CLOSED, FanOutSpec, Tables, Worker
from tests.support.wait import eventually

F = FanOutSpec()
TIMEOUT_S = 20


def _is_waiting(tables: Tables, worker: Worker) -> bool:
    """Whether the worker's backend waits for a lock."""
    return bool(
        tables.value(
            "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s",
            worker.connection.info.backend_pid,
        )
    )


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(16) as executor:
        yield executor


def test_of_the_last_two_results_from_two_connections_exactly_one_completes(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    other = make_worker()
    for number in range(25):
        spec = FanOutSpec(id=f"f{number}", size=2)
        start = threading.Barrier(2)

        def last(one: Worker, index: int, spec: FanOutSpec = spec, start: threading.Barrier = start) -> CommitReply:
            start.wait(TIMEOUT_S)
            return one.commit([spec.result(index)])

        replies = [pool.submit(last, one, index) for index, one in enumerate((worker, other))]
        completed = [done for reply in replies for done in reply.result(TIMEOUT_S).completed]
        assert [(done.fan_out_id, done.run) for done in completed] == [(spec.id, 1)]
    assert len(tables.queued_folds()) == 25


def test_a_commit_that_waited_for_the_thread_sees_what_the_other_committed(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    other, spec = make_worker(), FanOutSpec(size=2)
    with worker.connection.transaction():
        assert worker.commit([spec.result(0)]).completed == []
        waiting = pool.submit(other.commit, [spec.result(1)])
        eventually(lambda: _is_waiting(tables, other))
    assert [done.fan_out_id for done in waiting.result(TIMEOUT_S).completed] == ["f1"]


def test_the_same_result_from_two_connections_is_applied_once(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    other = make_worker()
    with worker.connection.transaction():
        assert worker.outcomes(F.result(0)) == [APPLIED]
        waiting = pool.submit(other.outcomes, F.result(0))
        eventually(lambda: _is_waiting(tables, other))
    assert [outcome.value for outcome in waiting.result(TIMEOUT_S)] == ["duplicate"]


def test_the_last_place_of_a_quorum_is_given_to_one_of_two_connections(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    other, spec = make_worker(), FanOutSpec(size=3, quorum=1)
    with worker.connection.transaction():
        assert worker.outcomes(spec.result(0)) == [APPLIED]
        waiting = pool.submit(other.outcomes, spec.result(1))
        eventually(lambda: _is_waiting(tables, other))
    assert [outcome.value for outcome in waiting.result(TIMEOUT_S)] == ["closed"]


def test_a_base_that_lost_the_race_for_the_thread_is_stale(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    other = make_worker()
    with worker.connection.transaction():
        worker.commit([FanOutSpec(id="new", base=(("main", 2),)).result(0)])
        waiting = pool.submit(other.outcomes, FanOutSpec(id="old", base=(("main", 1),)).result(0))
        eventually(lambda: _is_waiting(tables, other))
    assert [outcome.value for outcome in waiting.result(TIMEOUT_S)] == ["stale"]


def test_one_fan_out_id_opened_under_two_threads_at_once_belongs_to_the_first(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    # The second holds another thread's lock, so only the fan-out's own key stands between the two barriers.
    other, spec = make_worker(), FanOutSpec(size=2)
    with worker.connection.transaction():
        worker.commit([spec.result(0)])
        waiting = pool.submit(other.commit, [spec.but(thread_id="t2").result(1)])
        eventually(lambda: _is_waiting(tables, other))
    with pytest.raises(Conflict):
        waiting.result(TIMEOUT_S)
    assert tables.fan_out() == {"remaining": 1, "failed": 0, "run": 1, "complete": False}


def test_a_claim_waits_for_a_running_commit_and_sees_its_progress(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    held, other = worker.claim(), make_worker()
    with worker.connection.transaction():
        worker.commit([F.result(0)], partitions=[held.at(5, ((7, 9),))])
        waiting = pool.submit(other.claim_in_full)
        eventually(lambda: _is_waiting(tables, other))
    claim = waiting.result(TIMEOUT_S)
    assert (claim.epoch, claim.next_offset, claim.islands, claim.commit_seq) == (2, 5, ((7, 9),), 1)


def test_the_first_claims_of_a_partition_all_succeed_when_they_come_at_once(
    make_worker: Callable[[], Worker], pool: ThreadPoolExecutor
) -> None:
    # The table has two unique keys; an upsert that names one of them fails on the other when two of them cross.
    workers = [make_worker() for _ in range(4)]
    for partition in range(50):
        start = threading.Barrier(len(workers))

        def claim(one: Worker, partition: int = partition, start: threading.Barrier = start) -> int:
            start.wait(TIMEOUT_S)
            return one.claim(partition).epoch

        claims = [pool.submit(claim, one) for one in workers]
        assert sorted(one.result(TIMEOUT_S) for one in claims) == [1, 2, 3, 4]


def test_a_commit_that_waits_for_a_claim_is_fenced_by_it(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    held, other = worker.claim(), make_worker()
    with other.connection.transaction():
        other.claim()
        waiting: Future[CommitReply] = pool.submit(worker.commit, [F.result(0)], partitions=[held.at(5)])
        eventually(lambda: _is_waiting(tables, worker))
    with pytest.raises(Fenced):
        waiting.result(TIMEOUT_S)
    assert tables.fan_out() is None


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("select 1 from fanfold.renew_partitions(%s, %s::int8[], %s::int8[])", id="renewal"),
        pytest.param("select fanfold.release_partitions(%s, %s::int8[], %s::int8[])", id="release"),
    ],
)
def test_a_commit_never_deadlocks_with_a_call_that_names_its_partitions_in_another_order(
    call: str, worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    first, second = sorted((worker.claim(0), worker.claim(1)), key=lambda held: held.progress_id)
    holder, other = make_worker(), make_worker()
    # The plan of a large table: rows are found one by one, in the order in which they were named.
    for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"):
        other.connection.execute(f"set {setting} = off".encode())
    with holder.connection.transaction():
        holder.commit(partitions=[first.at(1)], owner=worker.owner)
        committing = pool.submit(worker.commit, [F.result(0)], partitions=[first.at(2), second.at(2)])
        eventually(lambda: _is_waiting(tables, worker))
        named = (worker.owner, [second.progress_id, first.progress_id], [second.epoch, first.epoch])
        calling = pool.submit(other.connection.execute, call.encode(), named)
        eventually(lambda: _is_waiting(tables, other))
    # In a circle, one of them would be broken off with 40P01.
    assert committing.result(TIMEOUT_S).commit_seqs == [2, 1]
    calling.result(TIMEOUT_S)


def test_a_cancel_under_a_wrong_thread_that_crosses_the_first_result_moves_no_clock(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    # The commit sees the cancel only where it opens the fan-out, after it has moved its thread's clock.
    other, spec = make_worker(), F.but(base=(("main", 1),))
    with other.connection.transaction():
        assert other.cancel("f1", "t2") == "cancelled"
        waiting = pool.submit(worker.outcomes, spec.result(0))
        eventually(lambda: _is_waiting(tables, worker))
    with pytest.raises(StoreUnavailable):
        waiting.result(TIMEOUT_S)
    assert worker.outcomes(spec.result(0)) == [CLOSED]
    assert tables.clock("t1") is None


def test_a_reopening_waits_for_a_running_commit_and_counts_what_it_stored(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    other, spec = make_worker(), FanOutSpec(size=2)
    worker.commit([spec.result(0)])
    with worker.connection.transaction():
        worker.commit([spec.result(1)])
        waiting = pool.submit(other.reopen, "f1", spec.task(1).task_id)
        eventually(lambda: _is_waiting(tables, other))
    assert waiting.result(TIMEOUT_S) == 2
    assert tables.fan_out() == {"remaining": 1, "failed": 0, "run": 2, "complete": False}


def test_batches_over_the_same_threads_and_partitions_in_any_order_never_deadlock(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor, tables: Tables
) -> None:
    # 8 connections, each sending every result of 6 threads in an order of its own: all but one are duplicates.
    specs = [FanOutSpec(id=f"f{n}", thread_id=f"t{n}", size=20) for n in range(6)]
    start = threading.Barrier(8)

    def member(one: Worker, seed: int) -> list[tuple[str, int]]:
        rng = random.Random(seed)
        results = [result for spec in specs for result in spec.results()]
        rng.shuffle(results)
        start.wait(TIMEOUT_S)
        completed = []
        while results:
            batch, results = results[:15], results[15:]
            completed += [(done.fan_out_id, done.run) for done in one.commit(batch).completed]
        return completed

    members = [pool.submit(member, make_worker(), seed) for seed in range(8)]
    completed = [done for one in members for done in one.result(60)]
    assert sorted(completed) == [(spec.id, 1) for spec in specs]
    assert sorted(tables.queued_folds()) == [(spec.id, 1) for spec in specs]


def test_claims_and_commits_of_the_same_partitions_in_any_order_never_deadlock(
    worker: Worker, make_worker: Callable[[], Worker], pool: ThreadPoolExecutor
) -> None:
    start = threading.Barrier(4)

    def member(one: Worker, seed: int) -> int:
        rng, fenced = random.Random(seed), 0
        start.wait(TIMEOUT_S)
        for _ in range(30):
            partitions = rng.sample(range(4), 3)
            held = [one.claim(partition) for partition in partitions]
            try:
                one.commit([F.result(rng.randrange(3))], partitions=[part.at(0) for part in held])
            except Fenced:
                fenced += 1
        return fenced

    for one in [pool.submit(member, make_worker(), seed) for seed in range(4)]:
        assert 0 <= one.result(60) <= 30
