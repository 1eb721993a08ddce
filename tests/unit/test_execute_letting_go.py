"""What becomes of handlers when their partition is lost or leaves, and when the member closes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.assignment import Phase
from tests.support.wait import eventually_async
from tests.unit.executor_bench import BOUND_S, bench, failure, value
from tests.unit.fleet_records import a_partition, a_task, some_work
from tests.unit.handler_gates import Gates, run_bounded, turns, work_of


class TestLostPartitions:
    def test_handlers_of_a_lost_partition_are_cancelled_and_dropped_and_others_go_on(self) -> None:
        async def scenario() -> None:
            gates, lost, kept = Gates(), a_partition(), a_partition(number=4)
            async with bench(gates.registry) as at:
                at.submit(*work_of(0, 1, partition=lost), *work_of(2, partition=kept))
                await gates.begin(0, 1, 2)
                lost.phase = Phase.LOST
                at.executor.abandon_lost()
                dropped = await at.finished(2)
                assert all(completion.dropped and completion.delivery.partition is lost for completion in dropped)
                assert sorted(gates.cancelled) == [0, 1]
                gates.open(2)
                assert value((await at.finished(3))[2]) == 2

        run_bounded(scenario)

    def test_the_workers_of_abandoned_handlers_go_on_with_other_tasks(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            async with bench(gates.registry, concurrency=2) as at:
                for round_ in range(3):
                    lost = a_partition()
                    at.submit(*work_of(2 * round_, 2 * round_ + 1, partition=lost))
                    await gates.begin(*range(2 * round_ + 2))
                    lost.phase = Phase.LOST
                    at.executor.abandon_lost()
                    await at.finished(2 * (round_ + 1))
                gates.open(100, 101)
                at.submit(*work_of(100, 101))
                await at.finished(8)
                assert [value(completion) for completion in at.completions[6:]] == [100, 101]
                assert not at.broke

        run_bounded(scenario)

    def test_abandoning_twice_is_abandoning_once(self) -> None:
        async def scenario() -> None:
            gates, lost = Gates(), a_partition()
            async with bench(gates.registry, concurrency=1) as at:
                at.submit(*work_of(0, partition=lost))
                await gates.begin(0)
                lost.phase = Phase.LOST
                at.executor.abandon_lost()
                at.executor.abandon_lost()
                await at.finished(1)
                at.executor.abandon_lost()
                gates.open(1)
                assert value(await at.run(work_of(1)[0])) == 1

        run_bounded(scenario)

    def test_a_handler_that_ignores_its_cancellation_does_not_pass_it_on_to_the_next(self) -> None:
        async def scenario() -> None:
            registry, lost = Registry(), a_partition()
            begun, go_on = asyncio.Event(), asyncio.Event()

            @registry.task("work", timeout=60)
            async def stubborn(arg: Any) -> str:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await go_on.wait()
                return "anyway"

            @registry.task("next", retries=0)
            async def cancels_itself(arg: Any) -> None:
                await asyncio.sleep(0)
                raise asyncio.CancelledError

            async with bench(registry, concurrency=1) as at:
                at.submit(*work_of(0, partition=lost))
                await begun.wait()
                lost.phase = Phase.LOST
                at.executor.abandon_lost()
                await turns()
                at.executor.abandon_lost()
                go_on.set()
                assert (await at.finished(1))[0].dropped, "whatever it returns"
                # A worker that still counted as cancelled would take this one for its own.
                assert failure(await at.run(some_work(a_task("next")))).code == "E_HANDLER"
            assert not at.broke

        run_bounded(scenario)

    def test_a_failure_on_a_lost_partition_is_dropped_and_not_parked(self) -> None:
        async def scenario() -> None:
            registry, partition = Registry(), a_partition()

            @registry.task("work", retries=5)
            async def loses(arg: Any) -> None:
                partition.phase = Phase.LOST
                raise LookupError

            async with bench(registry) as at:
                with capture_logs() as logs:
                    completion = await at.run(work_of(0, partition=partition)[0])
            assert completion.dropped
            assert completion.dead_letter is None
            assert not logs

        run_bounded(scenario)

    def test_a_task_that_waits_for_its_next_attempt_is_abandoned_too(self) -> None:
        async def scenario() -> None:
            registry, lost = Registry(), a_partition()
            failed = asyncio.Event()

            @registry.task("work", backoff=1000, backoff_max=1000)
            async def fails(arg: Any) -> None:
                failed.set()
                raise LookupError

            async with bench(registry) as at:
                at.submit(*work_of(0, partition=lost))
                await failed.wait()
                await turns()
                lost.phase = Phase.LOST
                at.executor.abandon_lost()
                assert (await at.finished(1))[0].dropped

        run_bounded(scenario)

    def test_a_task_on_a_thread_is_abandoned_with_its_thread(self) -> None:
        async def scenario() -> None:
            registry, lost = Registry(), a_partition()
            begun, let = threading.Event(), threading.Event()

            @registry.task("work")
            def blocks(arg: Any) -> bool:
                begun.set()
                return let.wait(BOUND_S)

            registry.task("next")(lambda arg: "on another thread")
            try:
                async with bench(registry, concurrency=1, sync_workers=1) as at:
                    at.submit(*work_of(0, partition=lost))
                    await eventually_async(_is(begun.is_set))
                    lost.phase = Phase.LOST
                    at.executor.abandon_lost()
                    assert (await at.finished(1))[0].dropped
                    assert value(await at.run(some_work(a_task("next")))) == "on another thread"
            finally:
                let.set()

        run_bounded(scenario)


def _is(check: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def checked() -> bool:
        return check()

    return checked


class TestQueued:
    @pytest.mark.parametrize("phase", [Phase.LEAVING, Phase.LOST])
    def test_queued_tasks_that_may_not_begin_any_more_are_dropped_and_the_others_keep_their_order(
        self, phase: Phase
    ) -> None:
        async def scenario() -> None:
            gates, leaving, kept = Gates(), a_partition(), a_partition(number=4)
            async with bench(gates.registry, concurrency=1) as at:
                at.submit(*work_of(0, partition=kept), *work_of(1, 2, partition=leaving), *work_of(3, partition=kept))
                at.submit(*work_of(4, partition=leaving), *work_of(5, partition=kept))
                await gates.begin(0)
                leaving.phase = phase
                at.executor.drop_queued()
                assert [completion.delivery.offset for completion in at.completions] == [1, 2, 4]
                assert all(completion.dropped for completion in at.completions)
                gates.open(0, 3, 5)
                await at.finished(6)
                assert gates.begun == [0, 3, 5]

        run_bounded(scenario)

    def test_what_runs_on_a_partition_that_leaves_may_finish(self) -> None:
        async def scenario() -> None:
            gates, leaving = Gates(), a_partition()
            async with bench(gates.registry) as at:
                at.submit(*work_of(0, partition=leaving))
                await gates.begin(0)
                leaving.phase = Phase.LEAVING
                at.executor.drop_queued()
                at.executor.abandon_lost()
                await turns()
                assert not at.completions
                gates.open(0)
                assert value((await at.finished(1))[0]) == 0

        run_bounded(scenario)

    def test_a_task_whose_partition_went_while_it_was_queued_does_not_begin(self) -> None:
        async def scenario() -> None:
            gates, partition = Gates(), a_partition()
            async with bench(gates.registry, concurrency=1) as at:
                at.submit(*work_of(0), *work_of(1, partition=partition))
                await gates.begin(0)
                partition.phase = Phase.LOST
                gates.open(0, 1)
                completions = await at.finished(2)
                assert completions[1].dropped
                assert gates.begun == [0]

        run_bounded(scenario)

    def test_a_stopped_partitions_tasks_still_run(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            gates.open(0)
            async with bench(gates.registry) as at:
                assert value(await at.run(work_of(0, partition=a_partition(Phase.STOPPED))[0])) == 0

        run_bounded(scenario)


class TestClose:
    def test_what_runs_is_cancelled_and_neither_finished_nor_dropped(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            async with bench(gates.registry, concurrency=2) as at:
                at.submit(*work_of(0, 1, 2))
                await gates.begin(0, 1)
                await at.executor.close()
                assert sorted(gates.cancelled) == [0, 1]
                assert gates.begun == [0, 1]
                assert not at.completions
                assert not at.broke

        run_bounded(scenario)

    def test_an_executor_that_never_ran_anything_closes(self) -> None:
        async def scenario() -> None:
            async with bench(Registry()) as at:
                await at.executor.close()

        run_bounded(scenario)

    def test_a_handler_that_is_still_cleaning_up_after_it_was_abandoned_does_not_keep_it_open(self) -> None:
        async def scenario() -> None:
            registry, lost = Registry(), a_partition()
            begun, cleaning = asyncio.Event(), asyncio.Event()

            @registry.task("work")
            async def slow_to_leave(arg: Any) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cleaning.set()
                    await asyncio.Event().wait()

            async with bench(registry) as at:
                at.submit(*work_of(0, partition=lost))
                await begun.wait()
                lost.phase = Phase.LOST
                at.executor.abandon_lost()
                await cleaning.wait()
                async with asyncio.timeout(BOUND_S):
                    await at.executor.close()

        run_bounded(scenario)

    def test_a_handler_that_ignores_its_cancellation_is_not_followed_by_another(self) -> None:
        async def scenario() -> None:
            registry = Registry()
            begun: list[int] = []

            @registry.task("work", retries=5)
            async def stubborn(arg: Any, context: TaskContext) -> None:
                begun.append(context.index)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise LookupError("instead") from None

            async with bench(registry, concurrency=1) as at:
                at.submit(*work_of(0, 1))
                await eventually_async(_is(lambda: bool(begun)))
                with capture_logs() as logs:
                    await at.executor.close()
                assert begun == [0]
                assert not logs

        run_bounded(scenario)
