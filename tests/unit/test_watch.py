"""Who is asked about again, how often, and what becomes of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from structlog.testing import capture_logs

from fanfold_consumer import Registry
from fanfold_consumer.intake import CHECK_TASKS_MAX
from fanfold_consumer.watch import LOOK_EVERY_S, Watch
from fanfold_consumer.work import Work
from fanfold_schemas import FanOut
from tests.unit.executor_bench import bench, value
from tests.unit.fleet_records import a_fold, a_partition, a_task, some_work
from tests.unit.handler_gates import Gates, run_bounded
from tests.unit.leaping_loop import run_leaping

PARTITION = a_partition()


class Verdicts:
    """Answers by index of the task; notes what it was asked."""

    def __init__(self, say: dict[int, str] | None = None) -> None:
        self.say = say or {}
        self.asked: list[list[int]] = []
        self.there = asyncio.Event()
        self.there.set()

    async def __call__(self, work: Sequence[Work]) -> list[str | None]:
        if work:
            self.asked.append(sorted(one.task.index for one in work))
        await self.there.wait()
        return [self.say.get(one.task.index) for one in work]


def _work(index: int, fan_out_id: str = "f1", run: int = 1) -> Work:
    task = msgspec.structs.replace(a_task(index=index, size=10_000, run=run), fan_out=FanOut(fan_out_id, 10_000))
    return some_work(task, partition=PARTITION, offset=index)


def _lone(*indexes: int) -> list[Work]:
    """Tasks that are of a fan-out each."""
    return [_work(index, f"f{index}") for index in indexes]


def test_a_task_is_first_asked_about_at_the_second_look_and_then_at_each() -> None:
    async def scenario() -> None:
        gates, verdicts = Gates(), Verdicts()
        async with bench(gates.registry, concurrency=1) as at:
            watch = Watch(at.executor, verdicts)
            await watch.look()
            at.submit(*_lone(0, 1))
            await gates.begin(0)
            await watch.look()
            assert verdicts.asked == []
            at.submit(*_lone(2))
            await watch.look()
            await watch.look()
            assert verdicts.asked == [[0, 1], [0, 1, 2]]

    run_bounded(scenario)


def test_tasks_that_are_done_between_two_looks_cost_no_question() -> None:
    async def scenario() -> None:
        gates, verdicts = Gates(), Verdicts()
        async with bench(gates.registry) as at:
            watch = Watch(at.executor, verdicts)
            for index in range(5):
                at.submit(*_lone(index))
                await gates.begin(*range(index + 1))
                await watch.look()
                gates.open(index)
                await at.finished(index + 1)
            assert verdicts.asked == []

    run_bounded(scenario)


def test_one_task_speaks_for_its_fan_out_until_there_is_something_to_say() -> None:
    async def scenario() -> None:
        gates, verdicts = Gates(), Verdicts()
        async with bench(gates.registry, concurrency=1) as at:
            watch = Watch(at.executor, verdicts)
            at.submit(*(_work(index) for index in range(500)), *(_work(index, run=2) for index in range(500, 600)))
            await watch.look()
            await watch.look()
            ((first, second),) = verdicts.asked
            assert first < 500 <= second, "a rerun is another matter"
            verdicts.say = dict.fromkeys([*range(400), first], "closed")
            await watch.look()
            assert verdicts.asked[-1] == list(range(500))
            refused = await at.finished(len(verdicts.say))
            assert {c.delivery.offset for c in refused} == verdicts.say.keys()

    run_bounded(scenario)


def test_a_fold_does_not_speak_for_the_tasks_that_its_quorum_left_over() -> None:
    async def scenario() -> None:
        registry, verdicts = Registry(), Verdicts({0: "closed"})
        begun = asyncio.Event()

        @registry.task("work")
        async def endless(arg: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with bench(registry, concurrency=1) as at:
            watch = Watch(at.executor, verdicts)
            at.submit(_work(0), some_work(a_fold("count"), partition=PARTITION, offset=1))
            await begun.wait()
            await watch.look()
            await watch.look()
            assert verdicts.asked == [[-1, 0], [0]]
            assert at.executor.in_hand()[0].task.is_fold

    run_bounded(scenario)


def test_what_nobody_needs_is_stopped_and_said_in_one_line_a_verdict() -> None:
    async def scenario() -> None:
        gates = Gates()
        verdicts = Verdicts({0: "closed", 1: "conflict", 3: "closed", 4: "stale", 5: "duplicate"})
        async with bench(gates.registry, concurrency=3) as at:
            watch = Watch(at.executor, verdicts)
            at.submit(*_lone(*range(6)))
            await gates.begin(0, 1, 2)
            await watch.look()
            with capture_logs() as logs:
                await watch.look()
            assert {(entry["event"], entry["why"], entry["tasks"]) for entry in logs} == {
                ("task.stopped", "closed", 2),
                ("task.stopped", "stale", 1),
                ("task.stopped", "duplicate", 1),
            }
            assert len(logs) == 3
            assert sorted(c.delivery.offset for c in await at.finished(4)) == [0, 3, 4, 5]
            gates.open(1, 2)
            await at.finished(6)
            assert sorted(value(c) for c in at.completions[4:]) == [1, 2], "a conflict is left to the commit"

    run_bounded(scenario)


def test_pages_are_as_large_as_a_check_may_be() -> None:
    async def scenario() -> None:
        gates, verdicts = Gates(), Verdicts()
        async with bench(gates.registry, concurrency=1) as at:
            watch = Watch(at.executor, verdicts)
            at.submit(*_lone(*range(2400)))
            await watch.look()
            await watch.look()
            assert [len(page) for page in verdicts.asked] == [CHECK_TASKS_MAX, CHECK_TASKS_MAX, 400]

    run_bounded(scenario)


def test_while_the_store_is_away_handlers_go_on_and_late_verdicts_meet_what_is_still_there() -> None:
    async def scenario() -> None:
        gates, verdicts = Gates(), Verdicts({0: "closed", 1: "closed"})
        async with bench(gates.registry, concurrency=2) as at:
            watch = Watch(at.executor, verdicts)
            at.submit(*_lone(0, 1))
            await gates.begin(0, 1)
            await watch.look()
            verdicts.there.clear()
            looking = asyncio.create_task(watch.look())
            gates.open(0)
            assert value((await at.finished(1))[0]) == 0
            verdicts.there.set()
            await looking
            assert (await at.finished(2))[1].result is None
            assert gates.cancelled == [1]

    run_bounded(scenario)


def test_it_looks_once_a_second() -> None:
    gates = Gates()

    async def scenario() -> None:
        verdicts = Verdicts()
        async with bench(gates.registry, bound_s=1e9) as at:
            at.submit(*_lone(0))
            watching = asyncio.create_task(Watch(at.executor, verdicts).work())
            await asyncio.sleep(10.5 * LOOK_EVERY_S)
            watching.cancel()
            assert len(verdicts.asked) == 9

    run_leaping(scenario)
