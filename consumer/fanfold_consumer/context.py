"""What a handler may know about the task it runs, and what it may return besides a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fanfold_schemas import VectorClock


@dataclass(frozen=True, slots=True)
class TaskContext:
    """Given to a handler that takes a second parameter.

    Attributes:
        task_id: the same on every delivery: pass it on as the idempotency key of whatever you do outside.
        attempt: how often this run was tried, from 1, waits in the outbox and other members' attempts included.
        run: replay generation, from 1.
        failed: for a fold, the indexes of the tasks that failed for good; empty otherwise.
        missing: for a fold, the indexes that have neither a result nor failed: its fan-out ended without them, by
            its quorum or its deadline.
    """

    task_id: str
    thread_id: str
    fan_out_id: str
    index: int
    node: str
    run: int
    attempt: int
    base: VectorClock
    failed: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sends:
    """Returned by a handler to fan out further. They are published if, and only if, its result is committed.

    Attributes:
        sends: 1 to 100,000 of `Send`, LangGraph's `Send`, or (node, arg) pairs: one new fan-out in the same thread.
        fold: what the new fan-out is folded with.
        value: the handler's own result.
        base: the clock the new tasks are derived from; None: that of this task.
        quorum, max_failures: as in `Publisher.fan_out`.
        fan_out_id: name the new fan-out, so that whoever publishes it as well publishes the same; None: it is derived
            from this task.
    """

    sends: Sequence[Any]
    fold: str | None = None
    value: Any = None
    base: VectorClock | None = None
    quorum: int | None = None
    max_failures: int | None = None
    fan_out_id: str | None = None
