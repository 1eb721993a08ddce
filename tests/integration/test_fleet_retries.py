"""Retries that outlast their delivery, and work that is stopped before it is done."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest

from fanfold_consumer import Registry, RetryAfter, TaskContext
from fanfold_schemas import VectorClock
from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually


class Handlers:
    """Handlers, and what they saw."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.attempts: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.folds: list[TaskContext] = []
        self.let = threading.Event()
        self.registry.task("echo")(self._echo)
        self.registry.task("limited")(self._limited)
        self.registry.task("endless", retries=0)(self._endless)
        self.registry.task("breaks", retries=0)(self._breaks)
        self.registry.task("stubborn", timeout=0.2, retries=1, backoff=0)(self._stubborn)
        self.registry.task("hung", timeout=0.2, retries=1, backoff=0)(self._hung)
        self.registry.task("blocks")(self._blocks)
        self.registry.fold("total", retries=2)(self._total)

    async def _echo(self, arg: Any) -> Any:
        return arg

    async def _limited(self, arg: dict[str, Any], context: TaskContext) -> int:
        """Is told to come again `times` times, after `s` seconds."""
        self.attempts[context.task_id].append((context.attempt, time.monotonic()))
        if context.attempt <= arg["times"]:
            raise RetryAfter(arg["s"], "quota")
        return context.attempt

    async def _endless(self, arg: Any, context: TaskContext) -> None:
        self.begun.append(context.index)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(context.index)
            raise

    async def _breaks(self, arg: Any) -> None:
        raise LookupError("broken")

    async def _stubborn(self, arg: Any, context: TaskContext) -> None:
        self.attempts[context.task_id].append((context.attempt, time.monotonic()))
        while not self.let.is_set():
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue

    def _hung(self, arg: Any, context: TaskContext) -> None:
        self.attempts[context.task_id].append((context.attempt, time.monotonic()))
        self.let.wait(60)

    async def _blocks(self, arg: Any) -> None:
        self.let.wait(60)

    async def _total(self, values: list[int], context: TaskContext) -> int:
        self.folds.append(context)
        if context.attempt == 1:
            raise RetryAfter(0.1)
        return sum(values)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def _passed(rig: Rig, topic: Topic) -> bool:
    """Whether progress is over all there is."""
    return rig.partitions()[0].next_offset == topic.end_offsets()[0]


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_task_that_waits_long_holds_neither_its_partition_nor_a_place(
    rig: Rig, topic: Topic, handlers: Handlers
) -> None:
    rig.start_here(topic, registry=handlers.registry, concurrency=1)
    handle = rig.publish(topic, [("limited", {"times": 1, "s": 3600}), *[("echo", n) for n in range(10)]])
    rig.await_results(10)
    eventually(lambda: _passed(rig, topic), what="progress over the task that waits")
    ((due_s,),) = rig.rows("select extract(epoch from due_at - now())::float8 from fanfold.outbox")
    assert 3500 < due_s < 1.1 * 3600
    state = handle.progress()
    assert state is not None
    assert (state.remaining, state.failed) == (1, 0)


def test_attempts_are_counted_through_the_outbox_and_over_a_kill_9(rig: Rig, topic: Topic) -> None:
    first = rig.start(topic, retry_in_place_s=0)
    handle = rig.publish(topic, [("limited", {"times": 2, "s": 1.0})], fold="sum")
    eventually(lambda: rig.rows("select from fanfold.outbox"), what="the second attempt in the outbox")
    first.kill()
    second = rig.start(topic, retry_in_place_s=0)
    assert handle.result(30) == 3
    calls = rig.notes.calls()
    assert [call.attempt for call in calls] == [1, 2, 3]
    assert [call.pid for call in calls] == [first.pid, second.pid, second.pid]
    assert len(second.events("task.retried", task_id=handle.task_ids[0])) == 1
    rig.assert_sound()


def test_a_thousand_tasks_and_a_fold_that_are_all_told_to_come_again_fold_once(
    rig: Rig, topic: Topic, handlers: Handlers
) -> None:
    member = rig.start_here(topic, registry=handlers.registry, retry_in_place_s=0)
    handle = rig.publish(topic, [("limited", {"times": 1, "s": 1.0})] * 1000, fold="total")
    assert handle.result(60) == 2000
    assert [context.attempt for context in handlers.folds] == [1, 2]
    assert len(handlers.attempts) == 1000
    for seen in handlers.attempts.values():
        (first, at), (second, again_at) = seen
        assert (first, second) == (1, 2)
        assert again_at - at >= 1.0
    assert member.metric("fanfold_task_retries_total") == 1001
    assert rig.rows("select count(*) from fanfold.result where index = -1") == [(1,)]
    assert rig.dead_letters() == []
    rig.assert_sound()


def test_the_last_attempt_is_parked_as_it_came_and_says_how_many_there_were(
    rig: Rig, topic: Topic, handlers: Handlers
) -> None:
    rig.start_here(topic, registry=handlers.registry, retry_in_place_s=0)
    handle = rig.publish(topic, [("limited", {"times": 100, "s": 0.01}), ("echo", 2)])
    failure, two = handle.result(30, return_failures=True)
    assert two == 2
    assert failure.error == "RetryAfter: again after 0.01 s: quota (attempt 4)"
    (letter,) = rig.dead_letters()
    assert letter.code == "E_HANDLER"
    assert [attempt for attempt, _ in handlers.attempts[handle.task_ids[0]]] == [1, 2, 3, 4]
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
@pytest.mark.parametrize("why", ["cancelled", "too many failures", "deadline", "superseded"])
def test_running_work_that_nobody_needs_any_more_is_stopped(
    rig: Rig, topic: Topic, handlers: Handlers, why: str
) -> None:
    member = rig.start_here(topic, registry=handlers.registry, concurrency=3, drain_s=0).await_partitions()
    policy: dict[str, Any] = {}
    if why == "too many failures":
        policy = {"max_failures": 0}
    elif why == "deadline":
        policy = {"deadline": timedelta(seconds=2)}
    third = ("breaks" if why == "too many failures" else "echo", 2)
    sends = [("endless", 0), ("endless", 1), third]
    handle = rig.publish(topic, sends, base={"main": 1}, fold="count", **policy)
    eventually(lambda: sorted(handlers.begun) == [0, 1])
    if why == "cancelled":
        assert handle.cancel()
    elif why == "superseded":
        rig.store(lambda store: store.advance_thread("t1", VectorClock({"main": 2})))
    eventually(lambda: sorted(handlers.cancelled) == [0, 1])
    verdict = "stale" if why == "superseded" else "closed"
    assert member.metric("fanfold_deliveries_skipped_total", why=verdict) == 2
    eventually(lambda: _passed(rig, topic), what="progress over the stopped tasks")
    assert len(rig.dead_letters()) == (why == "too many failures")
    assert not rig.values(handle.fan_out_id).keys() & {0, 1}


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_queued_tasks_that_were_checked_before_they_were_superseded_do_not_begin(
    rig: Rig, topic: Topic, handlers: Handlers
) -> None:
    member = rig.start_here(topic, registry=handlers.registry, concurrency=1, drain_s=0).await_partitions()
    rig.publish(topic, [("endless", 0)], thread_id="t2")
    rig.publish(topic, [("limited", {"times": 0, "s": 0})] * 20, base={"main": 1})
    eventually(lambda: member.metric("fanfold_in_flight") == 21)
    rig.store(lambda store: store.advance_thread("t1", VectorClock({"main": 2})))
    eventually(lambda: member.metric("fanfold_deliveries_skipped_total", why="stale") == 20)
    eventually(lambda: member.metric("fanfold_in_flight") == 1)
    assert not handlers.attempts
    assert not handlers.cancelled, "what runs is of another thread"


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_quorum_stops_the_others_and_its_fold_knows_who_is_missing(
    rig: Rig, topic: Topic, handlers: Handlers
) -> None:
    member = rig.start_here(topic, registry=handlers.registry, concurrency=3)
    sends = [("endless", 0), ("echo", 10), ("breaks", 2), ("echo", 30), ("endless", 4)]
    handle = rig.publish(topic, sends, fold="total", quorum=2)
    eventually(lambda: handlers.folds, what="a fold")
    assert handle.result(20) == 40
    assert (handlers.folds[-1].failed, handlers.folds[-1].missing) == ((2,), (0, 4))
    eventually(lambda: sorted(handlers.cancelled) == sorted(handlers.begun))
    assert member.metric("fanfold_deliveries_skipped_total", why="closed") == 2
    eventually(lambda: _passed(rig, topic))
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_handlers_that_hang_fail_after_their_attempts_and_nothing_else_waits_for_them(
    rig: Rig, topic: Topic, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanfold_consumer.execute.ENDING_S", 0.3)
    member = rig.start_here(topic, registry=handlers.registry, concurrency=2, sync_workers=1)
    handle = rig.publish(topic, [("stubborn", 0), ("hung", 1), ("hung", 2), *[("echo", n) for n in range(3, 20)]])
    stubborn, hung, hung_too, *others = handle.result(30, return_failures=True)
    assert stubborn.error == "no result within 0.2 s, and it did not end when it was cancelled (attempt 2)"
    assert hung.error == hung_too.error == "no result within 0.2 s (attempt 2)"
    assert others == list(range(3, 20))
    assert {letter.code for letter in rig.dead_letters()} == {"E_TIMEOUT"}
    assert all([attempt for attempt, _ in seen] == [1, 2] for seen in handlers.attempts.values())
    eventually(lambda: _passed(rig, topic))
    member.stop()
    handlers.let.set()
    rig.assert_sound()


def test_a_handler_that_ignores_its_cancellation_does_not_keep_the_process_from_ending(rig: Rig, topic: Topic) -> None:
    rig.publish(topic, [("stubborn", 1)])
    member = rig.start(topic, drain_s=0)
    eventually(rig.notes.calls)
    assert member.stop() == 0
    assert len(member.events("handler.abandoned", node="stubborn")) == 1


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_handler_that_blocks_the_loop_is_named_by_live_and_the_member_keeps_its_partitions(
    rig: Rig, topic: Topic, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanfold_consumer.fleet.LOOP_STALL_S", 1.0)
    member = rig.start_here(topic, registry=handlers.registry, health_port=0).await_partitions()
    health = member.fleet.health
    assert health is not None

    def not_live() -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{health.port}/live", timeout=10):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())

    handle = rig.publish(topic, [("blocks", 0), ("echo", 1)])
    assert "the handler of 'blocks' blocks it" in str(eventually(not_live))
    handlers.let.set()
    assert handle.result(20) == [None, 1]
    eventually(lambda: not_live() is None)
    assert rig.partitions()[0].epoch == 1
