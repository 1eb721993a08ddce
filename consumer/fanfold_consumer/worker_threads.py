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
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._waiting = 0

    async def run(self, function: Callable[[], Any]) -> Any:
        """The function's result. If the caller is cancelled (a timeout), the thread is given up and replaced."""
        call = _Call(asyncio.get_running_loop(), function)
        with self._lock:
            self._waiting += 1
            if self._waiting > self._idle and self._threads < self._size:
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
            with self._lock:
                if call is None:
                    self._idle -= 1
                    self._threads -= 1
                    return
                self._waiting -= 1
                if call.abandoned:
                    continue
                self._idle -= 1
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
    elif isinstance(failure, Exception):
        future.set_exception(failure)
    else:
        future.set_exception(RuntimeError(f"the handler raised {type(failure).__name__}: {failure}"))
