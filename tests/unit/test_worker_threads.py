"""Threads for `def` handlers. What runs on them waits for events of the test, so nothing depends on how fast it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fanfold_consumer.time_limit import OutOfTime
from fanfold_consumer.worker_threads import WorkerThreads
from tests.support.wait import eventually, eventually_async

_BOUND_S = 10.0
_SHORT_S = 0.05


class Gate:
    """A blocking function that says when it begins and goes on when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let = threading.Event()
        self.ended = threading.Event()
        self.thread: int | None = None

    def __call__(self) -> str:
        self.thread = threading.get_ident()
        self.begun.set()
        assert self.let.wait(_BOUND_S)
        self.ended.set()
        return "done"


@pytest.fixture
def gates() -> Iterator[Callable[[], Gate]]:
    """Makes gates; all are opened in the end, so that no thread of one test lives on in the next."""
    before = set(_handler_threads())
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    yield make
    for gate in made:
        gate.let.set()
    eventually(lambda: not set(_handler_threads()) - before, _BOUND_S, what="the threads of this test end")


def _handler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fanfold-handler"]


async def _begun(*gates: Gate) -> None:
    async def all_begun() -> bool:
        return all(gate.begun.is_set() for gate in gates)

    await eventually_async(all_begun)


async def _ended(call: asyncio.Task[Any]) -> Any:
    return await asyncio.wait_for(call, _BOUND_S)


def test_a_functions_value_comes_back() -> None:
    async def scenario() -> None:
        threads = WorkerThreads(1)
        assert await threads.run(lambda: threading.current_thread().name) == "fanfold-handler"
        threads.close()

    asyncio.run(scenario())


def test_functions_run_in_parallel_up_to_the_size_and_not_beyond(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(3)
        mine = [gates() for _ in range(5)]
        calls = [asyncio.create_task(threads.run(gate)) for gate in mine]
        await _begun(*mine[:3])
        assert not any(gate.begun.is_set() for gate in mine[3:])
        mine[1].let.set()
        await _begun(mine[3])
        assert not mine[4].begun.is_set()
        for gate in mine:
            gate.let.set()
        assert await asyncio.wait_for(asyncio.gather(*calls), _BOUND_S) == ["done"] * 5
        assert len({gate.thread for gate in mine}) == 3
        threads.close()

    asyncio.run(scenario())


def test_a_thread_that_is_idle_is_taken_before_another_is_started() -> None:
    async def scenario() -> None:
        threads = WorkerThreads(4)
        ran = {await threads.run(threading.get_ident) for _ in range(20)}
        assert len(ran) == 1
        threads.close()

    asyncio.run(scenario())


def test_a_hung_thread_is_given_up_and_replaced(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(1)
        for hung in (gates(), gates(), gates()):
            with pytest.raises(OutOfTime, match=r"no result within 0\.05 s"):
                await threads.run(hung, _SHORT_S)
            assert not hung.ended.is_set()
        assert await asyncio.wait_for(threads.run(lambda: "on another"), _BOUND_S) == "on another"
        threads.close()

    asyncio.run(scenario())


def test_a_function_queued_behind_a_hung_one_runs_once_that_is_given_up(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(1)
        hung = gates()
        first = asyncio.create_task(threads.run(hung))
        await _begun(hung)
        queued = asyncio.create_task(threads.run(lambda: "ran"))
        await asyncio.sleep(0)
        first.cancel()
        assert await _ended(queued) == "ran"
        assert not hung.ended.is_set()
        threads.close()

    asyncio.run(scenario())


def test_the_thread_of_a_given_up_function_ends_with_it(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(1)
        hung = gates()
        with pytest.raises(OutOfTime):
            await threads.run(hung, _SHORT_S)
        hung.let.set()
        eventually(lambda: all(thread.ident != hung.thread for thread in _handler_threads()), _BOUND_S)
        threads.close()

    asyncio.run(scenario())


def test_waiting_for_a_free_thread_is_not_the_functions_time(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(1)
        before = gates()
        first = asyncio.create_task(threads.run(before))
        await _begun(before)
        queued = asyncio.create_task(threads.run(lambda: "in time", _SHORT_S))
        done, _ = await asyncio.wait({queued}, timeout=3 * _SHORT_S)
        assert not done, "it waits longer than it may run"
        before.let.set()
        assert await _ended(queued) == "in time"
        await first
        threads.close()

    asyncio.run(scenario())


def test_an_exception_comes_back_as_it_was_raised() -> None:
    error = LookupError("mine")

    def work() -> None:
        raise error

    async def scenario() -> None:
        threads = WorkerThreads(1)
        with pytest.raises(LookupError) as caught:
            await threads.run(work)
        assert caught.value is error
        assert await threads.run(lambda: "goes on") == "goes on"
        threads.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), StopIteration(7), asyncio.CancelledError(), GeneratorExit()]
)
def test_what_would_stop_an_event_loop_comes_back_as_an_ordinary_failure(error: BaseException) -> None:
    def work() -> None:
        raise error

    async def scenario() -> None:
        threads = WorkerThreads(1)
        with pytest.raises(RuntimeError, match=type(error).__name__):
            await asyncio.wait_for(threads.run(work), _BOUND_S)
        assert await threads.run(lambda: "goes on") == "goes on"
        threads.close()

    asyncio.run(scenario())


def test_a_function_whose_caller_left_before_it_began_never_runs(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(1)
        before, never = gates(), gates()
        first = asyncio.create_task(threads.run(before))
        await _begun(before)
        left = asyncio.create_task(threads.run(never))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        before.let.set()
        assert await _ended(first) == "done"
        assert await asyncio.wait_for(threads.run(lambda: "next"), _BOUND_S) == "next"
        assert not never.begun.is_set()
        threads.close()

    asyncio.run(scenario())


def test_callers_that_come_and_leave_at_once_cost_no_threads() -> None:
    before = len(_handler_threads())

    async def scenario() -> None:
        threads = WorkerThreads(2)
        for _ in range(200):
            call = asyncio.create_task(threads.run(lambda: None))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        calls = [threads.run(lambda: "ran") for _ in range(10)]
        assert await asyncio.wait_for(asyncio.gather(*calls), _BOUND_S) == ["ran"] * 10
        assert len(_handler_threads()) <= before + 2
        threads.close()

    asyncio.run(scenario())


def test_close_lets_idle_threads_end_and_busy_ones_finish_what_they_do(gates: Callable[[], Gate]) -> None:
    async def scenario() -> None:
        threads = WorkerThreads(2)
        idle, busy = gates(), gates()
        calls = [asyncio.create_task(threads.run(gate)) for gate in (idle, busy)]
        await _begun(idle, busy)
        idle.let.set()
        await _ended(calls[0])
        threads.close()
        eventually(lambda: all(thread.ident != idle.thread for thread in _handler_threads()), _BOUND_S)
        assert any(thread.ident == busy.thread for thread in _handler_threads())
        busy.let.set()
        assert await _ended(calls[1]) == "done"
        eventually(lambda: all(thread.ident != busy.thread for thread in _handler_threads()), _BOUND_S)

    asyncio.run(scenario())


def test_threads_do_not_keep_the_process() -> None:
    async def scenario() -> bool:
        threads = WorkerThreads(1)
        daemon: bool = await threads.run(lambda: threading.current_thread().daemon)
        threads.close()
        return daemon

    assert asyncio.run(scenario())


def test_a_thread_that_outlives_its_loop_ends_quietly(
    gates: Callable[[], Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    broke: list[object] = []
    monkeypatch.setattr(threading, "excepthook", broke.append)
    gate = gates()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # it says that a task was left behind: that is the point
    threads = WorkerThreads(1)
    call = loop.create_task(threads.run(gate))
    loop.run_until_complete(_begun(gate))
    loop.close()
    gate.let.set()
    eventually(lambda: all(thread.ident != gate.thread for thread in _handler_threads()), _BOUND_S)
    assert not call.done()
    assert not broke
