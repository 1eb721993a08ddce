"""Running handlers: a fixed number at once, retried here or later, and every way to end becomes a completion."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from fanfold_consumer.child_fan_out import sends_records
from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.context import Sends
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.events import log
from fanfold_consumer.folds import built_in
from fanfold_consumer.handler_input import FoldSuperseded, HandlerInput, read_input
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.registry import ArgumentError, Handler, Registry, Retry
from fanfold_consumer.retry import (
    HandlerFailed,
    RaisedInProcess,
    TriedLater,
    describe,
    next_attempt_record,
    wait_before_next_s,
)
from fanfold_consumer.time_limit import OutOfTime, within
from fanfold_consumer.work import Completion, Work
from fanfold_consumer.worker_processes import WorkerProcesses
from fanfold_consumer.worker_threads import WorkerThreads
from fanfold_producer.errors import ClaimCheckBroken, ClaimStoreNeeded
from fanfold_schemas import ClaimCheck, SchemaError, Task
from fanfold_sql import Finished, OutboxRecord, Store

_ONCE = Retry(retries=0)
BREATH = 100
"""Tasks a worker runs before others on the loop get their turn, when their handlers never wait for anything."""
ENDING_S = 5.0
"""How long a handler that was told to end may take for it, before it is left behind."""


class LetGo(Exception):
    """Whatever came of the task, nobody wants it from here."""


class _Run(msgspec.Struct, eq=False):
    """A task in a worker's hands.

    Attributes:
        instead: it was told to end, and comes to this whatever its handler still does.
        timer: the end of its time, then of the time it has for ending.
    """

    work: Work
    worker: asyncio.Task[None]
    attempt: int
    instead: Completion | None = None
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Executor:
    """Runs at most `concurrency` handlers at once.

    Args:
        retry_in_place_s: a longer wait for the next attempt is spent in the outbox.
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
        process_workers: int,
        retry_in_place_s: float,
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
        self._retry_in_place_s = retry_in_place_s
        self._finish = finish
        self._failed = failed
        self._threads = WorkerThreads(sync_workers)
        self._processes = WorkerProcesses(process_workers)
        self._queue: deque[Work] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = 0
        self._workers: list[asyncio.Task[None]] = []
        self._running: set[_Run] = set()
        self._closing = False
        self._calling = 0
        metrics.running.set_function(lambda: self._calling)

    def submit(self, work: Work) -> None:
        """Queue a task. Order is that of arrival; there is no other promise."""
        self._queue.append(work)
        # One at a time: whoever comes finds the queue, and sends for the next if there is more in it than one can take.
        # Handlers that never wait need no second worker; waking one for each task would cost more than they do.
        if not self._waking:
            self._send_for_worker()

    def takes_in_place(self, fold: Task) -> bool:
        """Whether a fold would begin at once, and may be called again: as a record, if it fails without one."""
        handler = self._registry.get(fold.node)
        return len(self._queue) + len(self._running) < self._concurrency and (
            handler is None or handler.retry.retries > 0
        )

    def drop_queued(self) -> None:
        """Let go of tasks that have not begun and must not any more."""
        keep = deque(work for work in self._queue if work.delivery.partition.may_begin)
        dropped = [work for work in self._queue if not work.delivery.partition.may_begin]
        self._queue = keep
        for work in dropped:
            self._finish(Completion(work.delivery, dropped=True))

    def abandon_lost(self) -> None:
        """Cancel handlers whose results nobody can commit any more: they would only cost."""
        for run in self._running:
            if run.work.delivery.partition.lost and run.instead is None:
                self._tell_to_end(run, Completion(run.work.delivery, dropped=True))

    def in_hand(self) -> list[Work]:
        """What is queued or runs, but for what was told to end."""
        return [*self._queue, *(run.work for run in self._running if run.instead is None)]

    def node_of(self, worker: asyncio.Task[Any] | None) -> str | None:
        """Whose handler a worker runs. Any thread may ask."""
        return next((run.work.task.node for run in list(self._running) if run.worker is worker), None)

    def stop(self, verdicts: Mapping[Work, str]) -> Counter[str]:
        """Let go of tasks whose result would be refused: their deliveries are finished without one.

        Returns how many it were, by verdict. What is no longer in hand comes to what its handler made of it.
        """
        running = [run for run in self._running if run.work in verdicts and run.instead is None]
        for run in running:
            self._tell_to_end(run, Completion(run.work.delivery))
        queued = [work for work in self._queue if work in verdicts]
        if queued:
            self._queue = deque(work for work in self._queue if work not in verdicts)
        for work in queued:
            self._finish(Completion(work.delivery))
        stopped = Counter(verdicts[work] for work in (*queued, *(run.work for run in running)))
        for why, count in stopped.items():
            self._metrics.skipped(why, count)
        return stopped

    async def close(self) -> None:
        """Stop every worker; what still runs is cancelled and will be done again elsewhere."""
        self._closing = True
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=ENDING_S)
        for run in [run for run in self._running if not run.worker.done()]:
            self._leave_behind(run)
        self._threads.close()
        await self._processes.close()

    def _send_for_worker(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._waking += 1
                return
        if len(self._workers) < self._concurrency:
            self._waking += 1
            self._add_worker()

    def _arrive(self) -> None:
        """Said by each worker that was sent for, once it is there."""
        self._waking -= 1
        if len(self._queue) > 1 and not self._closing:
            self._send_for_worker()

    def _add_worker(self) -> None:
        worker = asyncio.get_running_loop().create_task(self._work())
        worker.add_done_callback(self._on_ended)
        self._workers.append(worker)

    def _tell_to_end(self, run: _Run, instead: Completion) -> None:
        run.instead = instead
        run.worker.cancel()
        self._expect_end(run)

    def _expect_end(self, run: _Run, handler: Handler | None = None) -> None:
        """Whatever is awaited was cancelled. A handler may ignore that, but not keep its worker for ever.

        Args:
            handler: one that ran out of time, with attempts left maybe; none: `run` is told to end.
        """
        run.stop_timer()
        run.timer = asyncio.get_running_loop().call_later(ENDING_S, self._replace, run, handler)

    def _replace(self, run: _Run, handler: Handler | None) -> None:
        if run not in self._running or self._closing:
            return  # it did end
        self._leave_behind(run)
        completion = run.instead
        if completion is None:
            assert handler is not None
            completion = self._without_result(run, self._out_of_time(run, handler))
        self._finish(completion)
        if self._queue:
            self._send_for_worker()

    def _leave_behind(self, run: _Run) -> None:
        task = run.work.task
        log.warning("handler.abandoned", task_id=task.task_id, node=task.node, attempt=run.attempt)
        self._running.discard(run)
        self._workers.remove(run.worker)
        # Or asyncio.run would wait for it, and the process never end.
        asyncio._unregister_task(run.worker)

    def _on_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._failed(error)

    async def _work(self) -> None:
        this = asyncio.current_task()
        assert this is not None
        breath = BREATH
        self._arrive()
        while not self._closing:
            if not self._queue:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter
                self._arrive()
                continue
            work = self._queue.popleft()
            if not work.delivery.partition.may_begin:
                self._finish(Completion(work.delivery, dropped=True))
                continue
            run = _Run(work, this, work.task.attempt)
            self._running.add(run)
            try:
                completion = await self._complete(run)
            except asyncio.CancelledError:
                if run.instead is None:
                    raise
                completion = run.instead
            if run not in self._running:
                return  # left behind: another worker has this place, and the task its completion
            self._running.discard(run)
            if run.instead is not None:
                # Here, because a handler may have kept the cancellation to itself: the next one has no part in it.
                this.uncancel()
                completion = run.instead
            self._finish(completion)
            breath -= 1
            if breath == 0:
                breath = BREATH
                await asyncio.sleep(0)

    async def _complete(self, run: _Run) -> Completion:
        work, task = run.work, run.work.task
        try:
            handler = self._handler_of(task)
            if task.is_fold or task.arg_check is not None:
                value = await self._run_with_input(handler, run)
            else:
                value = await self._attempts(handler, run, HandlerInput([task.arg]))
        except (LetGo, FoldSuperseded, TriedLater, HandlerFailed) as end:
            return self._without_result(run, end)
        try:
            outbox: tuple[OutboxRecord, ...] = ()
            if isinstance(value, Sends):
                if value.sends or value.fold is not None:  # nobody waits for a fan-out of none without a fold
                    outbox = await sends_records(self._claim_checks, task, work.delivery.partition.topic, value)
                value = value.value
            payload = await self._claim_checks.payload(task, value)
        except Exception as error:
            # Of any kind: iterating over what the handler returned runs its code. It would return the same again.
            text = str(error) if isinstance(error, SchemaError) else describe(error)
            return self._fail(work, "E_RESULT", f"the handler's result cannot be stored: {text}")
        result = Finished(task, payload, work.arg_hash, work.delivery.partition.topic)
        return Completion(work.delivery, result, None, outbox)

    def _without_result(self, run: _Run, end: Exception) -> Completion:
        delivery = run.work.delivery
        if isinstance(end, HandlerFailed):
            return self._fail(run.work, end.code, str(end))
        if isinstance(end, TriedLater):
            return Completion(delivery, outbox=(end.record,))
        return Completion(delivery, dropped=isinstance(end, LetGo))

    def _fail(self, work: Work, code: str, text: str) -> Completion:
        task = work.task
        if work.delivery.in_place is not None:
            return Completion(work.delivery, dropped=True)  # it fails as a record, which can be parked
        log.warning(
            "task.failed",
            task_id=task.task_id,
            node=task.node,
            fan_out_id=task.fan_out.id,
            code=code,
            run=task.run,
        )
        return self._parking.park(work.delivery, code, text, task=task, arg_hash=work.arg_hash)

    def _handler_of(self, task: Task) -> Handler:
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
        return handler

    async def _run_with_input(self, handler: Handler, run: _Run) -> Any:
        """As `_attempts`, with what the handler is given read or fetched first."""
        task = run.work.task
        given = await read_input(self._store, self._patience, task)
        if not any(isinstance(value, ClaimCheck) for value in given.values):
            return await self._attempts(handler, run, given)
        try:
            async with self._claim_checks.fetched(task.fan_out.id, given.values):
                return await self._attempts(handler, run, given)
        except (ClaimCheckBroken, ClaimStoreNeeded) as error:
            raise HandlerFailed("E_CLAIM", str(error)) from error

    async def _attempts(self, handler: Handler, run: _Run, given: HandlerInput) -> Any:
        """The handler's value, after as many attempts as its policy allows here."""
        task, partition = run.work.task, run.work.delivery.partition
        argument: Any = given.values if task.is_fold else given.values[0]
        if handler.convert is not None and handler.isolation is None:
            try:
                argument = handler.convert(argument)
            except ArgumentError as error:
                raise HandlerFailed("E_ARG", f"the arg of {task.node!r} is not what it declares: {error}") from None
        while True:
            arguments: tuple[Any, ...] = (argument,)
            if handler.takes_context:
                arguments = (argument, given.context(task, run.attempt))
            if handler.is_async and handler.isolation is None and handler.timeout_s is not None:
                loop = asyncio.get_running_loop()
                run.timer = loop.call_later(handler.timeout_s, self._expect_end, run, handler)
            self._calling += 1
            try:
                return await self._call(handler, arguments)
            except HandlerFailed:
                raise
            except Exception as error:
                failure = error
            finally:
                self._calling -= 1
                if run.timer is not None:
                    run.stop_timer()
            if run.instead is not None or partition.lost or self._closing or run not in self._running:
                raise LetGo
            wait_s = self._wait_s(run, handler.retry, failure)
            in_place = run.work.delivery.in_place is not None
            if wait_s > self._retry_in_place_s or not partition.may_begin or in_place:
                self._try_later(run, wait_s)
            await asyncio.sleep(wait_s)
            if not partition.may_begin:  # handed over meanwhile: nothing more is begun
                self._try_later(run, 0.0)
            run.attempt += 1

    def _wait_s(self, run: _Run, policy: Retry, failure: Exception) -> float:
        """How long to wait for the next attempt. Raises HandlerFailed if there is none."""
        task, attempt = run.work.task, run.attempt
        wait_s = wait_before_next_s(policy, attempt, failure)
        if wait_s is None:
            code = "E_TIMEOUT" if isinstance(failure, OutOfTime) else "E_HANDLER"
            raise HandlerFailed(code, f"{describe(failure)} (attempt {attempt})") from failure
        self._metrics.retried()
        log.info(
            "task.retried",
            task_id=task.task_id,
            node=task.node,
            attempt=attempt,
            error_type=failure.kind if isinstance(failure, RaisedInProcess) else type(failure).__name__,
            wait_s=round(wait_s, 3),
        )
        return wait_s

    def _try_later(self, run: _Run, wait_s: float) -> None:
        """Raise TriedLater. Return if there is no room in the record for another attempt: then it waits in place."""
        record = next_attempt_record(run.work.delivery, run.attempt + 1, wait_s)
        if record is not None:
            raise TriedLater(record)

    def _out_of_time(self, run: _Run, handler: Handler) -> Exception:
        """What the run of a handler comes to that did not even end when its time was over."""
        failure = OutOfTime(f"no result within {handler.timeout_s:g} s, and it did not end when it was cancelled")
        try:
            self._try_later(run, self._wait_s(run, handler.retry, failure))
        except (HandlerFailed, TriedLater) as end:
            return end
        return HandlerFailed("E_TIMEOUT", f"{failure} (attempt {run.attempt}; its record has no room for another)")

    async def _call(self, handler: Handler, arguments: Sequence[Any]) -> Any:
        function = handler.function
        try:
            if handler.isolation is not None:
                return await self._processes.run(handler, arguments)
            if handler.is_async:
                if handler.timeout_s is None:
                    return await function(*arguments)
                return await within(handler.timeout_s, function(*arguments))
            return await self._threads.run(lambda: function(*arguments), handler.timeout_s)
        except (asyncio.CancelledError, SystemExit, BaseExceptionGroup) as error:
            this = asyncio.current_task()
            if isinstance(error, Exception) or (this is not None and this.cancelling()):
                raise
            # The handler's own doing (it awaited something that was cancelled, say): a failure like any other. Passed
            # on, it would end this worker, or the whole member.
            raise RuntimeError(f"the handler raised {type(error).__name__}: {error}") from error
