"""One mapped task on a member: the node's own body, policies and edges, and what they wrote."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from langgraph.errors import ParentCommand
from langgraph.types import Send
from ormsgpack import packb, unpackb

from fanfold_consumer.context import TaskContext
from fanfold_consumer.langgraph.blueprint import Blueprint, Level
from fanfold_consumer.langgraph.run import config_of
from fanfold_consumer.langgraph.scratch import Scratch
from fanfold_consumer.retry import HandlerFailed
from fanfold_schemas import SchemaError
from fanfold_schemas.ids import NAMESPACE


class NodeRuns:
    """Runs the nodes of one level. The graph is compiled once."""

    def __init__(self, blueprint: Blueprint, level: Level) -> None:
        self._types = blueprint.table
        self._graph = blueprint.alone(level)

    async def run(self, node: str, arg: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        """The result of one task: the node's writes, or what it asks a human.

        Raises:
            HandlerFailed: arg or writes hold what cannot travel, or the node did what only works in one process.
            Exception: whatever the node raised, for the fleet's retry policy.
        """
        try:
            # A copy: a node may change what it is given, and the next attempt is given the same.
            arg = unpackb(packb(arg))
            value = self._types.load(arg["arg"])
            answers = self._types.load(arg["answers"])
            state = self._types.load(arg.get("state", {}))
            runtime = self._types.load(arg["run"]["context"])
            config = config_of(arg["run"], self._types)
        except SchemaError as error:
            raise HandlerFailed("E_ARG", f"the arg of {context.node!r} cannot be read: {error}") from error
        # The same on every attempt, so a body that takes its task id for an idempotency key does the right thing.
        checkpoint_id = str(uuid.uuid5(NAMESPACE, f"{context.task_id}/scratch"))
        scratch = Scratch(context.thread_id, checkpoint_id, Send(node, value), state, arg["step"])
        graph = copy.copy(self._graph)
        graph.checkpointer = scratch
        try:
            if answers:
                (task,) = (await graph.aget_state(config)).tasks
                scratch.answer(task.id, answers)
            await graph.ainvoke(None, config, context=runtime)
        except ParentCommand as error:
            raise HandlerFailed(
                "E_HANDLER",
                f"node {node!r} returned Command(graph=Command.PARENT), whose parent is not on this member; map the "
                "subgraph's node in the parent instead, or route there",
            ) from error
        return {"task": arg["task"], **self._result(node, scratch)}

    def _result(self, node: str, scratch: Scratch) -> dict[str, Any]:
        if scratch.interrupts:
            if scratch.has_subgraphs:
                raise HandlerFailed(
                    "E_HANDLER",
                    f"a subgraph within node {node!r} interrupted; its progress would be lost. Map the node of the "
                    "subgraph that interrupts instead, or interrupt in the node itself",
                )
            return {"interrupts": self._dumped(node, [i.value for i in scratch.interrupts])}
        if scratch.writes is None:
            raise HandlerFailed("E_HANDLER", f"node {node!r} ended without writes")
        try:
            return {"writes": [[channel, self._types.check(value)] for channel, value in scratch.writes]}
        except SchemaError as error:
            raise HandlerFailed("E_RESULT", f"what node {node!r} returned cannot travel: {error}") from error

    def _dumped(self, node: str, values: list[Any]) -> list[Any]:
        try:
            return [self._types.check(value) for value in values]
        except SchemaError as error:
            raise HandlerFailed("E_RESULT", f"what node {node!r} asks cannot travel: {error}") from error
