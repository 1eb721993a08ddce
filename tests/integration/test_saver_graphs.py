"""LangGraph's own ways with a checkpointer: runs that overtake each other, time travel, updates of the past."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypedDict, TypeVar

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from fanfold_consumer.langgraph import FanfoldSaver, ForkRefused
from tests.support.checkpoints import at, with_saver

T = TypeVar("T")


class State(TypedDict):
    seen: Annotated[list[str], operator.add]


async def _first(state: State) -> State:
    return {"seen": ["first"]}


async def _second(state: State) -> State:
    return {"seen": ["second"]}


def _graph(saver: BaseCheckpointSaver[Any]) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("first", _first)
    builder.add_node("second", _second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver)


def _same_as_in_memory(dsn: str, scenario: Callable[[BaseCheckpointSaver[Any]], Coroutine[Any, Any, T]]) -> T:
    """What a scenario comes to, with a saver that refuses nothing and has one clock, and with ours."""
    ours = with_saver(dsn, scenario)
    assert ours == asyncio.run(scenario(InMemorySaver()))
    return ours


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_thread_is_replayed_from_an_old_checkpoint(empty_database: str, durability: str) -> None:
    async def scenario(saver: BaseCheckpointSaver[Any]) -> list[Any]:
        graph = _graph(saver)
        for word in ("a", "b"):
            await graph.ainvoke({"seen": [word]}, at("t"), durability="sync")
        history = [state async for state in graph.aget_state_history(at("t"))]
        before_second = next(s for s in history if s.next == ("second",) and "b" not in s.values["seen"])

        replayed = await graph.ainvoke(None, before_second.config, durability=durability)
        state = await graph.aget_state(at("t"))
        went_on = await graph.ainvoke({"seen": ["c"]}, at("t"), durability=durability)
        return [replayed["seen"], state.values["seen"], went_on["seen"]]

    replayed, state, went_on = _same_as_in_memory(empty_database, scenario)
    assert replayed == state == ["a", "first", "second"]
    assert went_on == ["a", "first", "second", "c", "first", "second"]


def test_an_old_checkpoint_is_updated_and_run_on_from(empty_database: str) -> None:
    async def scenario(saver: BaseCheckpointSaver[Any]) -> list[Any]:
        graph = _graph(saver)
        await graph.ainvoke({"seen": ["a"]}, at("t"))
        history = [state async for state in graph.aget_state_history(at("t"))]
        before_second = next(state for state in history if state.next == ("second",))

        forked = await graph.aupdate_state(before_second.config, {"seen": ["edited"]}, as_node="first")
        result = await graph.ainvoke(None, forked)
        return [result["seen"], (await graph.aget_state(at("t"))).values["seen"]]

    result, state = _same_as_in_memory(empty_database, scenario)
    assert result == state
    assert "edited" in result


def test_an_update_of_the_head_is_refused_if_it_is_not_the_head_any_more(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        graph = _graph(saver)
        await graph.ainvoke({"seen": ["a"]}, at("t"))
        overtaking = _Overtaken(saver.conn, serde=saver.serde)
        overtaking.meanwhile = lambda: graph.aupdate_state(at("t"), {"seen": ["theirs"]})

        with pytest.raises(ForkRefused):
            await _graph(overtaking).aupdate_state(at("t"), {"seen": ["ours"]})

        assert (await graph.aget_state(at("t"))).values["seen"][-1] == "theirs"

    with_saver(empty_database, body)


class _Overtaken(FanfoldSaver):
    """Somebody else puts a checkpoint right before its own first put."""

    meanwhile: Any = None

    async def aput(self, *args: Any) -> Any:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().aput(*args)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_run_whose_put_is_refused_raises_it(empty_database: str, durability: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        graph = _graph(saver)
        await graph.ainvoke({"seen": ["a"]}, at("t"))
        overtaken = _Overtaken(saver.conn, serde=saver.serde)
        overtaken.meanwhile = lambda: graph.aupdate_state(at("t"), {"seen": ["theirs"]})

        with pytest.raises(ForkRefused):
            await _graph(overtaken).ainvoke({"seen": ["ours"]}, at("t"), durability=durability)

        assert (await graph.aget_state(at("t"))).values["seen"] == ["a", "first", "second", "theirs"]

    with_saver(empty_database, body)


def test_a_checkpoint_is_copied_as_langgraph_copies_it(empty_database: str) -> None:
    async def body(saver: FanfoldSaver) -> None:
        graph = _graph(saver)
        await graph.ainvoke({"seen": ["a"]}, at("t"))
        before = await graph.aget_state(at("t"))

        await graph.aupdate_state(at("t"), None, as_node="__copy__")

        after = await graph.aget_state(at("t"))
        assert after.values == before.values
        assert after.config != before.config
        assert after.metadata["source"] == "fork"

    with_saver(empty_database, body)


def _asks(state: State) -> State:
    return {"seen": [interrupt("which?")]}


def _with_a_subgraph_that_asks(saver: BaseCheckpointSaver[Any]) -> Any:
    inner: Any = StateGraph(State)
    inner.add_node("before", _second)
    inner.add_node("asks", _asks)
    inner.add_edge(START, "before")
    inner.add_edge("before", "asks")
    outer: Any = StateGraph(State)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    return outer.compile(checkpointer=saver)


def test_a_subgraph_that_was_interrupted_is_resumed_and_replayed(empty_database: str) -> None:
    async def scenario(saver: BaseCheckpointSaver[Any]) -> list[Any]:
        graph = _with_a_subgraph_that_asks(saver)
        await graph.ainvoke({"seen": ["a"]}, at("t"))
        asked = await graph.aget_state(at("t"), subgraphs=True)
        answered = await graph.ainvoke(Command(resume="this"), at("t"))
        # Back to the question, from the subgraph's own checkpoint.
        await graph.ainvoke(None, asked.tasks[0].state.config)
        again = await graph.ainvoke(Command(resume="that"), at("t"))
        return [answered["seen"], again["seen"], (await graph.aget_state(at("t"))).values["seen"]]

    answered, _, _ = _same_as_in_memory(empty_database, scenario)
    assert answered[-1] == "this"
