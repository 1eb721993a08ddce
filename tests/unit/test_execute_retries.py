"""Handlers that fail or take too long: what is tried again, when, and what it comes to in the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.work import Completion
from fanfold_schemas import Task
from fanfold_schemas.limits import RUN_MAX
from tests.unit.executor_bench import Bench, bench, failure, value
from tests.unit.fleet_records import a_task, some_work
from tests.unit.leaping_loop import run_leaping


def _run(handler: Callable[..., Any], task: Task | None = None, **settings: Any) -> Completion:
    """What one task comes to, on a real loop."""
    registry = Registry()
    registry.task("work", **settings)(handler)

    async def scenario() -> Completion:
        async with bench(registry) as at:
            return await at.run(some_work(task))

    return asyncio.run(scenario())


def _retried(handler: Callable[..., Any], task: Task | None = None, **settings: Any) -> tuple[Completion, Bench]:
    """As `_run`, for async handlers, with waits that take no time."""
    registry = Registry()
    registry.task("work", **settings)(handler)

    async def scenario() -> tuple[Completion, Bench]:
        async with bench(registry, bound_s=1e9) as at:
            return await at.run(some_work(task)), at

    return run_leaping(scenario)


class _Flaky:
    """A handler that fails so many times, and remembers when and as which attempt it was tried."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = lambda: LookupError("not yet")) -> None:
        self._failures = failures
        self._error = error
        self.attempts: list[int] = []
        self.at: list[float] = []

    @property
    def handler(self) -> Callable[..., Coroutine[Any, Any, str]]:
        async def work(arg: Any, context: TaskContext) -> str:
            self.attempts.append(context.attempt)
            self.at.append(asyncio.get_running_loop().time())
            if len(self.attempts) <= self._failures:
                raise self._error()
            return "done"

        return work


class TestRetries:
    def test_a_handler_is_tried_again_until_it_is_through(self) -> None:
        flaky = _Flaky(3)
        completion, at = _retried(flaky.handler, retries=3)
        assert value(completion) == "done"
        assert flaky.attempts == [1, 2, 3, 4]
        assert at.sample("fanfold_task_retries_total") == 3

    def test_a_handler_that_keeps_failing_fails_for_good(self) -> None:
        flaky = _Flaky(100)
        completion, _ = _retried(flaky.handler, retries=2)
        letter = failure(completion)
        assert flaky.attempts == [1, 2, 3]
        assert letter.code == "E_HANDLER"
        assert letter.error == "LookupError: not yet (attempt 3)"

    def test_without_retries_the_first_failure_is_the_last(self) -> None:
        flaky = _Flaky(1)
        assert failure(_retried(flaky.handler, retries=0)[0]).code == "E_HANDLER"
        assert flaky.attempts == [1]

    def test_attempts_are_counted_on_from_the_records_own_and_all_of_them_count(self) -> None:
        flaky = _Flaky(100)
        completion, _ = _retried(flaky.handler, a_task(attempt=2), retries=3)
        assert flaky.attempts == [2, 3, 4]
        assert failure(completion).error.endswith("(attempt 4)")

    def test_a_record_beyond_the_last_attempt_has_one_all_the_same(self) -> None:
        flaky = _Flaky(100)
        completion, _ = _retried(flaky.handler, a_task(attempt=RUN_MAX), retries=2**40)
        assert flaky.attempts == [RUN_MAX]
        assert failure(completion).error.endswith(f"(attempt {RUN_MAX})")

    def test_waits_grow_on_from_where_an_earlier_record_stopped(self) -> None:
        waits = []
        for _ in range(20):
            flaky = _Flaky(1)
            _retried(flaky.handler, a_task(attempt=9), retries=20, backoff=1, backoff_max=1000)
            waits.append(flaky.at[1] - flaky.at[0])
        assert max(waits) > 64, "the limit is 256 s, and not 1 s"

    def test_only_what_is_worth_a_retry_is_retried(self) -> None:
        flaky = _Flaky(100, lambda: KeyError("x"))
        assert failure(_retried(flaky.handler, retries=5, retry_on=OSError)[0]).code == "E_HANDLER"
        assert flaky.attempts == [1]
        flaky = _Flaky(100, lambda: ConnectionResetError("x"))
        _retried(flaky.handler, retries=5, retry_on=(KeyError, OSError))
        assert len(flaky.attempts) == 6

    def test_waits_are_random_below_a_limit_that_doubles_to_a_maximum(self) -> None:
        flaky = _Flaky(40)
        _retried(flaky.handler, retries=40, backoff=0.5, backoff_max=6)
        waits = [after - before for before, after in zip(flaky.at, flaky.at[1:], strict=False)]
        limits = [min(6, 0.5 * 2**n) for n in range(40)]
        assert all(0 <= wait <= limit + 1e-6 for wait, limit in zip(waits, limits, strict=True))
        assert len(set(waits)) > 30
        assert max(waits) > 3, "a limit of 6 s is used"

    def test_two_thousand_retries_are_only_a_matter_of_time(self) -> None:
        flaky = _Flaky(2000)
        assert value(_retried(flaky.handler, retries=2000)[0]) == "done"

    def test_a_sync_handler_is_tried_again_too(self) -> None:
        tries: list[int] = []

        def work(arg: Any) -> str:
            tries.append(1)
            if len(tries) < 3:
                raise LookupError("not yet")
            return "done"

        assert value(_run(work, retries=3, backoff=0)) == "done"

    @pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), BaseExceptionGroup("", [SystemExit()])])
    def test_what_would_end_the_member_or_its_worker_is_a_failure_like_any_other(self, error: BaseException) -> None:
        flaky = _Flaky(100, lambda: error)
        completion, at = _retried(flaky.handler, retries=1)
        letter = failure(completion)
        assert letter.code == "E_HANDLER"
        assert type(error).__name__ in letter.error
        assert flaky.attempts == [1, 2]
        assert not at.broke

    @pytest.mark.parametrize("error", [SystemExit(1), StopIteration(), KeyboardInterrupt()])
    def test_so_it_is_on_a_thread(self, error: BaseException) -> None:
        def work(arg: Any) -> None:
            raise error

        letter = failure(_run(work, retries=0))
        assert letter.code == "E_HANDLER"
        assert type(error).__name__ in letter.error

    def test_an_exception_group_is_told_by_its_own_name(self) -> None:
        flaky = _Flaky(1, lambda: ExceptionGroup("two pages failed", [LookupError("a"), LookupError("b")]))
        assert "ExceptionGroup: two pages failed" in failure(_retried(flaky.handler, retries=0)[0]).error

    def test_an_error_that_cannot_even_be_shown_is_a_failure_like_any_other(self) -> None:
        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise AttributeError("broken __str__")

        flaky = _Flaky(1, Unspeakable)
        assert failure(_retried(flaky.handler, retries=0)[0]).error.startswith("Unspeakable: ")

    def test_an_error_with_a_file_name_that_is_no_utf8_is_parked(self) -> None:
        flaky = _Flaky(1, lambda: ValueError("cannot parse caf\udce9.txt"))
        letter = failure(_retried(flaky.handler, retries=0)[0])
        assert letter.error == "ValueError: cannot parse caf\\udce9.txt (attempt 1)"


class TestTimeouts:
    def test_an_async_handler_that_takes_too_long_is_cancelled_and_tried_again(self) -> None:
        ended: list[str] = []

        async def work(arg: Any) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        completion, _ = _retried(work, timeout=2.5, retries=1)
        letter = failure(completion)
        assert letter.code == "E_TIMEOUT"
        assert letter.error == "no result within 2.5 s (attempt 2)"
        assert ended == ["cancelled"] * 2

    def test_a_sync_handler_that_takes_too_long_is_given_up(self) -> None:
        let = threading.Event()
        try:
            letter = failure(_run(lambda arg: let.wait(20), timeout=0.05, retries=0))
        finally:
            let.set()
        assert letter.code == "E_TIMEOUT"

    def test_in_time_is_in_time(self) -> None:
        async def work(arg: Any) -> str:
            await asyncio.sleep(2)
            return "done"

        assert value(_retried(work, timeout=2.5)[0]) == "done"

    @pytest.mark.parametrize("timeout", [None, 100])
    def test_a_timeout_of_the_handlers_own_is_its_own_error(self, timeout: float | None) -> None:
        flaky = _Flaky(100, TimeoutError)
        letter = failure(_retried(flaky.handler, timeout=timeout, retries=0)[0])
        assert letter.code == "E_HANDLER"
        assert letter.error == "TimeoutError:  (attempt 1)"

    def test_a_timeout_is_not_worth_a_retry_where_only_other_errors_are(self) -> None:
        async def work(arg: Any) -> None:
            await asyncio.sleep(100)

        completion, at = _retried(work, timeout=1, retries=5, retry_on=KeyError)
        assert failure(completion).code == "E_TIMEOUT"
        assert at.sample("fanfold_task_retries_total") == 0
