"""What a publisher gets back: the names of what was published, and the way to its outcome."""

from __future__ import annotations

import asyncio
from typing import Any

from fanfold_producer.loop_worker import LoopWorker
from fanfold_producer.results import Results
from fanfold_sql import FanOutState


class FanOutHandle:
    """A fan-out that is published.

    Every waiting method comes twice: blocking, and with an `a` in front for an event loop. They need a publisher
    with a `database_url` that is not closed yet, and raise `DatabaseNeeded`, `StoreUnavailable` (repeat),
    `StoreRejected` or `MigrationNeeded` besides what they say themselves.

    Attributes:
        fan_out_id: the same id, published again, is the same work and is done once.
        thread_id: the thread it belongs to.
        size: number of tasks.
        task_ids: in index order; empty for a handle that `Publisher.handle` made, which knows none of them.
    """

    def __init__(
        self,
        fan_out_id: str,
        thread_id: str,
        size: int,
        task_ids: tuple[str, ...],
        *,
        results: Results,
        worker: LoopWorker,
    ) -> None:
        self.fan_out_id = fan_out_id
        self.thread_id = thread_id
        self.size = size
        self.task_ids = task_ids
        self._results = results
        self._worker = worker

    def __repr__(self) -> str:
        return f"FanOutHandle({self.fan_out_id!r}, thread_id={self.thread_id!r}, size={self.size})"

    def progress(self) -> FanOutState | None:
        """How far it is; None until its first result is committed."""
        return self._worker.submit(self._results.progress(self.fan_out_id)).result()

    async def aprogress(self) -> FanOutState | None:
        return await asyncio.wrap_future(self._worker.submit(self._results.progress(self.fan_out_id)))

    def cancel(self) -> bool:
        """End it: queued tasks are skipped unrun, running ones are refused, and it never folds. There is no way back.

        Returns:
            False if it was too late: it is folded, or complete without a fold. Repeating is harmless.
        """
        return self._worker.submit(self._results.cancel(self.fan_out_id, self.thread_id)).result()

    async def acancel(self) -> bool:
        return await asyncio.wrap_future(self._worker.submit(self._results.cancel(self.fan_out_id, self.thread_id)))

    def result(self, timeout: float | None = None, *, return_failures: bool = False) -> Any:
        """Wait for the outcome: the fold's value; without a fold the tasks' values, in index order.

        With a quorum and no fold: the values that are there, at least `quorum` of them, still in index order. So too
        after a deadline with `on_deadline="fold"`, which may leave any number of them.

        Args:
            timeout: seconds; None: as long as it takes. The database is asked every 5 ms at first, then less
                and less often, down to every 250 ms.
            return_failures: put a `TaskFailure` in the place of each failed task's value. Means nothing with a
                fold, which judges failures itself.

        Raises:
            TimeoutError: with how many are done, failed and remaining. Nothing is lost: wait again.
            FanOutFailed: tasks failed for good: more than its `max_failures`, or neither a fold nor a quorum says that
                this is all right.
            FanOutExpired: its deadline passed first, and it was not to be folded then.
            FoldFailed: the fold failed for good.
            FanOutCancelled: somebody cancelled it.
            FanOutStale: its thread moved past its base, so it will never complete.
            StoreUnavailable: Postgres has not answered for half a minute. Wait again.
            ClaimStoreUnavailable, ClaimStoreNeeded, ClaimCheckBroken: a large value could not be had.
        """
        waiting = self._results.wait(self.fan_out_id, self.size, timeout, return_failures)
        future = self._worker.submit(waiting)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while waiting: the poll must not go on behind the caller's back.
            future.cancel()
            raise

    async def aresult(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        return_failures: bool = False,
    ) -> Any:
        """`result` for an event loop. Cancelling it stops the waiting, never the work."""
        waiting = self._results.wait(self.fan_out_id, self.size, timeout, return_failures)
        return await asyncio.wrap_future(self._worker.submit(waiting))
