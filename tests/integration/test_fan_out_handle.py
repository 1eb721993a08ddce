"""What a handle says of a fan-out, with the fleet's part played by calls of the store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from fanfold_producer import (
    DatabaseNeeded,
    FanOutCancelled,
    FanOutFailed,
    FanOutHandle,
    FanOutStale,
    FanOutUnknown,
    FoldFailed,
    KafkaConfig,
    Publisher,
    TaskFailure,
    results,
)
from fanfold_schemas import FOLD_INDEX, FanOut, Task, derive_fold_task_id, encode_payload
from fanfold_sql import CommitBatch, DeadLetter, Finished, MigrationNeeded, PartitionCommit, Store
from tests.support.database import Database
from tests.support.kafka import Broker, Topic


@pytest.fixture
def publisher(broker: Broker, topic: Topic, database: Database) -> Iterator[Publisher]:
    with Publisher(broker.config, topic=topic.name, database_url=database.worker_dsn) as publisher:
        yield publisher


def _with_store(database: Database, work: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with Store.open(database.worker_dsn) as store:
            await work(store)

    asyncio.run(run())


def _task(handle: FanOutHandle, index: int, *, fold: str | None = None, quorum: int | None = None) -> Task:
    fan_out = FanOut(handle.fan_out_id, handle.size, fold, quorum)
    if index == FOLD_INDEX:
        return Task(derive_fold_task_id(handle.fan_out_id), handle.thread_id, fan_out, index, fold or "")
    return Task(handle.task_ids[index], handle.thread_id, fan_out, index, "a")


def _finish(
    database: Database,
    handle: FanOutHandle,
    values: dict[int, object],
    *,
    errors: dict[int, str] | None = None,
    fold: str | None = None,
    quorum: int | None = None,
) -> None:
    """Commit values by index, in the order given, and failures with their dead letters."""

    async def commit(store: Store) -> None:
        done = [Finished(_task(handle, at, fold=fold, quorum=quorum), encode_payload(v)) for at, v in values.items()]
        failed = {at: _task(handle, at, fold=fold, quorum=quorum) for at in errors or {}}
        owner = uuid.uuid4()
        claim = await store.claim_partition("g", "c", "tasks", "id", 0, owner)
        # Dead letters move only together with the progress of the partition that they stood in.
        progress = PartitionCommit(claim.progress_id, claim.epoch, claim.commit_seq, claim.next_offset or 0, ())
        letters = [
            DeadLetter(claim.progress_id, 1000 + at, b"k", b"v", None, "handler_failed", text, failed[at])
            for at, text in (errors or {}).items()
        ]
        finished = [*done, *(Finished(task, None) for task in failed.values())]
        await store.commit(CommitBatch(finished, [progress], letters, owner=owner))

    _with_store(database, commit)


def test_results_come_in_index_order_whatever_order_they_finished_in(
    publisher: Publisher, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PAGE_RESULTS", 2)
    handle = publisher.fan_out("t", [("a", n) for n in range(5)])
    assert handle.progress() is None
    _finish(database, handle, {3: "d", 0: "a"})
    state = handle.progress()
    assert state is not None
    assert (state.size, state.remaining, state.state) == (5, 3, "open")
    _finish(database, handle, {4: None, 2: {"x": 1}, 1: "b"})
    assert handle.result(10) == ["a", "b", {"x": 1}, "d", None]
    assert asyncio.run(handle.aresult(10)) == ["a", "b", {"x": 1}, "d", None]


def test_a_result_that_comes_while_somebody_waits_is_seen(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", 1)])

    async def scenario() -> Any:
        waiting = asyncio.create_task(handle.aresult(20))
        assert await handle.aprogress() is None
        await asyncio.to_thread(_finish, database, handle, {0: "late"})
        return await waiting

    assert asyncio.run(scenario()) == ["late"]


def test_with_a_fold_the_result_is_what_the_fold_made(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", 1), ("a", 2)], fold="sum")
    _finish(database, handle, {0: 1, 1: 2}, fold="sum")
    with pytest.raises(TimeoutError, match="fold 'sum' is not in yet: 2 done, 0 failed, 0 of 2 remaining"):
        handle.result(0)
    _finish(database, handle, {FOLD_INDEX: {"total": 3}}, fold="sum")
    assert handle.result(10) == {"total": 3}


def test_a_fold_that_failed_is_told_with_its_reason(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", 1)], fold="sum")
    _finish(database, handle, {0: 1}, fold="sum")
    _finish(database, handle, {}, errors={FOLD_INDEX: "no number"}, fold="sum")
    with pytest.raises(FoldFailed, match="no number"):
        handle.result(10)


def test_failed_tasks_are_told_with_indexes_and_reasons(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", n) for n in range(4)])
    _finish(database, handle, {0: "x", 2: "z"}, errors={1: "first reason", 3: "second reason"})
    with pytest.raises(FanOutFailed, match=r"2 of 4 tasks .*index 1: first reason; index 3: second") as caught:
        handle.result(10)
    first = TaskFailure(1, handle.task_ids[1], "first reason")
    second = TaskFailure(3, handle.task_ids[3], "second reason")
    assert caught.value.failures == (first, second)
    assert handle.result(10, return_failures=True) == ["x", first, "z", second]


def test_a_quorum_that_was_met_gives_the_values_that_are_there(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", n) for n in range(4)], quorum=2)
    _finish(database, handle, {3: "d"}, errors={0: "no"}, quorum=2)
    with pytest.raises(TimeoutError):
        handle.result(0)
    _finish(database, handle, {1: "b"}, quorum=2)
    assert handle.result(10) == ["b", "d"]
    assert handle.result(10, return_failures=True) == [TaskFailure(0, handle.task_ids[0], "no"), "b", "d"]


def test_a_quorum_that_can_no_longer_be_met_is_a_failure(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", n) for n in range(2)], quorum=2)
    _finish(database, handle, {0: "a"}, errors={1: "no"}, quorum=2)
    with pytest.raises(FanOutFailed, match="1 of 2"):
        handle.result(10)


def test_a_timeout_says_how_far_it_is(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", n) for n in range(3)])
    with pytest.raises(TimeoutError, match=r"no result of its 3 tasks after 0\.05 s.*fanfold status"):
        handle.result(0.05)
    _finish(database, handle, {0: 1}, errors={1: "no"})
    with pytest.raises(TimeoutError, match="1 done, 1 failed, 1 of 3 remaining"):
        asyncio.run(handle.aresult(0.05))


def test_a_wait_can_be_cancelled_and_taken_up_again(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("t", [("a", 1)])

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle.aresult(), 0.05)

    asyncio.run(scenario())
    _finish(database, handle, {0: 1})
    assert handle.result(10) == [1]


def test_a_handle_can_be_had_again_by_its_id(publisher: Publisher, database: Database) -> None:
    published = publisher.fan_out("t", [("a", 1), ("a", 2)], fan_out_id="mine")
    with pytest.raises(FanOutUnknown, match="mine"):
        publisher.handle("mine")
    _finish(database, published, {0: 1, 1: 2})
    for handle in (publisher.handle("mine"), asyncio.run(publisher.ahandle("mine"))):
        assert (handle.thread_id, handle.size, handle.task_ids) == ("t", 2, ())
        assert handle.result(10) == [1, 2]


def test_without_a_database_a_handle_says_what_it_lacks(broker: Broker, topic: Topic) -> None:
    with Publisher(broker.config, topic=topic.name) as publisher:
        handle = publisher.fan_out("t", [("a", 1)])
        for call in (handle.progress, handle.result, lambda: publisher.handle(handle.fan_out_id)):
            with pytest.raises(DatabaseNeeded, match="database_url"):
                call()


def test_a_database_without_the_schema_is_told_at_once(empty_database: str) -> None:
    with (
        Publisher(KafkaConfig("127.0.0.1:1"), database_url=empty_database) as publisher,
        pytest.raises(MigrationNeeded, match="fanfold migrate"),
    ):
        publisher.handle("any")


def test_closing_the_publisher_ends_every_wait(publisher: Publisher) -> None:
    handle = publisher.fan_out("t", [("a", 1)])

    async def scenario() -> None:
        waiting = asyncio.create_task(handle.aresult())
        await handle.aprogress()
        await publisher.aclose()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
    with pytest.raises(RuntimeError, match="closed"):
        handle.progress()


def test_a_fan_out_whose_thread_moved_on_is_an_error_at_once(publisher: Publisher, database: Database) -> None:
    handle = publisher.fan_out("moved", [("a", 1), ("a", 2)], base={"": 1})
    fan_out = FanOut(handle.fan_out_id, 2)
    old = Task(handle.task_ids[0], "moved", fan_out, 0, "a", base={"": 1})
    newer = Task("newer", "moved", FanOut("newer", 1), 0, "a", base={"": 2})

    async def commit(store: Store) -> None:
        await store.commit(CommitBatch([Finished(old, encode_payload(1))]))
        await store.commit(CommitBatch([Finished(newer, encode_payload(2))]))

    _with_store(database, commit)
    with pytest.raises(FanOutStale, match="1 of 2 results outstanding"):
        handle.result(timeout=20)


def test_a_handle_cancels_before_the_first_result_and_whoever_waits_hears_of_it(publisher: Publisher) -> None:
    handle = publisher.fan_out("t1", [("a", 1), ("a", 2)], fold="sum")
    assert handle.cancel()
    assert asyncio.run(handle.acancel())
    with pytest.raises(FanOutCancelled, match="with all of its results outstanding"):
        handle.result(timeout=20)


def test_a_handle_says_how_much_a_cancelled_fan_out_lacks_and_when_it_is_too_late(
    publisher: Publisher, database: Database
) -> None:
    handle = publisher.fan_out("t1", [("a", 1), ("a", 2)])
    _finish(database, handle, {0: "x"})
    assert handle.cancel()
    with pytest.raises(FanOutCancelled, match="with 1 of 2 of its results outstanding"):
        handle.result(timeout=20)
    done = publisher.fan_out("t1", [("a", 1)])
    _finish(database, done, {0: "x"})
    assert not done.cancel()
