"""`distribute`: a user's own graph, started here and run by a fleet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from fanfold_consumer.langgraph.blueprint import Blueprint
from fanfold_consumer.langgraph.errors import GraphRefused, NodeFailed, StillRunning, Superseded
from fanfold_consumer.langgraph.outcome import raise_failure
from fanfold_consumer.langgraph.parked import Superstep, read_states, read_superstep, sends_of
from fanfold_consumer.langgraph.run import current_run, new_run
from fanfold_producer import FanOutHandle, FanOutUnknown, Publisher
from fanfold_sql import FanOutState

POLL_MIN_S = 0.005
POLL_MAX_S = 0.25


def distribute(
    graph: Any,
    *,
    nodes: Sequence[str],
    publisher: Publisher,
    saver: BaseCheckpointSaver[Any],
) -> FleetGraph:
    """Run nodes of a graph on a fleet.

    Whenever the graph comes to one of them, by a Send or an edge, it is run by whichever member of the fleet is free;
    all that one superstep sends is one fan-out. The other nodes run here until the first fan-out, and on the member
    that finishes a superstep after it.

    Args:
        graph: a `StateGraph`, a compiled one without a checkpointer, or a `Blueprint`; `fanfold consume --graph` names
            the same one.
        nodes: those to run on the fleet; of a graph that is itself a node, `subgraph:node`.
        publisher: with the `database_url` of the fleet.
        saver: of checkpoints in the database that the members use. Ours refuses forks; see there.

    Raises:
        GraphRefused: what this graph does would not be the same on a fleet; all problems at once.
    """
    blueprint = graph if isinstance(graph, Blueprint) else Blueprint(graph)
    _check_given(publisher, saver)
    return FleetGraph(blueprint, blueprint.check_mapped(nodes), publisher, saver)


class FleetGraph:
    """A graph whose mapped nodes run on a fleet. Any number of runs at once, each on a thread of its own.

    Attributes:
        graph: what orchestrates: the compiled graph with its mapped nodes parked, for its state and history. Invoked by
            itself it would park and nobody would hear of it.
    """

    def __init__(
        self, blueprint: Blueprint, mapped: tuple[str, ...], publisher: Publisher, saver: BaseCheckpointSaver[Any]
    ) -> None:
        self.graph: CompiledStateGraph[Any, Any, Any, Any] = blueprint.orchestrating(mapped, saver)
        self._blueprint = blueprint
        self._mapped = mapped
        self._publisher = publisher
        self._saver = saver

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig,
        *,
        context: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any:
        """`start`, then `result`: what the graph's own `ainvoke` would return."""
        return await self._follow(await self._start(input, config, context), config, timeout)

    async def start(self, input: Any, config: RunnableConfig, *, context: Any = None) -> None:
        """Run the graph until its first fan-out is published, or until it ends.

        Args:
            input: as for the graph: new input, a `Command`, or None to go on: after a failure, or after a process
                died; what is on its way already is not started twice.
            config: with a thread_id of 1 to 200 of `[A-Za-z0-9._:-]`. Its configurable, metadata, tags and
                recursion_limit go with the run; callbacks stay here.
            context: the runtime context, of a type that the graph declares.

        Raises:
            GraphRefused: config or context cannot go to a fleet.
            StillRunning: tasks are on the fleet; a human's answer has to wait for `result`.
            SchemaError: an arg, or the state that an edge reads, holds a type that cannot travel; the path says which.
            ForkRefused: somebody else started the thread at the same time, and was first (with `FanfoldSaver`).
            PublishError: nothing was published; `start(None, config)` again.
            Exception: what the graph raises before its first fan-out.
        """
        await self._start(input, config, context)

    async def result(self, config: RunnableConfig, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Wait until the thread's run ends or asks a human, in this process or another than it was started in.

        Returns:
            What the graph's `ainvoke` would: the values of its output schema, with `__interrupt__` if it asks.

        Raises:
            NodeFailed: a node failed for good and the graph does not handle that.
            StillRunning: it is not at its end, and nothing is on the fleet: the caller is at work before the first
                fan-out, or died there.
            GraphRefused: there is no such thread.
            GraphRecursionError, InvalidUpdateError: as the graph itself would.
            TimeoutError: nothing is lost; wait again.
            Superseded, FanOutStale: the thread was started again meanwhile; `result` waits for that run then.
            FanOutCancelled: somebody cancelled the work.
            FoldFailed: a member could not finish a superstep; the message says why, and how to redrive it.
        """
        return await self._follow(await self._current(config), config, timeout)

    async def _start(self, input: Any, config: RunnableConfig, context: Any) -> str | None:
        """The fan-out that the run now waits for; None: it has ended, or asks."""
        if _within_a_node():
            problem = (
                "a distributed graph within a node of another graph would park that one, too; make it a node of the "
                "other graph and distribute that, with nodes=['subgraph:node']"
            )
            raise GraphRefused([problem])
        before = await self._read(config)
        if input is None or isinstance(input, Command):
            on_its_way = await self._on_its_way(before)
            if on_its_way is not None and input is not None:
                raise StillRunning(
                    f"thread {_thread_id(config)!r} waits for fan-out {on_its_way}; so do you, with result(config), "
                    "before you resume it"
                )
            if on_its_way is not None:
                return on_its_way
        seq = await self._unused_seq(before) if before.unfinished else 0
        run = new_run(self._mapped, config, context, self._blueprint.table, began=before.step, seq=seq)
        token = current_run.set(run)
        try:
            await self.graph.ainvoke(_addressed(input, before), config, context=context)
        finally:
            current_run.reset(token)
        after = await self._read(config)
        if not after.parked:
            return None
        await self._publish(after)
        return after.fan_out_id()

    async def _follow(
        self,
        fan_out_id: str | None,
        config: RunnableConfig,
        timeout: float | None,  # noqa: ASYNC109
    ) -> Any:
        """The result of a run, from fan-out to fan-out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while fan_out_id is not None:
            handle = await self._handle(fan_out_id, deadline)
            outcome = await handle.aresult(_left(deadline))
            raise_failure(outcome)
            fan_out_id = outcome.get("next")
        superstep = await self._read(config)
        if superstep.parked:
            raise Superseded(
                f"thread {_thread_id(config)!r} is parked again after its fan-outs are finished. Somebody started it "
                "again: wait for that with result(config). Or the members keep checkpoints elsewhere: give `fanfold "
                "consume` the database of this graph's saver"
            )
        _check_ended(superstep, _thread_id(config))
        return self._output(superstep)

    async def _current(self, config: RunnableConfig) -> str | None:
        """A fan-out that the thread waits for, or whose finisher brought it where it is: the rest is in its outcome."""
        superstep = await self._read(config)
        return superstep.fan_out_id() or superstep.finisher

    async def _publish(self, superstep: Superstep) -> None:
        # Publishing the same again is the same work, so it does not matter who did before and died.
        states = await read_states(self._blueprint, self._saver, superstep)
        sends = await asyncio.to_thread(sends_of, self._blueprint, superstep, states)
        await self._publisher.afan_out(
            superstep.snapshot.config["configurable"]["thread_id"],
            sends,
            fan_out_id=superstep.fan_out_id(),
            fold=self._blueprint.name,
            base=superstep.base(),
        )

    async def _on_its_way(self, superstep: Superstep) -> str | None:
        """A fan-out that the fleet has and has not finished. What nobody may have published is published now."""
        parked = superstep.fan_out_id()
        by: str | None = None if superstep.run is None else superstep.run["by"]
        # First those whose finishers may be at work: they publish what they parked, and not before they are committed.
        for fan_out_id in filter(None, (by, superstep.finisher, parked)):
            state = await self._progress(fan_out_id)
            if state is not None and not state.ended:
                if fan_out_id == parked and state.remaining:
                    await self._publish(superstep)
                return fan_out_id
            if state is None and fan_out_id == parked and superstep.parked and not superstep.interrupted_midway:
                await self._publish(superstep)
                return fan_out_id
        return None

    async def _unused_seq(self, superstep: Superstep) -> int:
        """A number that no invocation had at this checkpoint. What it parked may not show any more."""
        seq = 0 if superstep.run is None else superstep.run["seq"] + 1
        while await self._progress(superstep.fan_out_id_of(seq)) is not None:
            seq += 1
        return seq

    async def _progress(self, fan_out_id: str) -> FanOutState | None:
        try:
            return await (await self._publisher.ahandle(fan_out_id)).aprogress()
        except FanOutUnknown:
            return None

    async def _handle(self, fan_out_id: str, deadline: float | None) -> FanOutHandle:
        wait_s = POLL_MIN_S
        while True:
            try:
                return await self._publisher.ahandle(fan_out_id)
            except FanOutUnknown:
                left_s = _left(deadline)
                if left_s is not None and left_s <= 0:
                    raise TimeoutError(
                        f"no task of fan-out {fan_out_id} has a result yet; is a member running?"
                    ) from None
                await asyncio.sleep(wait_s)
                wait_s = min(POLL_MAX_S, wait_s * 1.5)

    async def _read(self, config: RunnableConfig) -> Superstep:
        return await read_superstep(self.graph, _thread_id(config))

    def _output(self, superstep: Superstep) -> Any:
        values, keys = superstep.snapshot.values, self.graph.output_channels
        output = values if isinstance(keys, str) else {key: values[key] for key in keys if key in values}
        questions = superstep.questions
        return {**output, "__interrupt__": questions} if questions and isinstance(output, dict) else output


def _check_given(publisher: object, saver: object) -> None:
    problems = []
    if publisher is None:
        problems.append("publisher: a Publisher with the fleet's topic and database_url, not None")
    if not isinstance(saver, BaseCheckpointSaver):
        problems.append(f"saver: a checkpointer that the members can reach, not {saver!r:.40}")
    if problems:
        raise GraphRefused(problems)


def _check_ended(superstep: Superstep, thread_id: Any) -> None:
    """Return if the graph has ended there, or asks a human; what else there is would pass for a result."""
    if superstep.step < -1:
        raise GraphRefused(
            [f"thread {thread_id!r} has no checkpoint: it was never started, or with a saver of another database"]
        )
    for task in superstep.unfinished:
        if task.task.error is not None:
            raise NodeFailed(task.path, str(task.task.error))
    if superstep.unfinished and not superstep.questions:
        raise StillRunning(
            f"thread {thread_id!r} has not come to its end, and nothing of it is on the fleet: its caller is at work, "
            "or died, or somebody updated its state; ainvoke(None, config) goes on where it stands"
        )


def _within_a_node() -> bool:
    try:
        configurable = get_config().get("configurable", {})
    except RuntimeError:
        return False
    return any(key.startswith("__pregel") for key in configurable)


def _addressed(input: Any, superstep: Superstep) -> Any:
    """An answer to the only question, with its id: the first releases take landed tasks for questions, too."""
    if not isinstance(input, Command) or input.resume is None or len(superstep.questions) != 1:
        return input
    (question,) = superstep.questions
    if isinstance(input.resume, dict) and question.id in input.resume:
        return input
    return replace(input, resume={question.id: input.resume})


def _thread_id(config: RunnableConfig) -> Any:
    return config.get("configurable", {}).get("thread_id")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
