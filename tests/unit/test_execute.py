"""What a handler's run comes to: a result, further Sends, or a failure with a code that says why."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fanfold_consumer import Registry, Send, Sends, TaskContext
from fanfold_consumer.work import Completion
from fanfold_schemas import (
    Task,
    VectorClock,
    decode_task,
    derive_child_fan_out_id,
    derive_task_id,
    unpack_headers,
)
from tests.unit.executor_bench import bench, failure, value
from tests.unit.fleet_records import TOPIC, a_fold, a_task, some_work


@dataclass
class Page:
    url: str


def _run(handler: Callable[..., Any], task: Task | None = None, **settings: Any) -> Completion:
    """What one task comes to, on a real loop."""
    registry = Registry()
    registry.task("work", **settings)(handler)

    async def scenario() -> Completion:
        async with bench(registry) as at:
            return await at.run(some_work(task))

    return asyncio.run(scenario())


class TestResults:
    def test_an_async_handlers_value_is_its_result(self) -> None:
        async def work(arg: Any) -> Any:
            return {"got": arg}

        completion = _run(work, a_task(arg=[1, "a"]))
        assert value(completion) == {"got": [1, "a"]}
        assert completion.outbox == ()

    def test_a_sync_handlers_value_is_its_result(self) -> None:
        def work(arg: Any) -> Any:
            return {"got": arg}

        assert value(_run(work, a_task(arg=5))) == {"got": 5}

    def test_a_result_belongs_to_its_task_and_says_where_a_fold_goes(self) -> None:
        work = some_work(a_task(arg=5, index=3))
        registry = Registry()
        registry.task("work")(lambda arg: arg)

        async def scenario() -> Completion:
            async with bench(registry) as at:
                return await at.run(work)

        completion = asyncio.run(scenario())
        assert completion.delivery is work.delivery
        assert completion.result is not None
        assert completion.result.task == work.task
        assert completion.result.arg_hash == work.arg_hash
        assert completion.result.topic == TOPIC

    def test_async_handlers_run_on_the_loop_and_sync_ones_on_threads_of_their_own(self) -> None:
        async def on_the_loop(arg: Any) -> bool:
            return threading.current_thread() is threading.main_thread()

        def elsewhere(arg: Any) -> bool:
            return threading.current_thread() is threading.main_thread()

        assert value(_run(on_the_loop)) is True
        assert value(_run(elsewhere)) is False

    def test_a_handler_gets_the_arg_it_declares(self) -> None:
        def work(arg: Page) -> str:
            assert isinstance(arg, Page)
            return arg.url

        assert value(_run(work, a_task(arg={"url": "a"}))) == "a"

    def test_a_second_parameter_gets_the_context(self) -> None:
        seen: list[TaskContext] = []

        def work(arg: Any, context: TaskContext) -> None:
            seen.append(context)

        task = a_task(index=2, run=3, attempt=5, base={"main": 4})
        _run(work, task)
        assert seen == [TaskContext(task.task_id, "t1", "f1", 2, "work", 3, 5, VectorClock({"main": 4}), ())]

    @pytest.mark.parametrize(("returned", "stored"), [(None, None), (Page("a"), {"url": "a"}), ((1, 2), [1, 2])])
    def test_what_msgpack_can_hold_is_a_result(self, returned: Any, stored: Any) -> None:
        assert value(_run(lambda arg: returned)) == stored

    @pytest.mark.parametrize(
        "returned", [object(), {1, 2}, float("nan"), 2**70, {"a": ["x\0"]}, {1: 2}, lambda: None, b"x" * 300_000]
    )
    def test_what_cannot_be_stored_fails_at_once_and_says_so(self, returned: Any) -> None:
        calls: list[Any] = []

        def work(arg: Any) -> Any:
            calls.append(arg)
            return returned

        letter = failure(_run(work))
        assert letter.code == "E_RESULT"
        assert letter.error.startswith("the handler's result cannot be stored: ")
        assert len(calls) == 1, "it would return the same again"


class TestSends:
    def test_sends_go_out_through_the_outbox_with_the_result(self) -> None:
        def work(arg: Any) -> Sends:
            return Sends([Send("leaf", {"n": 1}), ("leaf", {"n": 2})], fold="merge", value="branched")

        task = a_task(base={"main": 4}, run=2)
        completion = _run(work, task)
        assert value(completion) == "branched"
        children = [decode_task(record.value) for record in completion.outbox]
        fan_out_id = derive_child_fan_out_id(task.task_id, 2)
        assert [child.arg for child in children] == [{"n": 1}, {"n": 2}]
        assert [child.task_id for child in children] == [derive_task_id(fan_out_id, n) for n in range(2)]
        assert {child.fan_out.id for child in children} == {fan_out_id}
        assert {child.fan_out.fold for child in children} == {"merge"}
        assert all((child.thread_id, child.base) == ("t1", {"main": 4}) for child in children)
        assert all(record.topic == TOPIC for record in completion.outbox)
        assert ("fanfold-node", b"leaf") in unpack_headers(completion.outbox[0].headers)

    def test_sends_may_be_derived_from_a_clock_of_their_own(self) -> None:
        completion = _run(lambda arg: Sends([("leaf", 1)], base=VectorClock({"side": 9})), a_task(base={"main": 4}))
        assert decode_task(completion.outbox[0].value).base == {"side": 9}

    def test_sends_may_come_from_a_generator(self) -> None:
        completion = _run(lambda arg: Sends((("leaf", n) for n in range(3)), fold="count"))  # type: ignore[arg-type]
        assert len(completion.outbox) == 3

    def test_no_sends_and_no_fold_are_just_a_value(self) -> None:
        completion = _run(lambda arg: Sends([], value=7))
        assert value(completion) == 7
        assert completion.outbox == ()

    def test_the_same_run_sends_the_same_records_and_a_later_one_others(self) -> None:
        def work(arg: Any) -> Sends:
            return Sends([("leaf", 1)], fold="count")

        def ids(**fields: Any) -> set[bytes | None]:
            return {record.key for record in _run(work, a_task(**fields)).outbox}

        assert ids() == ids(attempt=4)
        assert not ids() & ids(run=2)

    @pytest.mark.parametrize(
        "sends",
        [
            Sends([], fold="merge"),
            Sends([("no id!", 1)]),
            Sends([5]),
            Sends([("leaf", object())]),
            Sends([("leaf", 1)], fold="no id!"),
            Sends([("leaf", 1)], value=object()),
            Sends([("leaf", 1)], base=["main"]),  # type: ignore[arg-type]
            Sends([("leaf", 1)], base=5),  # type: ignore[arg-type]
            Sends(5),  # type: ignore[arg-type]
            Sends({"leaf": 1}),  # type: ignore[arg-type]
        ],
    )
    def test_sends_that_cannot_be_published_fail_the_task_and_publish_nothing(self, sends: Sends) -> None:
        completion = _run(lambda arg: sends)
        assert failure(completion).code == "E_RESULT"
        assert completion.outbox == ()

    def test_a_generator_of_sends_that_breaks_fails_the_task(self) -> None:
        def broken() -> Iterator[Any]:
            yield ("leaf", 1)
            raise LookupError("page 2 is gone")

        letter = failure(_run(lambda arg: Sends(broken(), fold="count")))  # type: ignore[arg-type]
        assert letter.code == "E_RESULT"
        assert "LookupError: page 2 is gone" in letter.error


class TestNodes:
    def test_a_task_without_a_handler_fails_and_is_told_which_there_are(self) -> None:
        letter = failure(_run(lambda arg: arg, a_task("wrok")))
        assert letter.code == "E_NODE"
        assert letter.error == "no handler named 'wrok'; this member has work"

    @pytest.mark.parametrize("node", ["count", "first:3"])
    def test_a_built_in_fold_is_no_handler_of_a_task(self, node: str) -> None:
        assert failure(_run(lambda arg: arg, a_task(node))).code == "E_NODE"

    def test_a_task_cannot_be_run_by_a_fold_nor_a_fold_by_a_tasks_handler(self) -> None:
        registry = Registry()
        registry.task("work")(lambda arg: arg)
        registry.fold("merge")(lambda results, context: results)

        async def scenario() -> list[Completion]:
            async with bench(registry) as at:
                at.submit(some_work(a_task("merge")), some_work(a_fold("work")))
                return await at.finished(2)

        for completion in asyncio.run(scenario()):
            letter = failure(completion)
            assert letter.code == "E_NODE"
            assert "is declared with @" in letter.error

    def test_an_arg_of_the_wrong_type_never_reaches_its_handler(self) -> None:
        calls: list[Any] = []

        def work(arg: Page) -> None:
            calls.append(arg)

        letter = failure(_run(work, a_task(arg={"url": 5}), retries=5))
        assert letter.code == "E_ARG"
        assert "$.url" in letter.error
        assert not calls
