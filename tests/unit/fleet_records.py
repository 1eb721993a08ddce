"""Tasks, deliveries and claims as tests need them: complete, and boring where nothing is said."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Message

from fanfold_consumer.assignment import Partition, Phase
from fanfold_consumer.offsets import Tracker
from fanfold_consumer.work import Delivery, HeaderList, Work
from fanfold_schemas import FOLD_INDEX, FanOut, Task, arg_hash, derive_fold_task_id, derive_task_id, encode_task

TOPIC = "tasks.v1"


def a_partition(phase: Phase = Phase.RUNNING, *, number: int = 3, progress_id: int = 7) -> Partition:
    return Partition(TOPIC, number, phase, progress_id, epoch=40, tracker=Tracker(0))


def a_task(node: str = "work", arg: Any = None, *, index: int = 0, size: int = 10, **fields: Any) -> Task:
    fan_out = FanOut("f1", size)
    return Task(derive_task_id("f1", index), "t1", fan_out, index, node, arg, **fields)


def a_fold(fold: str, *, size: int = 10, fan_out: FanOut | None = None, **fields: Any) -> Task:
    """Of a fan-out that may lack some of its results, unless it says otherwise."""
    fan_out = fan_out or FanOut("f1", size, fold, on_deadline="fold")
    return Task(derive_fold_task_id("f1"), "t1", fan_out, FOLD_INDEX, fold, **fields)


def a_delivery(
    value: bytes | None = b"value",
    *,
    offset: int = 1032,
    key: bytes | None = b"key",
    headers: HeaderList | None = None,
    partition: Partition | None = None,
) -> Delivery:
    partition = a_partition() if partition is None else partition
    # Message() takes any value for a header, but says str.
    wire: Any = headers
    message = Message(partition.topic, partition.number, offset, key, value, wire)
    return Delivery(partition, offset, message, len(value or b""))


def some_work(task: Task | None = None, *, partition: Partition | None = None, offset: int = 1032) -> Work:
    task = a_task() if task is None else task
    return Work(a_delivery(encode_task(task), offset=offset, partition=partition), task, arg_hash(task))
