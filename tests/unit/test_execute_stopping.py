"""Handlers that are told to end: work that nobody needs, handlers that will not end, and who takes their place."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.assignment import Phase
from fanfold_consumer.execute import ENDING_S
from fanfold_consumer.work import Completion, Work
from fanfold_schemas import decode_task
from tests.unit.executor_bench import BOUND_S, bench, failure, value
from tests.unit.fleet_records import a_partition, a_task, some_work
from tests.unit.handler_gates import Gates, run_bounded, turns, work_of
from tests.unit.leaping_loop import run_leaping


def _refused(completion: Completion) -> bool:
    """Finished without a result, so that progress moves over it."""
    return (completion.result, completion.dead_letter, completion.outbox, completion.dropped) == (None, None, (), False)


def _stubborn(registry: Registry, **settings: Any) -> list[int]:
    """A handler that will not be cancelled. Returns its attempts, as they begin."""
    attempts: list[int] = []
    # Held here: what nothing leads to any more, the garbage collector ends.
    never = asyncio.Event()

    @registry.task("work", **settings)
    async def stubborn(arg: Any, context: TaskContext) -> None:
        attempts.append(context.attempt)
        while True:
            try:
                await never.wait()
            except asyncio.CancelledError:
                continue

    registry.task("next")(_echo)
    return attempts


async def _echo(arg: Any) -> Any:
    return arg


def _next() -> Work:
    return some_work(a_task("next", "done"))


class TestStop:
    def test_running_and_queued_tasks_are_finished_without_a_result_and_others_go_on(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            async with bench(gates.registry, concurrency=2) as at:
                works = work_of(0, 1, 2, 3, 4)
                at.submit(*works)
                await gates.begin(0, 1)
                stopped = at.executor.stop({works[1]: "stale", works[2]: "closed", works[4]: "closed"})
                assert stopped == Counter(stale=1, closed=2)
                refused = await at.finished(3)
                assert sorted(c.delivery.offset for c in refused) == [1, 2, 4]
                assert all(map(_refused, refused))
                assert gates.cancelled == [1]
                gates.open(0, 3)
                await at.finished(5)
                assert sorted(value(c) for c in at.completions[3:]) == [0, 3]
                assert at.metrics.registry.get_sample_value("fanfold_deliveries_skipped_total", {"why": "closed"}) == 2
                assert at.metrics.registry.get_sample_value("fanfold_deliveries_skipped_total", {"why": "stale"}) == 1

        run_bounded(scenario)

    def test_what_is_not_in_hand_any_more_is_left_alone(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            gates.open(0)
            async with bench(gates.registry) as at:
                work = work_of(0)[0]
                assert value(await at.run(work)) == 0
                assert not at.executor.stop({work: "closed"})
                await turns()
                assert len(at.completions) == 1

        run_bounded(scenario)

    def test_a_task_is_stopped_once(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            async with bench(gates.registry, concurrency=1) as at:
                work = work_of(0)[0]
                at.submit(work)
                await gates.begin(0)
                assert at.executor.in_hand() == [work]
                assert at.executor.stop({work: "closed"})
                assert not at.executor.stop({work: "closed"})
                assert at.executor.in_hand() == []
                assert _refused((await at.finished(1))[0])

        run_bounded(scenario)

    def test_a_task_that_waits_for_its_next_attempt_is_stopped_too(self) -> None:
        async def scenario() -> None:
            registry, work = Registry(), some_work()
            failed = asyncio.Event()

            @registry.task("work", backoff=1000, backoff_max=1000)
            async def fails(arg: Any) -> None:
                failed.set()
                raise LookupError

            async with bench(registry) as at:
                at.submit(work)
                await failed.wait()
                await turns()
                at.executor.stop({work: "closed"})
                assert _refused((await at.finished(1))[0])

        run_bounded(scenario)

    def test_a_task_on_a_thread_is_stopped_with_its_thread(self) -> None:
        async def scenario() -> None:
            registry, work = Registry(), some_work()
            begun, let = asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            @registry.task("work")
            def blocks(arg: Any) -> bool:
                loop.call_soon_threadsafe(begun.set)
                return let.wait(BOUND_S)

            registry.task("next")(lambda arg: "on another thread")
            try:
                async with bench(registry, concurrency=1, sync_workers=1) as at:
                    at.submit(work)
                    await begun.wait()
                    at.executor.stop({work: "stale"})
                    assert _refused((await at.finished(1))[0])
                    assert value(await at.run(_next())) == "on another thread"
            finally:
                let.set()

        run_bounded(scenario)

    @pytest.mark.parametrize("ends", ["by returning", "by raising"])
    def test_what_a_handler_makes_of_its_cancellation_does_not_count(self, ends: str) -> None:
        async def scenario() -> None:
            registry, work = Registry(), some_work()
            begun = asyncio.Event()

            @registry.task("work", retries=5)
            async def work_on(arg: Any) -> str:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if ends == "by raising":
                        raise LookupError("instead") from None
                return "anyway"

            registry.task("next")(_echo)
            async with bench(registry, concurrency=1) as at:
                at.submit(work)
                await begun.wait()
                at.executor.stop({work: "closed"})
                assert _refused((await at.finished(1))[0])
                assert value(await at.run(_next())) == "done"
                assert not at.broke

        run_bounded(scenario)

    def test_a_partition_that_is_lost_meanwhile_changes_nothing(self) -> None:
        async def scenario() -> None:
            gates, partition = Gates(), a_partition()
            async with bench(gates.registry, concurrency=1) as at:
                work = work_of(0, partition=partition)[0]
                at.submit(work)
                await gates.begin(0)
                at.executor.stop({work: "closed"})
                partition.phase = Phase.LOST
                at.executor.abandon_lost()
                await at.finished(1)
                gates.open(1)
                assert value(await at.run(work_of(1)[0])) == 1

        run_bounded(scenario)


class TestHandlersThatWillNotEnd:
    def test_out_of_time_in_its_last_attempt_it_fails_and_another_worker_has_its_place(self) -> None:
        registry = Registry()
        _stubborn(registry, timeout=2, retries=0)

        async def scenario() -> None:
            loop = asyncio.get_running_loop()
            async with bench(registry, concurrency=1, bound_s=1e9) as at:
                began = loop.time()
                at.submit(some_work(), _next())
                with capture_logs() as logs:
                    await at.finished(2)
                assert loop.time() - began == pytest.approx(2 + ENDING_S)
                letter = failure(at.completions[0])
                assert letter.code == "E_TIMEOUT"
                assert letter.error == ("no result within 2 s, and it did not end when it was cancelled (attempt 1)")
                assert value(at.completions[1]) == "done"
                assert [entry["node"] for entry in logs if entry["event"] == "handler.abandoned"] == ["work"]
                assert at.sample("fanfold_handlers_running") == 1, "it runs on, and that is to be seen"

        run_leaping(scenario)

    def test_out_of_time_with_attempts_left_it_goes_on_as_another_delivery(self) -> None:
        registry = Registry()
        attempts = _stubborn(registry, timeout=2, retries=2, backoff=1, backoff_max=1)

        async def scenario() -> None:
            async with bench(registry, concurrency=1, bound_s=1e9) as at:
                task = a_task()
                for attempt in (1, 2):
                    (record,) = (await at.run(some_work(task))).outbox
                    task = decode_task(record.value)
                    assert task.attempt == attempt + 1
                    assert record.delay_ms <= 1000
                assert failure(await at.run(some_work(task))).error.endswith("(attempt 3)")
                assert attempts == [1, 2, 3]

        run_leaping(scenario)

    @pytest.mark.parametrize("why", ["stopped", "lost"])
    def test_told_to_end_it_has_a_while_and_then_another_worker_has_its_place(self, why: str) -> None:
        registry, partition = Registry(), a_partition()
        attempts = _stubborn(registry)

        async def scenario() -> None:
            async with bench(registry, concurrency=1, bound_s=1e9) as at:
                work = some_work(partition=partition)
                at.submit(work)
                await turns()
                assert attempts == [1]
                if why == "stopped":
                    at.executor.stop({work: "closed"})
                else:
                    partition.phase = Phase.LOST
                    at.executor.abandon_lost()
                at.submit(_next())
                await asyncio.sleep(ENDING_S - 0.1)
                assert not at.completions
                await at.finished(2)
                assert at.completions[0].dropped == (why == "lost")
                assert _refused(at.completions[0]) == (why == "stopped")
                assert value(at.completions[1]) == "done"

        run_leaping(scenario)

    def test_cleaning_up_within_that_while_is_fine_and_its_result_is_not_late_either(self) -> None:
        registry = Registry()

        @registry.task("work", timeout=2, retries=0)
        async def tidy(arg: Any) -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(ENDING_S - 1)
            return "in the end"

        async def scenario() -> None:
            async with bench(registry, bound_s=1e9) as at:
                with capture_logs() as logs:
                    assert value(await at.run(some_work())) == "in the end"
                    await asyncio.sleep(10 * ENDING_S)
                assert not logs
                assert len(at.completions) == 1

        run_leaping(scenario)

    def test_a_retry_that_waits_in_place_after_its_timeout_is_not_taken_for_one(self) -> None:
        registry = Registry()

        @registry.task("work", timeout=2, retries=1, backoff=10 * ENDING_S, backoff_max=10 * ENDING_S)
        async def slow(arg: Any, context: TaskContext) -> str:
            if context.attempt == 1:
                await asyncio.sleep(100)
            return "done"

        async def scenario() -> None:
            async with bench(registry, bound_s=1e9) as at:
                assert value(await at.run(some_work())) == "done"

        run_leaping(scenario)

    def test_one_that_ends_at_last_changes_nothing(self) -> None:
        registry = Registry()
        let = asyncio.Event()

        @registry.task("work", timeout=2, retries=0)
        async def late(arg: Any) -> str:
            while not let.is_set():
                try:
                    await let.wait()
                except asyncio.CancelledError:
                    continue
            return "late"

        registry.task("next")(_echo)

        async def scenario() -> None:
            async with bench(registry, concurrency=1, bound_s=1e9) as at:
                assert failure(await at.run(some_work())).code == "E_TIMEOUT"
                let.set()
                await turns()
                assert value(await at.run(_next())) == "done"
                assert len(at.completions) == 2
                assert not at.broke
                assert at.sample("fanfold_handlers_running") == 0

        run_leaping(scenario)

    def test_it_keeps_neither_the_executor_nor_the_process_from_ending(self) -> None:
        registry = Registry()
        attempts = _stubborn(registry)

        async def scenario() -> None:
            async with bench(registry, bound_s=1e9) as at:
                at.submit(some_work())
                await turns()
                assert attempts == [1]
            assert not at.completions

        ended = threading.Event()

        def process() -> None:
            run_leaping(scenario)
            ended.set()

        threading.Thread(target=process, daemon=True).start()
        assert ended.wait(BOUND_S)


def test_a_handler_that_blocks_the_loop_is_not_one_that_ignores_its_cancellation() -> None:
    """Both are late. This one's time was over before anybody could tell it so."""
    registry = Registry()
    blocked = threading.Event()

    @registry.task("work", timeout=0.01, retries=0)
    async def blocks(arg: Any) -> None:
        blocked.wait(0.2)
        await asyncio.sleep(100)

    async def scenario() -> None:
        async with bench(registry) as at:
            with capture_logs() as logs:
                assert failure(await at.run(some_work())).error == "no result within 0.01 s (attempt 1)"
            assert not [entry for entry in logs if entry["event"] == "handler.abandoned"]

    asyncio.run(scenario())
