"""OS threads for `def` handlers: a bounded number, and one that hangs is abandoned and replaced.

`concurrent.futures` would do, but for the hanging ones: there a call that never returns takes its place in the pool
with it. Threads cannot be killed; an abandoned one ends when its handler does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from fanfold_consumer.time_limit import within


class _Call:
    __slots__ = ("abandoned", "function", "future", "loop", "started")

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
        self.loop = loop
        self.function = function
        self.future: asyncio.Future[Any] = loop.create_future()
        self.started = False
        self.abandoned = False


class WorkerThreads:
    """Runs blocking functions on up to `size` daemon threads, started as they are needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Callers wait here and not in the queue, so that each call in the queue has a thread that is about to take it.
        self._slots = asyncio.Semaphore(size)
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        # Threads that wait for a call, less the calls that wait for a thread.
        self._idle = 0

    async def run(self, function: Callable[[], Any], timeout_s: float | None = None) -> Any:
        """The function's result. If its time is over or its caller is cancelled, the thread is given up and replaced.

        Args:
            timeout_s: counted from when there is a thread for it: waiting for one is not the function's time.

        Raises:
            OutOfTime: the function did not return in time; it runs on, and nobody waits for it.
            RuntimeError: it raised what no event loop may see (SystemExit, StopIteration, ...).
        """
        async with self._slots:
            return await within(timeout_s, self._run(function))

    async def _run(self, function: Callable[[], Any]) -> Any:
        call = _Call(asyncio.get_running_loop(), function)
        with self._lock:
            self._idle -= 1
            if self._idle < 0 and self._threads < self._size:
                self._start()
        self._calls.put(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            with self._lock:
                call.abandoned = True
                if call.started:
                    # Its thread will end with the handler instead of taking another call.
                    self._threads -= 1
            raise

    def close(self) -> None:
        """Let idle threads end. Running ones are daemons: they do not keep the process."""
        with self._lock:
            for _ in range(self._threads):
                self._calls.put(None)

    def _start(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._work, name="fanfold-handler", daemon=True).start()

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            with self._lock:
                if call.abandoned:
                    self._idle += 1
                    continue
                call.started = True
            result: Any = None
            failure: BaseException | None = None
            try:
                result = call.function()
            except BaseException as error:  # the caller's to judge, SystemExit included
                failure = error
            if not self._back_to_idle(call):
                return
            try:
                call.loop.call_soon_threadsafe(_settle, call.future, result, failure)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _back_to_idle(self, call: _Call) -> bool:
        """False if the caller gave this thread up meanwhile: another has taken its place."""
        with self._lock:
            if call.abandoned:
                return False
            call.started = False
            self._idle += 1
            return True


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    elif isinstance(failure, Exception) and not isinstance(failure, StopIteration):
        future.set_exception(failure)
    else:
        # StopIteration too: a future refuses it, and the caller would wait for ever.
        future.set_exception(RuntimeError(f"the handler raised {type(failure).__name__}: {failure}"))
