"""Findings with what to do about each."""

from __future__ import annotations

from fanfold_consumer.audit.findings import Finding, Kind
from fanfold_consumer.audit.judge import Read
from fanfold_consumer.audit.scope import Scope
from fanfold_schemas import Task


def missing(scope: Scope, task: Task, place: Read | None) -> Finding:
    """A task that every group is done with, and of which there is nothing."""
    again = f"fanfold replay --topic {scope.topic} --thread {task.thread_id} --execute"
    what = "passed by every group, without result, refusal or dead letter"
    if task.is_fold:
        what = "its fold has no result, and waits nowhere"
    if place is None:  # a fold that was never published: only a new run queues another
        again = f"fanfold replay --topic {scope.topic} --thread {task.thread_id} --rerun --execute"
    return _about(scope, "missing", what, f"`{again}` publishes it again", task, place)


def of_record(scope: Scope, fate: str, read: Read) -> Finding:
    """A record whose fate is a finding by itself: `conflicting`, `undecodable`, `altered` or `unexplained`."""
    task = read.task
    group = scope.passed.groups[0] if scope.passed.groups else "GROUP"
    again = (
        f"`fanfold replay --group {group} --topic {scope.topic} --partitions {read.partition} "
        f"--to-offset {read.offset} --fence --execute` has it parked"
    )
    match fate:
        case "conflicting":
            what = "contradicts what is stored, and was not parked"
            return _about(scope, "conflicting", what, f"what is stored stands; {again}", task, read)
        case "undecodable":
            what = f"cannot be decoded ({read.problem}), and was not parked"
            return _about(scope, "undecodable", what, again, task, read)
        case "altered":
            what = "its dead letter is not what is in the log"
            do = "do not redrive the letter: publish the record of the log again, or drop the letter"
            return _about(scope, "altered", what, do, task, read)
    assert task is not None
    rerun = f"fanfold replay --topic {scope.topic} --thread {task.thread_id} --rerun --execute"
    what = "counted as failed, and no dead letter says why"
    return _about(
        scope, "unexplained", what, f"`{rerun}` runs it again (--prune-older-than if it was pruned)", task, read
    )


def unpublished(scope: Scope, thread_id: str, fan_out_id: str, size: int, indexes: str) -> Finding:
    return Finding(
        "unpublished",
        f"not published: indexes {indexes} of {size}",
        "publish the fan-out again under its id (what is there is recognised), or "
        f"`fanfold cancel --fan-out {fan_out_id} --thread {thread_id} --execute`",
        thread_id=thread_id,
        fan_out_id=fan_out_id,
    )


def surplus(thread_id: str, fan_out_id: str, what: str) -> Finding:
    return Finding(
        "extra",
        what,
        "find out who committed it: results without a record come from elsewhere (a script, another topic), "
        "or the record was deleted",
        thread_id=thread_id,
        fan_out_id=fan_out_id,
    )


def _about(scope: Scope, kind: Kind, what: str, do: str, task: Task | None, place: Read | None) -> Finding:
    at = None if place is None else scope.at(place.partition, place.offset)
    if task is None:
        return Finding(kind, what, do, at)
    return Finding(kind, what, do, at, task.thread_id, task.fan_out.id, task.task_id, task.index)
