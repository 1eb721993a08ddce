"""The checkpointer of a single node's run: it remembers as long as the run lasts, and notes what the node wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    empty_checkpoint,
)
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, TASKS
from langgraph.types import Send

_RETURN = "__return__"
"""What a `@task` function that the node calls returns to it: no write of the node's."""


class Scratch(BaseCheckpointSaver[int]):
    """Values are kept as they are, not serialised: nothing leaves the process here.

    Args:
        thread_id: the real one, which the node may look at.
        checkpoint_id: the run's task id, as the node sees it, is derived from this one.
        send: what is to run.
        state: what the node's edges read, by channel.
        step: of the checkpoint that the task really belongs to.
    """

    def __init__(self, thread_id: str, checkpoint_id: str, send: Send, state: dict[str, Any], step: int) -> None:
        super().__init__()
        checkpoint = empty_checkpoint()
        checkpoint["id"] = checkpoint_id
        checkpoint["channel_values"] = {**state, TASKS: [send]}
        checkpoint["channel_versions"] = dict.fromkeys(checkpoint["channel_values"], 1)
        config = _config(thread_id, "", checkpoint_id)
        self._tuples = {"": CheckpointTuple(config, checkpoint, {"source": "loop", "step": step}, None, [])}
        self.writes: list[tuple[str, Any]] | None = None
        self.interrupts: tuple[Any, ...] = ()
        self.has_subgraphs = False

    def answer(self, task_id: str, answers: list[Any]) -> None:
        """What the task's interrupts, one after the other, come back with."""
        pending = self._tuples[""].pending_writes
        assert pending is not None
        pending.append((task_id, RESUME, answers))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._tuples.get(_namespace(config))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        namespace = _namespace(config)
        self.has_subgraphs = self.has_subgraphs or namespace != ""
        made = _config(config["configurable"]["thread_id"], namespace, checkpoint["id"])
        self._tuples[namespace] = CheckpointTuple(made, checkpoint.copy(), metadata, config, [])
        return made

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        namespace = _namespace(config)
        found = self._tuples.get(namespace)
        if found is not None and found.pending_writes is not None:
            found.pending_writes.extend((task_id, channel, value) for channel, value in writes)
        if namespace:
            return
        channels = {channel for channel, _ in writes}
        if INTERRUPT in channels:
            self.interrupts = tuple(i for channel, value in writes if channel == INTERRUPT for i in value)
        elif not channels & {_RETURN, ERROR} and channels != {RESUME}:
            self.writes = [write for write in writes if write[0] != RESUME]


def _namespace(config: RunnableConfig) -> str:
    return str(config["configurable"].get("checkpoint_ns", ""))


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}
