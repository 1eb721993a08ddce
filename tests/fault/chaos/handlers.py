"""What the members of a campaign run. Every attempt leaves notes; every result follows from its task alone."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from fanfold_consumer import RetryAfter, Sends, TaskContext, fold, task
from tests.fault.chaos.member import ENV_FOLDER, HANG_FLAG
from tests.fault.chaos.notes import Notes
from tests.fault.chaos.plan import ALWAYS, FOLD, Value, child_plan, delay_s_of, tally_of, value_of

MEAN_S = 0.01
TIMEOUT_S = 3.0
_HANG_S = 60.0
_LATER_S = 1.0
_RETRIES = 8

_notes = Notes(Path(os.environ[ENV_FOLDER]))
_hang_flag = _notes.folder / HANG_FLAG


class Poisoned(Exception):
    """What a handler raises that was told to fail."""


def _hangs(context: TaskContext) -> bool:
    """A quarter of the tasks, at their first attempt: the others show that it does not concern them."""
    return context.attempt == 1 and context.task_id[-1] in "0123" and _hang_flag.exists()


def _begin(context: TaskContext) -> None:
    _notes.write("begin", context.task_id, context.run, context.attempt)


def _end(context: TaskContext, arg: dict[str, Any]) -> Value:
    _notes.write("end", context.task_id, context.run, context.attempt)
    return value_of(context.task_id, context.index, arg)


@task("work", timeout=TIMEOUT_S, retries=_RETRIES, backoff=0.1)
async def work(arg: dict[str, Any], context: TaskContext) -> Value:
    _begin(context)
    await asyncio.sleep(_HANG_S if _hangs(context) else delay_s_of(context.task_id, MEAN_S))
    return _end(context, arg)


@task("work-sync", timeout=TIMEOUT_S, retries=_RETRIES, backoff=0.1)
def work_sync(arg: dict[str, Any], context: TaskContext) -> Value:
    _begin(context)
    time.sleep(_HANG_S if _hangs(context) else delay_s_of(context.task_id, MEAN_S))
    return _end(context, arg)


@task("branch", retries=_RETRIES, backoff=0.1)
async def branch(arg: dict[str, Any], context: TaskContext) -> Sends:
    """Opens a fan-out of its own, on the topic its task came from."""
    _begin(context)
    await asyncio.sleep(delay_s_of(context.task_id, MEAN_S))
    child = child_plan(context.task_id, context.thread_id, "", arg["children"])
    return Sends(child.sends(), fold=child.fold, value=_end(context, arg))


@task("poison", retries=2, backoff=0.05)
async def poison(arg: dict[str, Any], context: TaskContext) -> None:
    _begin(context)
    raise Poisoned(f"{context.task_id} fails {'always' if arg['fails'] == ALWAYS else 'at times'}")


@task("flaky", retries=_RETRIES, backoff=0.05)
def flaky(arg: dict[str, Any], context: TaskContext) -> Value:
    """Fails at its first attempts: once by asking for another one later, through the outbox; or twice at once."""
    _begin(context)
    if context.attempt <= arg["fails"]:
        if arg["fails"] == 1:
            raise RetryAfter(_LATER_S)
        raise Poisoned(f"attempt {context.attempt} of {context.task_id}")
    return _end(context, arg)


@fold(FOLD, retries=_RETRIES, backoff=0.1)
async def tally(values: list[Value], context: TaskContext) -> dict[str, Any]:
    """Takes nothing on trust: its input must be in index order, each index once, and none of what failed."""
    indexes = [value[0] for value in values]
    seen = sorted([*indexes, *context.failed, *context.missing])
    if indexes != sorted(indexes) or seen != list(range(len(seen))):
        _notes.write("bad", context.task_id, context.run, context.attempt, fan_out_id=context.fan_out_id, indexes=seen)
    found = tally_of(values, context.failed, context.missing)
    _notes.write(
        "fold", context.task_id, context.run, context.attempt, fan_out_id=context.fan_out_id, digest=found["digest"]
    )
    return found
