"""Results of the fleet become pending writes of the parked tasks: what LangGraph itself stores when a node has run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.types import Interrupt

from fanfold_consumer.langgraph.blueprint import Blueprint
from fanfold_consumer.langgraph.parked import Unfinished
from fanfold_consumer.langgraph.saver import FanfoldSaver
from fanfold_consumer.langgraph.saver_writes import TaskWrites


@dataclass(frozen=True, slots=True)
class Landing:
    """What one task came to."""

    task: Unfinished
    writes: list[tuple[str, Any]]


def landings(blueprint: Blueprint, parked: Iterable[Unfinished], results: Iterable[dict[str, Any]]) -> list[Landing]:
    """The results of tasks that are still parked. All others have their writes already: the first one won.

    Raises:
        SchemaError: a result holds a type that this member's graph does not have.
    """
    waiting = {task.task.id: task for task in parked}
    return [
        Landing(task, _writes(blueprint, task, result))
        for result in results
        if (task := waiting.get(result["task"])) is not None
    ]


def asks(result: dict[str, Any]) -> bool:
    """Whether a task's result is a question to a human."""
    return "interrupts" in result


async def land(saver: BaseCheckpointSaver[Any], landed: Iterable[Landing]) -> None:
    """Store them. Repeating is harmless: what is there stays."""
    if not isinstance(saver, FanfoldSaver):
        for landing in landed:
            task = landing.task.task
            await saver.aput_writes(landing.task.checkpoint, landing.writes, task.id, _path(task.path))
        return
    checkpoints: dict[str, tuple[RunnableConfig, list[TaskWrites]]] = {}
    for landing in landed:
        config, task = landing.task.checkpoint, landing.task.task
        _, writes = checkpoints.setdefault(config["configurable"]["checkpoint_id"], (config, []))
        writes.append(TaskWrites(task.id, landing.writes, _path(task.path)))
    for config, writes in checkpoints.values():
        await saver.aput_task_writes(config, writes)


def _writes(blueprint: Blueprint, task: Unfinished, result: dict[str, Any]) -> list[tuple[str, Any]]:
    if not asks(result):
        return [(channel, blueprint.table.load(value)) for channel, value in result["writes"]]
    # Under the ids that the parent gave: by them the answers find their way back.
    questions: list[Interrupt] = [replace(task.interrupt, value=blueprint.table.load(v)) for v in result["interrupts"]]
    return [(INTERRUPT, tuple(questions))]


def _path(path: object) -> str:
    """As LangGraph writes it, and sorts by."""
    if isinstance(path, tuple | list):
        return "~" + ", ".join(map(_path, path))
    return f"{path:010d}" if isinstance(path, int) else str(path)
