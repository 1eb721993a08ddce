"""The fold of a superstep's fan-out: the only one that finishes it.

Results become pending writes, then the graph goes on from its checkpoint, here, until it ends or parks again. What it
parks leaves as the fold's own Sends, in the transaction that stores the fold's result.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import psycopg
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from fanfold_consumer.context import Sends, TaskContext
from fanfold_consumer.langgraph.blueprint import Blueprint
from fanfold_consumer.langgraph.errors import NodeFailed
from fanfold_consumer.langgraph.landing import asks, land, landings
from fanfold_consumer.langgraph.outcome import Outcome, graph_failed, node_failed, out_of_steps
from fanfold_consumer.langgraph.parked import (
    Superstep,
    landed_run,
    read_states,
    read_superstep,
    sends_of,
    task_id_of,
)
from fanfold_consumer.langgraph.parking import failure, latest_run
from fanfold_consumer.langgraph.run import MARK, Run, config_of, current_run
from fanfold_consumer.langgraph.saver_heads import ForkRefused
from fanfold_consumer.retry import HandlerFailed, describe
from fanfold_schemas import SchemaError, VectorClock
from fanfold_sql import DeadLetterFilter, Store

Graph = CompiledStateGraph[Any, Any, Any, Any]
FAILURES_TOLD_MAX = 1000
STEPWISE_MAX = 32
"""With so few steps left of its recursion limit, a run is stopped after each, and ends where it would in one process.
With more left, a loop that neither parks nor ends may take up to twice as many as its limit before it does."""


class FinishedElsewhere(Exception):
    """Another finisher of the same thread is at work, on a member that lost its partition, say. Look again later."""


NOT_THE_GRAPHS = (psycopg.Error, OSError, ForkRefused, FinishedElsewhere)
"""What goes wrong with checkpoints: a finisher is tried again, for as long as it takes."""


class Finisher:
    """Finishes supersteps of one graph. `store` is the fleet's, asked why tasks failed."""

    def __init__(self, blueprint: Blueprint, saver: BaseCheckpointSaver[Any], store: Store) -> None:
        self._blueprint = blueprint
        self._saver = saver
        self._store = store
        self._graphs: dict[tuple[str, ...], Graph] = {}
        self._reader = self._graph(())
        self._threads: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def finish(self, results: list[Any], context: TaskContext) -> Outcome | Sends:
        """The fold handler. Errors of the graph are outcomes; what is raised is for the fleet to try again.

        Raises:
            FinishedElsewhere, ForkRefused: there is another finisher. Whoever comes second finds its work done.
            HandlerFailed: a result, or what is parked next, holds what cannot travel.
        """
        # Copies of a fold come to one member, being keyed by their thread. Two at once would run the graph's nodes
        # twice; across members that can happen, and the saver sees to it that only one of them counts.
        async with self._threads.setdefault(context.thread_id, asyncio.Lock()):
            superstep = await self._read(context.thread_id)
            if superstep.fan_out_id() == context.fan_out_id and superstep.run is not None:
                return await self._land(superstep.run, superstep, results, context)
            if context.fan_out_id not in superstep.finishers():
                await self._check_superseded(superstep, context)
                return {"state": "superseded"}
            # An earlier attempt of this fold got so far, and its member died.
            run = superstep.run or await self._latest_run(context.thread_id)
            if superstep.interrupted_midway:
                return await self._go_on(run, superstep, context, None)
            return await self._conclude(run, superstep)

    async def _check_superseded(self, superstep: Superstep, context: TaskContext) -> None:
        """Return if the thread is elsewhere; raise if it only looks like that from here. Then a redrive mends it."""
        if superstep.step < -1:
            raise HandlerFailed(
                "E_ARG",
                f"thread {context.thread_id!r} has no checkpoint in this member's database: give `fanfold consume "
                "--checkpoint-url` that of the caller's saver, then redrive",
            )
        run = await landed_run(self._saver, superstep.snapshot)
        if run is not None and superstep.fan_out_id_of(run["seq"]) == context.fan_out_id:
            raise HandlerFailed(
                "E_NODE",
                f"thread {context.thread_id!r} is parked at nodes that this member's graph does not have: run the "
                "caller's release of the graph, then redrive",
            )

    async def _land(self, run: Run, superstep: Superstep, results: list[Any], context: TaskContext) -> Outcome | Sends:
        """Put down the results, and go on if nothing is in the way."""
        try:
            landed = landings(self._blueprint, superstep.parked, results)
        except SchemaError as error:
            raise HandlerFailed("E_ARG", f"a result cannot be read: {error}") from error
        await land(self._saver, landed)
        if context.failed or context.missing:
            return await self._go_on_without(await self._failures(superstep, results, context), run, superstep, context)
        if superstep.questions or any(map(asks, results)):
            return {"state": "interrupted"}
        return await self._go_on(run, superstep, context, None)

    async def _go_on_without(
        self, failures: dict[str, tuple[str, str]], run: Run, superstep: Superstep, fold: TaskContext
    ) -> Outcome | Sends:
        """Have the failed nodes fail in the graph, if it handles errors at all."""
        if failures and not self._blueprint.handles_errors():
            return node_failed(*next(iter(failures.values())))
        # What asks a human beside them is parked once more, as another task. Without failures an earlier attempt has
        # told the graph of them already, under the same number.
        run = {**run, "round": run["seq"] + 1}
        raised: dict[str, Any] = {
            task.interrupt.id: failure(run, *failures[task.task.id])
            for task in superstep.parked
            if task.task.id in failures
        }
        return await self._go_on(run, superstep, fold, Command(resume=raised) if raised else None)

    async def _go_on(
        self, run: Run, superstep: Superstep, fold: TaskContext, answers: Command[Any] | None
    ) -> Outcome | Sends:
        graph = self._graph(tuple(run["nodes"]))
        run = {**run, "seq": run["seq"] + 1, "by": fold.fan_out_id}
        config = config_of(run, self._blueprint.table)
        config["metadata"][MARK] = fold.fan_out_id
        context = self._blueprint.table.load(run["context"])
        token = current_run.set(run)
        try:
            while True:
                # A lower recursion limit would be that of every graph within a node, too: so steps are counted here.
                stepwise = run["stop"] - superstep.step <= STEPWISE_MAX
                options: dict[str, Any] = {"interrupt_after": "*"} if stepwise else {}
                await graph.ainvoke(answers, config, context=context, **options)
                before, superstep = superstep, await self._read(fold.thread_id)
                if not superstep.interrupted_midway or superstep.step >= run["stop"]:
                    return await self._conclude(run, superstep)
                if not stepwise or superstep.step == before.step:
                    raise FinishedElsewhere(f"thread {fold.thread_id!r} moves while it is finished")
                answers = None
        except Exception as error:
            return await self._failed(fold.thread_id, error)
        finally:
            current_run.reset(token)

    async def _conclude(self, run: Run, superstep: Superstep) -> Outcome | Sends:
        """What it means that the graph stands here."""
        if superstep.step >= run["stop"]:
            return out_of_steps(run["limit"])
        failed = [task for task in superstep.unfinished if task.task.error is not None]
        if failed:
            return node_failed(failed[0].path, str(failed[0].task.error))
        if superstep.parked:
            return await self._dispatch(superstep)
        return {"state": "interrupted" if superstep.snapshot.next else "done"}

    async def _failed(self, thread_id: str, error: Exception) -> Outcome:
        """What the graph failed with; raises the error if it was none of the graph's, but what its checkpoints need."""
        if isinstance(error, NodeFailed):
            return node_failed(error.node, error.reason)
        failed = [task for task in (await self._read(thread_id)).unfinished if task.task.error is not None]
        if failed:
            return node_failed(failed[0].path, describe(error))
        if isinstance(error, NOT_THE_GRAPHS):
            raise error
        return graph_failed(error)

    async def _failures(
        self, superstep: Superstep, results: list[Any], context: TaskContext
    ) -> dict[str, tuple[str, str]]:
        """Node and reason of each parked task that failed for good, by LangGraph's task id."""
        there = {result["task"] for result in results}
        found = DeadLetterFilter(fan_out_id=context.fan_out_id, unresolved=True)
        letters = await self._store.list_dead_letters(found, limit=FAILURES_TOLD_MAX)
        reasons = {letter.task_id: letter.error for letter in letters}
        return {
            task.task.id: (task.path, reasons.get(task_id_of(task)) or "no dead letter says why")
            for task in superstep.parked
            if task.task.id not in there
        }

    async def _latest_run(self, thread_id: str) -> Run:
        """The run that was parked in the thread last."""
        async for saved in self._saver.alist({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}):
            found = latest_run(i.value for _, at, value in saved.pending_writes or () if at == INTERRUPT for i in value)
            if found is not None:
                return found
        raise HandlerFailed("E_ARG", "the checkpoints that this superstep was parked in are gone: they were pruned")

    async def _read(self, thread_id: str) -> Superstep:
        return await read_superstep(self._reader, thread_id)

    def _graph(self, nodes: tuple[str, ...]) -> Graph:
        if nodes not in self._graphs:
            self._graphs[nodes] = self._blueprint.orchestrating(nodes, self._saver)
        return self._graphs[nodes]

    async def _dispatch(self, superstep: Superstep) -> Sends:
        try:
            states = await read_states(self._blueprint, self._saver, superstep)
            sends = await asyncio.to_thread(sends_of, self._blueprint, superstep, states)
        except SchemaError as error:
            raise HandlerFailed("E_RESULT", f"what is parked next cannot travel: {error}") from error
        fan_out_id = superstep.fan_out_id()
        return Sends(
            sends,
            fold=self._blueprint.name,
            value={"state": "parked", "next": fan_out_id},
            base=VectorClock(superstep.base()),
            fan_out_id=fan_out_id,
        )
