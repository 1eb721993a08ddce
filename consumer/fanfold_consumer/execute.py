"""Running handlers: a fixed number at once, retried in place, and every way to end becomes a completion."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.context import Sends, TaskContext
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.events import log
from fanfold_consumer.folds import built_in
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.registry import ArgumentError, Handler, Registry, Retry
from fanfold_consumer.time_limit import OutOfTime, within
from fanfold_consumer.work import Completion, Work
from fanfold_consumer.worker_threads import WorkerThreads
from fanfold_producer.errors import ClaimCheckBroken, ClaimStoreNeeded
from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from fanfold_schemas import (
    ClaimCheck,
    SchemaError,
    Task,
    VectorClock,
    decode_payload,
    derive_child_fan_out_id,
    pack_headers,
    payload_check,
)
from fanfold_sql import Finished, OutboxRecord, Store, StoredResult

FOLD_PAGE = 2000
DOUBLINGS_MAX = 60
"""Of a backoff; it reached its limit long before, and beyond a thousand the number itself would overflow."""
_ONCE = Retry(retries=0)
BREATH = 100
"""Tasks a worker runs before others on the loop get their turn, when their handlers never wait for anything."""


class HandlerFailed(Exception):
    """A task that failed for good. `code` is that of its dead letter."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class LetGo(Exception):
    """The claim was lost or the member closes: whatever came of the task, it is done again elsewhere."""


class FoldSuperseded(Exception):
    """The fan-out was reopened while its fold was read: another fold of a later run follows."""


class Executor:
    """Runs at most `concurrency` handlers at once.

    Args:
        finish: given the completion of each task, on the event loop.
        failed: told when a worker broke off over something that is no handler's failure. Its task would never be
            finished, so the member cannot go on.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        parking: Parking,
        patience: Patience,
        metrics: Metrics,
        claim_checks: ClaimChecks,
        *,
        concurrency: int,
        sync_workers: int,
        finish: Callable[[Completion], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._registry = registry
        self._store = store
        self._parking = parking
        self._patience = patience
        self._metrics = metrics
        self._claim_checks = claim_checks
        self._concurrency = concurrency
        self._finish = finish
        self._failed = failed
        self._threads = WorkerThreads(sync_workers)
        self._queue: deque[Work] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._running: dict[asyncio.Task[None], Work] = {}
        # Cancelled because their partition was lost: they go on with other tasks.
        self._abandoned: set[asyncio.Task[None]] = set()
        self._closing = False

    def submit(self, work: Work) -> None:
        """Queue a task. Order is that of arrival; there is no other promise."""
        self._queue.append(work)
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self._concurrency:
            worker = asyncio.get_running_loop().create_task(self._work())
            worker.add_done_callback(self._on_ended)
            self._workers.append(worker)

    def drop_queued(self) -> None:
        """Let go of tasks that have not begun and must not any more."""
        keep = deque(work for work in self._queue if work.delivery.partition.may_begin)
        dropped = [work for work in self._queue if not work.delivery.partition.may_begin]
        self._queue = keep
        for work in dropped:
            self._finish(Completion(work.delivery, dropped=True))

    def abandon_lost(self) -> None:
        """Cancel handlers whose results nobody can commit any more: they would only cost."""
        for worker, work in self._running.items():
            if work.delivery.partition.lost and worker not in self._abandoned:
                self._abandoned.add(worker)
                worker.cancel()

    async def close(self) -> None:
        """Stop every worker; what still runs is cancelled and will be done again elsewhere."""
        self._closing = True
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._threads.close()

    def _on_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._failed(error)

    async def _work(self) -> None:
        this = asyncio.current_task()
        assert this is not None
        breath = BREATH
        while not self._closing:
            if not self._queue:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter
                continue
            work = self._queue.popleft()
            if not work.delivery.partition.may_begin:
                self._finish(Completion(work.delivery, dropped=True))
                continue
            self._running[this] = work
            try:
                completion = await self._complete(work)
            except asyncio.CancelledError:
                if this not in self._abandoned:
                    raise
                completion = Completion(work.delivery, dropped=True)
            finally:
                del self._running[this]
                if this in self._abandoned:
                    # Here, because a handler may have kept the cancellation to itself: the next one has no part in it.
                    self._abandoned.discard(this)
                    this.uncancel()
            self._finish(completion)
            breath -= 1
            if breath == 0:
                breath = BREATH
                await asyncio.sleep(0)

    async def _complete(self, work: Work) -> Completion:
        task = work.task
        try:
            value = await self._run(work)
        except LetGo:
            return Completion(work.delivery, dropped=True)
        except FoldSuperseded:
            return Completion(work.delivery)
        except HandlerFailed as failure:
            return self._fail(work, failure.code, str(failure))
        try:
            outbox: tuple[OutboxRecord, ...] = ()
            if isinstance(value, Sends):
                if value.sends or value.fold is not None:  # nobody waits for a fan-out of none without a fold
                    outbox = await self._publish_sends(task, work.delivery.partition.topic, value)
                value = value.value
            payload = await self._claim_checks.payload(task, value)
        except Exception as error:
            # Of any kind: iterating over what the handler returned runs its code. It would return the same again.
            text = str(error) if isinstance(error, SchemaError) else _text(error)
            return self._fail(work, "E_RESULT", f"the handler's result cannot be stored: {text}")
        result = Finished(task, payload, work.arg_hash, work.delivery.partition.topic)
        return Completion(work.delivery, result, None, outbox)

    def _fail(self, work: Work, code: str, text: str) -> Completion:
        task = work.task
        log.warning(
            "task.failed",
            task_id=task.task_id,
            node=task.node,
            fan_out_id=task.fan_out.id,
            code=code,
            run=task.run,
        )
        return self._parking.park(work.delivery, code, text, task=task, arg_hash=work.arg_hash)

    async def _run(self, work: Work) -> Any:
        """The handler's value, after as many attempts as its policy allows."""
        task = work.task
        handler = self._registry.get(task.node)
        if handler is not None and handler.is_fold != task.is_fold:
            kind = "fold" if handler.is_fold else "task"
            raise HandlerFailed("E_NODE", f"{task.node!r} is declared with @{kind}, but this is another kind of record")
        if handler is None:
            function = built_in(task.node) if task.is_fold else None
            if function is None:
                raise HandlerFailed(
                    "E_NODE",
                    f"no handler named {task.node!r}; this member has {', '.join(self._registry.names()) or 'none'}",
                )
            handler = Handler(task.node, function, True, False, False, None, None, _ONCE)
        values: list[Any] = [task.arg if task.arg_check is None else task.arg_check]
        failed: tuple[int, ...] = ()
        if task.is_fold:
            values, failed = await self._fold_input(task)
        if not any(isinstance(value, ClaimCheck) for value in values):
            return await self._attempts(handler, work, values, failed)
        try:
            async with self._claim_checks.fetched(task.fan_out.id, values):
                return await self._attempts(handler, work, values, failed)
        except (ClaimCheckBroken, ClaimStoreNeeded) as error:
            raise HandlerFailed("E_CLAIM", str(error)) from error

    async def _attempts(self, handler: Handler, work: Work, values: list[Any], failed: tuple[int, ...]) -> Any:
        task, policy = work.task, handler.retry
        argument: Any = values if task.is_fold else values[0]
        if handler.convert is not None:
            try:
                argument = handler.convert(argument)
            except ArgumentError as error:
                raise HandlerFailed("E_ARG", f"the arg of {task.node!r} is not what it declares: {error}") from None
        attempt = task.attempt
        while True:
            arguments: tuple[Any, ...] = (argument,)
            if handler.takes_context:
                arguments = (argument, _context(task, attempt, failed))
            with self._metrics.running():
                try:
                    return await self._call(handler, arguments)
                except Exception as error:
                    failure = error
            if work.delivery.partition.lost or self._closing:
                raise LetGo
            tried = attempt - task.attempt
            if tried >= policy.retries or not isinstance(failure, policy.on):
                code = "E_TIMEOUT" if isinstance(failure, OutOfTime) else "E_HANDLER"
                raise HandlerFailed(code, f"{_text(failure)} (attempt {attempt})") from failure
            wait_s = min(policy.backoff_max_s, policy.backoff_s * 2 ** min(tried, DOUBLINGS_MAX)) * random.random()
            self._metrics.retried()
            log.info(
                "task.retried",
                task_id=task.task_id,
                node=task.node,
                attempt=attempt,
                error_type=type(failure).__name__,
                wait_s=round(wait_s, 3),
            )
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _call(self, handler: Handler, arguments: Sequence[Any]) -> Any:
        function = handler.function
        try:
            if handler.is_async:
                return await within(handler.timeout_s, function(*arguments))
            return await self._threads.run(lambda: function(*arguments), handler.timeout_s)
        except (asyncio.CancelledError, SystemExit, BaseExceptionGroup) as error:
            this = asyncio.current_task()
            if isinstance(error, Exception) or (this is not None and this.cancelling()):
                raise
            # The handler's own doing (it awaited something that was cancelled, say): a failure like any other. Passed
            # on, it would end this worker, or the whole member.
            raise RuntimeError(f"the handler raised {type(error).__name__}: {error}") from error

    async def _fold_input(self, task: Task) -> tuple[list[Any], tuple[int, ...]]:
        """The values of a complete fan-out, or claim checks for them, in index order; and the indexes that failed."""
        values: list[Any] = []
        failed: list[int] = []
        last = -1
        while True:
            page = await self._patience.call("read_results", partial(self._page, task, last))
            for result in page:
                if result.status == "pending":
                    raise FoldSuperseded
                if result.payload is None:
                    failed.append(result.index)
                else:
                    values.append(_decoded(result))
            if len(page) < FOLD_PAGE:
                return values, tuple(failed)
            last = page[-1].index

    async def _publish_sends(self, task: Task, topic: str, sends: Sends) -> tuple[OutboxRecord, ...]:
        """The outbox records of the fan-out that a handler asked for, once its large args are in the claim store."""
        bytes_min = self._claim_checks.bytes_min
        if bytes_min is None:
            built = _build_sends(task, topic, sends, None)
        else:  # a second's work, if its args are large
            built = await asyncio.to_thread(_build_sends, task, topic, sends, bytes_min)
        await self._claim_checks.put_all(built.fan_out.id, built.large_args)
        return tuple(OutboxRecord(r.topic, r.key, r.value, pack_headers(r.headers)) for r in built.records)

    async def _page(self, task: Task, last: int) -> list[StoredResult]:
        return await self._store.read_results(task.fan_out.id, after=last, limit=FOLD_PAGE)


def _decoded(result: StoredResult) -> Any:
    assert result.payload is not None
    try:
        check = payload_check(result.payload)
        return decode_payload(result.payload) if check is None else check
    except SchemaError as error:
        # Written by somebody else: our own results are encoded.
        raise HandlerFailed("E_ARG", f"result {result.index} cannot be folded: {error}") from None


def _text(error: Exception) -> str:
    try:
        said = str(error)
    except Exception:
        said = "(its message cannot be shown)"
    return said if isinstance(error, OutOfTime) else f"{type(error).__name__}: {said}"


def _context(task: Task, attempt: int, failed: tuple[int, ...]) -> TaskContext:
    return TaskContext(
        task.task_id,
        task.thread_id,
        task.fan_out.id,
        task.index,
        task.node,
        task.run,
        attempt,
        VectorClock(task.base),
        failed,
    )


def _build_sends(task: Task, topic: str, sends: Sends, claim_check_bytes_min: int | None) -> BuiltFanOut:
    """The fan-out that a handler asked for: the same ids on every attempt of this run."""
    return build_fan_out(
        task.thread_id,
        sends.sends,
        topic=topic,
        fan_out_id=derive_child_fan_out_id(task.task_id, task.run),
        fold=sends.fold,
        base=task.base if sends.base is None else sends.base,
        claim_check_bytes_min=claim_check_bytes_min,
    )
