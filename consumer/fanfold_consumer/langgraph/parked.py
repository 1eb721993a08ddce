"""What a checkpoint says is parked, and the one fan-out that it becomes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Interrupt, PregelTask, StateSnapshot

from fanfold_consumer.langgraph.blueprint import SEPARATOR, Blueprint
from fanfold_consumer.langgraph.parking import is_marker, latest_run, marked
from fanfold_consumer.langgraph.run import MARK, Run
from fanfold_consumer.langgraph.saver import FanfoldSaver
from fanfold_schemas import Send
from fanfold_schemas.ids import NAMESPACE

States = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A task of a superstep, or of a subgraph's, that has no writes yet.

    Attributes:
        path: of its node.
        checkpoint: config of the checkpoint that its pending writes belong to; the step is of that one.
    """

    task: PregelTask
    path: str
    checkpoint: RunnableConfig
    step: int

    @property
    def marker(self) -> dict[str, Any] | None:
        """What it was parked with; None: it is not parked."""
        return next((marked(i.value) for i in self.task.interrupts if is_marker(i.value)), None)

    @property
    def questions(self) -> tuple[Interrupt, ...]:
        """What it asks a human."""
        return tuple(i for i in self.task.interrupts if not is_marker(i.value))

    @property
    def interrupt(self) -> Interrupt:
        """The interrupt that parks it."""
        return next(i for i in self.task.interrupts if is_marker(i.value))


@dataclass(frozen=True, slots=True)
class Superstep:
    """Where a thread stands, subgraphs included.

    Attributes:
        clock: grows with everything that could supersede what is parked.
        run: of what was parked here last, whether or not it has its writes by now; None: nothing was.
    """

    snapshot: StateSnapshot
    unfinished: tuple[Unfinished, ...]
    clock: int
    run: Run | None

    @property
    def parked(self) -> list[Unfinished]:
        return [task for task in self.unfinished if task.marker is not None]

    @property
    def questions(self) -> list[Interrupt]:
        return [question for task in self.unfinished for question in task.questions]

    @property
    def interrupted_midway(self) -> bool:
        """Whether some task neither ended nor waits for anything: whoever ran the graph died, or runs it now."""
        return any(not task.task.interrupts and task.task.error is None for task in self.unfinished)

    @property
    def step(self) -> int:
        """Of the root's checkpoint; -2 before there is one."""
        return _step(self.snapshot)

    def fan_out_id(self) -> str | None:
        """Of what was parked here last. The same whenever it is asked, so publishing it again is the same work."""
        return None if self.run is None else self.fan_out_id_of(self.run["seq"])

    def fan_out_id_of(self, seq: int) -> str:
        """Of what the invocation with that number parked here, or would."""
        at = self.snapshot.config["configurable"]
        return str(uuid.uuid5(NAMESPACE, f"langgraph/{at['thread_id']}/{at['checkpoint_id']}/{seq}"))

    def base(self) -> dict[str, int]:
        # The root's component alone. A superstep of a subgraph is superseded only with the root's that it is part of,
        # and a counter for every subgraph call's namespace would stay in the thread's clock for ever.
        return {"": self.clock}

    @property
    def finisher(self) -> str | None:
        """The fan-out whose finisher wrote the latest checkpoint; None: the caller did."""
        return _mark(self.snapshot)

    def finishers(self) -> set[str | None]:
        """The same for the subgraphs' checkpoints, too, and for what is parked."""
        by = set() if self.run is None else {self.run["by"]}
        return {_mark(snapshot) for snapshot in _all(self.snapshot)} | by


async def read_superstep(graph: CompiledStateGraph[Any, Any, Any, Any], thread_id: str) -> Superstep:
    """Where a thread stands now."""
    thread: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    saver = graph.checkpointer
    assert isinstance(saver, BaseCheckpointSaver)
    while True:
        snapshot = await graph.aget_state(thread, subgraphs=True)
        unfinished = tuple([task async for task in _unfinished(saver, snapshot, ())])
        run = latest_run(i.value for task in unfinished for i in task.task.interrupts)
        if run is None and snapshot.tasks:
            run = await landed_run(saver, snapshot)
        if not isinstance(saver, FanfoldSaver):
            return Superstep(snapshot, unfinished, max(_step(snapshot), 0), run)
        # The step goes back with time travel, the head's clock does not.
        head = await saver.ahead(thread)
        if head is None or head.checkpoint_id == snapshot.config["configurable"]["checkpoint_id"]:
            return Superstep(snapshot, unfinished, 0 if head is None else head.clock, run)
        # A checkpoint was put between the two looks.


async def landed_run(saver: BaseCheckpointSaver[Any], snapshot: StateSnapshot) -> Run | None:
    """The run of tasks that were parked and have their writes: a snapshot does not show their markers any more."""
    saved = await saver.aget_tuple(snapshot.config)
    pending = [] if saved is None else saved.pending_writes or []
    return latest_run(i.value for _, channel, value in pending if channel == INTERRUPT for i in value)


def task_id_of(task: Unfinished) -> str:
    """On the fleet: LangGraph's own. In another round the same task may have another arg, so it is another task."""
    marker = task.marker
    assert marker is not None
    round_ = marker["run"]["round"]
    return f"{task.task.id}.{round_}" if round_ else task.task.id


async def read_states(blueprint: Blueprint, saver: BaseCheckpointSaver[Any], superstep: Superstep) -> States:
    """What the parked nodes' edges may read: the state that the superstep began with, by the ids of its checkpoints.

    Not what a snapshot says, which has the writes of those who have finished already.
    """
    states: States = {}
    for task in superstep.parked:
        checkpoint_id = task.checkpoint["configurable"]["checkpoint_id"]
        level, node = blueprint.level_of(task.path)
        if checkpoint_id not in states and level.needs_state(node):
            saved = await saver.aget_tuple(task.checkpoint)
            assert saved is not None
            values = saved.checkpoint["channel_values"]
            states[checkpoint_id] = {name: values[name] for name in level.builder.channels if name in values}
    return states


def sends_of(blueprint: Blueprint, superstep: Superstep, states: States) -> list[Send]:
    """The parked tasks for the fleet, in LangGraph's order.

    Raises:
        SchemaError: something in a state is of a type that cannot travel; the path says which.
    """
    plain_states = {checkpoint_id: blueprint.table.check(state) for checkpoint_id, state in states.items()}
    sends = []
    for task in superstep.parked:
        level, node = blueprint.level_of(task.path)
        marker = task.marker
        assert marker is not None
        arg = {"task": task.task.id, "step": task.step, **marker}
        if level.needs_state(node):
            arg["state"] = plain_states[task.checkpoint["configurable"]["checkpoint_id"]]
        sends.append(Send(blueprint.handler_name(task.path), arg, task_id_of(task)))
    return sends


async def _unfinished(
    saver: BaseCheckpointSaver[Any], snapshot: StateSnapshot, above: tuple[str, ...]
) -> AsyncIterator[Unfinished]:
    finished = await _finished(saver, snapshot)
    for task in snapshot.tasks:
        if task.id in finished:
            continue
        if isinstance(task.state, StateSnapshot) and task.state.tasks:
            async for inner in _unfinished(saver, task.state, (*above, task.name)):
                yield inner
        else:
            yield Unfinished(task, SEPARATOR.join((*above, task.name)), snapshot.config, _step(snapshot))


async def _finished(saver: BaseCheckpointSaver[Any], snapshot: StateSnapshot) -> set[str]:
    """Tasks of a snapshot that have their writes."""
    done = [task for task in snapshot.tasks if task.result is not None]
    if not any(task.interrupts and not task.result for task in done):
        return {task.id for task in done}
    # Before 1.2 an answer that a task has got looks like a result of nothing.
    saved = await saver.aget_tuple(snapshot.config)
    pending = [] if saved is None else saved.pending_writes or []
    return {task_id for task_id, channel, _ in pending if channel not in (ERROR, INTERRUPT, RESUME)}


def _all(snapshot: StateSnapshot) -> Iterator[StateSnapshot]:
    yield snapshot
    for task in snapshot.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _all(task.state)


def _step(snapshot: StateSnapshot) -> int:
    return int((snapshot.metadata or {}).get("step", -2))


def _mark(snapshot: StateSnapshot) -> str | None:
    mark = (snapshot.metadata or {}).get(MARK)
    return mark if isinstance(mark, str) else None
