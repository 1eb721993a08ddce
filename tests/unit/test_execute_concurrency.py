"""How many handlers run at once, in which order, and what is logged of them."""

from __future__ import annotations

import asyncio
from typing import Any

from structlog.testing import capture_logs

from fanfold_consumer import Registry, TaskContext
from tests.unit.executor_bench import Bench, bench, failure, value
from tests.unit.fleet_records import a_task, some_work
from tests.unit.handler_gates import Gates, run_bounded, turns, work_of


def _values(at: Bench) -> list[Any]:
    return [value(completion) for completion in at.completions]


class TestConcurrency:
    def test_no_more_handlers_run_at_once_than_are_allowed(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            async with bench(gates.registry, concurrency=3) as at:
                at.submit(*work_of(*range(10)))
                await gates.begin(0, 1, 2)
                await turns()
                assert gates.begun == [0, 1, 2]
                assert at.sample("fanfold_handlers_running") == 3
                gates.open(1)
                await gates.begin(0, 1, 2, 3)
                gates.open(*range(10))
                await at.finished(10)
                assert gates.most_at_once == 3
                assert at.sample("fanfold_handlers_running") == 0

        run_bounded(scenario)

    def test_tasks_begin_in_the_order_they_came(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            gates.open(*range(50))
            async with bench(gates.registry, concurrency=1) as at:
                at.submit(*work_of(*range(50)))
                await at.finished(50)
                assert _values(at) == list(range(50))

        run_bounded(scenario)

    def test_a_slow_task_holds_up_no_other(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            gates.open(*range(1, 20))
            async with bench(gates.registry, concurrency=2) as at:
                at.submit(*work_of(*range(20)))
                await at.finished(19)
                assert 0 not in _values(at)
                gates.open(0)
                await at.finished(20)

        run_bounded(scenario)

    def test_a_worker_that_waits_is_taken_before_another_is_made(self) -> None:
        async def scenario() -> None:
            gates = Gates()
            gates.open(*range(20))
            async with bench(gates.registry, concurrency=8) as at:
                tasks_before = len(asyncio.all_tasks())
                for work in work_of(*range(20)):
                    await at.run(work)
                assert len(asyncio.all_tasks()) == tasks_before + 1

        run_bounded(scenario)

    def test_handlers_that_never_wait_leave_turns_to_others(self) -> None:
        async def scenario() -> None:
            registry = Registry()
            seen: list[int] = []

            @registry.task("work")
            async def busy(arg: Any, context: TaskContext) -> int:
                return len(seen)

            async with bench(registry, concurrency=2) as at:

                async def others() -> None:
                    while len(at.completions) < 2000:
                        seen.append(1)
                        await asyncio.sleep(0)

                other = asyncio.create_task(others())
                await asyncio.sleep(0)
                at.submit(*work_of(*range(900)), *work_of(*range(900)), *work_of(*range(200)))
                await at.finished(2000)
                await other
                assert len(seen) >= 5
                assert len(set(_values(at))) >= 5, "others had turns in between, not only before and after"

        run_bounded(scenario)


class TestLogs:
    def test_a_retry_and_a_final_failure_are_logged_without_the_error_text_or_the_arg(self) -> None:
        async def scenario() -> None:
            registry = Registry()

            @registry.task("work", retries=1, backoff=0)
            async def fails(arg: Any) -> None:
                raise LookupError("secret of the arg")

            async with bench(registry) as at:
                with capture_logs() as logs:
                    letter = failure(await at.run(some_work(a_task(arg="secret"))))
            assert "secret of the arg" in letter.error
            assert [(entry["event"], entry["log_level"]) for entry in logs] == [
                ("task.retried", "info"),
                ("task.failed", "warning"),
            ]
            assert logs[0]["error_type"] == "LookupError"
            assert logs[1]["code"] == "E_HANDLER"
            assert "secret" not in repr(logs)

        run_bounded(scenario)
