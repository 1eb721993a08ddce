"""Attempts that are far off: the delivery ends, and the outbox has the task as a later attempt."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ormsgpack
import pytest

from fanfold_consumer import Registry, RetryAfter, TaskContext
from fanfold_consumer.assignment import Phase
from fanfold_consumer.registry import Retry
from fanfold_consumer.retry import DELAY_MS_MAX, RETRY_AFTER_S_MAX, next_attempt_record, wait_before_next_s
from fanfold_consumer.work import Completion, Work
from fanfold_schemas import (
    SchemaError,
    Task,
    arg_hash,
    decode_task,
    encode_payload,
    encode_task,
    unpack_headers,
    with_attempt,
)
from fanfold_schemas.limits import RECORD_BYTES_MAX, RUN_MAX
from fanfold_sql import OutboxRecord
from tests.unit.executor_bench import Bench, Results, a_result, bench, failure, value
from tests.unit.fleet_records import TOPIC, a_delivery, a_fold, a_partition, a_task, some_work
from tests.unit.handler_gates import run_bounded
from tests.unit.leaping_loop import run_leaping


def _run(handler: Callable[..., Any], work: Work | None = None, **settings: Any) -> tuple[Completion, Bench, float]:
    """What one delivery comes to, and after how many seconds."""
    registry = Registry()
    registry.task("work", **settings)(handler)

    async def scenario() -> tuple[Completion, Bench, float]:
        began = asyncio.get_running_loop().time()
        async with bench(registry, bound_s=1e9, retry_in_place_s=5) as at:
            completion = await at.run(some_work() if work is None else work)
            return completion, at, asyncio.get_running_loop().time() - began

    return run_leaping(scenario)


def _later(completion: Completion) -> OutboxRecord:
    """The record of the next attempt, of a delivery that ended for it."""
    assert (completion.result, completion.dead_letter, completion.dropped) == (None, None, False)
    (record,) = completion.outbox
    assert record.result is None, "written whatever else is in the commit"
    return record


def _again(seconds: float, why: str = "") -> Callable[..., Any]:
    async def work(arg: Any) -> None:
        raise RetryAfter(seconds, why)

    return work


async def _fails(arg: Any) -> None:
    raise LookupError("not yet")


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait is the longest that the policy allows."""
    monkeypatch.setattr("random.random", lambda: 1.0)


@pytest.mark.usefixtures("long_waits")
class TestLongWaits:
    def test_a_long_wait_ends_the_delivery_and_the_task_is_due_as_its_next_attempt(self) -> None:
        completion, at, took_s = _run(_fails, retries=3, backoff=60, backoff_max=60)
        record = _later(completion)
        task = a_task()
        assert decode_task(record.value) == a_task(attempt=2)
        assert (record.topic, record.key, record.delay_ms) == (TOPIC, b"key", 60_000)
        assert took_s == 0, "it holds no worker"
        assert at.sample("fanfold_task_retries_total") == 1
        assert decode_task(record.value).run == task.run

    def test_short_waits_stay_and_the_first_long_one_goes(self) -> None:
        completion, _, took_s = _run(_fails, retries=10, backoff=1, backoff_max=60)
        assert decode_task(_later(completion).value).attempt == 5
        assert _later(completion).delay_ms == 8000
        assert took_s == pytest.approx(1 + 2 + 4)

    def test_the_limit_itself_is_short(self) -> None:
        completion, _, took_s = _run(_fails, retries=1, backoff=5, backoff_max=5)
        assert failure(completion).error == "LookupError: not yet (attempt 2)"
        assert took_s == pytest.approx(5)

    def test_the_last_attempt_is_the_last_wherever_the_others_were(self) -> None:
        completion, _, _ = _run(_fails, some_work(a_task(attempt=4)), retries=3, backoff=60, backoff_max=60)
        assert failure(completion).error == "LookupError: not yet (attempt 4)"
        assert not completion.outbox

    def test_what_we_do_not_know_in_the_record_stays_in_it(self) -> None:
        task = a_task(arg={"n": 1}, run=3, base={"main": 2})
        fields = ormsgpack.unpackb(encode_task(task))
        fields["later"] = {"than": [1, None]}
        fields["fan_out"]["colour"] = "red"
        headers = [("fanfold-node", b"work"), ("x", None), ("x", b"\xff"), ("traceparent", b"00-1")]
        work = Work(a_delivery(ormsgpack.packb(fields), headers=headers, key=None), task, arg_hash(task))
        record = _later(_run(_fails, work, backoff=60, backoff_max=60)[0])
        assert record.key is None
        assert unpack_headers(record.headers) == headers
        assert record.value is not None
        assert ormsgpack.unpackb(record.value) == {**fields, "attempt": 2}

    def test_a_fold_that_fails_waits_in_the_same_way(self) -> None:
        registry = Registry()

        @registry.fold("merge", backoff=60, backoff_max=60)
        async def merge(values: list[int]) -> None:
            raise LookupError

        async def scenario() -> Completion:
            async with bench(registry, results=Results([a_result(0, encode_payload(1))]), retry_in_place_s=5) as at:
                return await at.run(some_work(a_fold("merge", size=1, run=2)))

        record = _later(run_leaping(scenario))
        assert decode_task(record.value) == a_fold("merge", size=1, run=2, attempt=2)

    def test_a_commit_counts_its_bytes(self) -> None:
        completion, _, _ = _run(_fails, some_work(a_task(arg="x" * 10_000)), backoff=60, backoff_max=60)
        assert completion.payload_bytes > 10_000

    def test_without_room_in_its_record_a_task_waits_where_it_is(self) -> None:
        task = a_task()
        fields = ormsgpack.unpackb(encode_task(task))
        del fields["attempt"]
        fields["arg"] = [b"x" * 200_000] * 5 + [b""]
        fields["arg"][-1] = b"x" * (RECORD_BYTES_MAX - len(ormsgpack.packb(fields)) - 4)
        full = ormsgpack.packb(fields)
        assert RECORD_BYTES_MAX - 5 < len(full) <= RECORD_BYTES_MAX
        work = Work(a_delivery(full), decode_task(full), 0)
        completion, _, took_s = _run(_fails, work, retries=1, backoff=60, backoff_max=60)
        assert failure(completion).error == "LookupError: not yet (attempt 2)"
        assert took_s == pytest.approx(60)

    def test_a_delay_is_never_beyond_what_the_outbox_counts(self) -> None:
        assert wait_before_next_s(Retry(5, 1e9, 1e9), 1, LookupError()) == DELAY_MS_MAX / 1000
        record = next_attempt_record(some_work().delivery, 2, DELAY_MS_MAX / 1000)
        assert record is not None
        assert record.delay_ms == DELAY_MS_MAX


class TestHandingOver:
    def test_a_partition_that_leaves_does_not_wait_for_a_retry_not_even_a_short_one(self) -> None:
        leaving = a_partition()

        async def fails(arg: Any) -> None:
            leaving.phase = Phase.LEAVING
            raise LookupError

        work = some_work(partition=leaving)
        completion, _, took_s = _run(fails, work, backoff=1, backoff_max=1)
        record = _later(completion)
        assert decode_task(record.value).attempt == 2
        assert record.delay_ms <= 1000
        assert took_s == 0

    def test_what_waits_when_its_partition_leaves_is_attempted_by_another(self) -> None:
        leaving = a_partition()
        attempts: list[int] = []

        async def fails(arg: Any, context: TaskContext) -> None:
            attempts.append(context.attempt)
            asyncio.get_running_loop().call_later(1e-6, setattr, leaving, "phase", Phase.LEAVING)
            raise LookupError

        completion, _, _ = _run(fails, some_work(partition=leaving), backoff=4, backoff_max=4)
        assert decode_task(_later(completion).value).attempt == 2
        assert _later(completion).delay_ms == 0, "it has waited already"
        assert attempts == [1]


class TestRetryAfter:
    def test_a_short_time_is_waited_in_place_and_never_less(self) -> None:
        at: list[float] = []

        async def limited(arg: Any) -> str:
            at.append(asyncio.get_running_loop().time())
            if len(at) < 3:
                raise RetryAfter(2)
            return "done"

        completion, _, _ = _run(limited, retries=2)
        assert value(completion) == "done"
        waits = [after - before for before, after in pairwise(at)]
        assert all(2 <= wait <= 2.2 for wait in waits)

    @pytest.mark.parametrize("seconds", [30, 3600.5, RETRY_AFTER_S_MAX])
    def test_a_long_time_is_waited_in_the_outbox_and_never_less(self, seconds: float) -> None:
        delays = set()
        for _ in range(20):
            completion, _, took_s = _run(_again(seconds), retries=1)
            assert took_s == 0
            delays.add(_later(completion).delay_ms)
        assert all(seconds * 1000 <= delay <= math.ceil(seconds * 1100) for delay in delays)
        assert len(delays) > 10, "a thousand tasks must not come back at once"

    def test_it_counts_as_an_attempt(self) -> None:
        completion, _, _ = _run(_again(60, "quota"), some_work(a_task(attempt=3)), retries=2)
        assert failure(completion).code == "E_HANDLER"
        assert failure(completion).error == "RetryAfter: again after 60 s: quota (attempt 3)"

    def test_it_is_retried_whatever_else_is_worth_a_retry(self) -> None:
        assert decode_task(_later(_run(_again(60), retry_on=KeyError)[0]).value).attempt == 2

    def test_a_handler_on_a_thread_may_say_it_too(self) -> None:
        def limited(arg: Any) -> None:
            raise RetryAfter(60)

        registry = Registry()
        registry.task("work")(limited)

        async def scenario() -> None:
            async with bench(registry, retry_in_place_s=5) as at:
                assert _later(await at.run(some_work())).delay_ms >= 60_000

        run_bounded(scenario)

    @pytest.mark.parametrize(
        "seconds", [-1, -0.001, float("nan"), float("inf"), RETRY_AFTER_S_MAX + 1, 10**400, "5", None, [1]]
    )
    def test_what_is_no_time_to_wait_is_refused_where_it_is_said(self, seconds: Any) -> None:
        with pytest.raises(ValueError, match=r"^RetryAfter\(.*\): give seconds, from 0 to 1900800 \(22 days\)$"):
            RetryAfter(seconds)

    def test_it_survives_the_way_from_another_process(self) -> None:
        error = pickle.loads(pickle.dumps(RetryAfter(7, "quota")))
        assert (error.seconds, error.why, str(error)) == (7, "quota", "again after 7 s: quota")


def test_a_record_keeps_to_its_limits_as_a_later_attempt() -> None:
    def attempt_of(task: Task, attempt: int) -> Task:
        return decode_task(with_attempt(encode_task(task), attempt))

    assert attempt_of(a_task(run=5, attempt=3), 4) == a_task(run=5, attempt=4)
    assert attempt_of(a_task(), RUN_MAX).attempt == RUN_MAX
    with pytest.raises(SchemaError):
        attempt_of(a_task(), RUN_MAX + 1)
