"""What a handler is given: the arg of its task, or the results of its fan-out in index order."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from fanfold_consumer.context import TaskContext
from fanfold_consumer.patience import Patience
from fanfold_consumer.retry import HandlerFailed
from fanfold_schemas import FanOut, SchemaError, Task, VectorClock, read_payload
from fanfold_sql import Store, StoredResult

FOLD_PAGE = 2000


class FoldSuperseded(Exception):
    """The fan-out was reopened, or lost results to a failover, while its fold was read: another fold follows."""


class HandlerInput(msgspec.Struct, frozen=True):
    """Values, or claim checks for them; of a fold, also the indexes that have none because they failed, or at all."""

    values: list[Any]
    failed: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()

    def context(self, task: Task, attempt: int) -> TaskContext:
        return TaskContext(
            task.task_id,
            task.thread_id,
            task.fan_out.id,
            task.index,
            task.node,
            task.run,
            attempt,
            VectorClock(task.base),
            self.failed,
            self.missing,
        )


async def read_input(store: Store, patience: Patience, task: Task) -> HandlerInput:
    """The arg of a task; of a fold, what its fan-out has, page by page.

    Raises:
        FoldSuperseded: let go of this fold.
        HandlerFailed: a result that is stored cannot be read.
    """
    if not task.is_fold:
        return HandlerInput([task.arg if task.arg_check is None else task.arg_check])
    values: list[Any] = []
    failed: list[int] = []
    missing: list[int] = []
    expected = 0
    while True:
        page = await patience.call("read_results", partial(_page, store, task, expected - 1))
        for result in page:
            if result.status == "pending":
                raise FoldSuperseded
            missing.extend(range(expected, result.index))
            expected = result.index + 1
            if result.payload is None:
                failed.append(result.index)
            else:
                values.append(_decoded(result))
        if len(page) < FOLD_PAGE:
            missing.extend(range(expected, task.fan_out.size))
            if missing and not _may_lack_some(task.fan_out, len(values)):
                # It was complete when we asked whether to run: the database has gone back since (a failover).
                raise FoldSuperseded
            return HandlerInput(values, tuple(failed), tuple(missing))


def _may_lack_some(fan_out: FanOut, successes: int) -> bool:
    """Whether a fan-out is complete without all its tasks: by its deadline, or by its quorum."""
    return fan_out.on_deadline is not None or (fan_out.quorum is not None and successes >= fan_out.quorum)


async def _page(store: Store, task: Task, last: int) -> list[StoredResult]:
    return await store.read_results(task.fan_out.id, after=last, limit=FOLD_PAGE)


def _decoded(result: StoredResult) -> Any:
    assert result.payload is not None
    try:
        return read_payload(result.payload)
    except SchemaError as error:
        # Written by somebody else: our own results are encoded.
        raise HandlerFailed("E_ARG", f"result {result.index} cannot be folded: {error}") from None
