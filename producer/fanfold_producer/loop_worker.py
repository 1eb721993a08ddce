"""An event loop on a worker of its own, so that blocking callers use the one asynchronous implementation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopWorker:
    """Runs coroutines for callers on other workers. Starts with the first one; a daemon."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: threading.Thread | None = None
        self._closed = False
        self._running: set[Future[Any]] = set()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; cancelling the future cancels it. Raises `RuntimeError` once closed."""
        with self._lock:
            if self._closed:
                work.close()
                raise RuntimeError(f"{self._name} is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._worker = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
                self._worker.start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Cancel what callers still wait for, then run `last`, then stop."""
        with self._lock:
            self._closed = True
            loop, worker = self._loop, self._worker
            self._loop = None
        if loop is None or worker is None:
            if last is not None:
                last.close()
            return
        # Only those: the store's pool has tasks of its own on this loop, which it ends itself.
        for future in list(self._running):
            future.cancel()
        if last is not None:
            asyncio.run_coroutine_threadsafe(last, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        worker.join()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            # What was cancelled gets its turn to unwind.
            left = asyncio.all_tasks(loop)
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
