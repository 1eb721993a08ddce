"""What differs between releases of LangGraph and is told by none of its names: small graphs tell."""

from __future__ import annotations

import functools
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict


class _Steps(TypedDict):
    left: RemainingSteps
    limit: int


class _Asked(TypedDict):
    answer: str


@functools.cache
def default_recursion_limit() -> int:
    """Of a config that names none."""

    def look(state: _Steps, config: RunnableConfig) -> dict[str, int]:
        return {"limit": state["left"] + config["metadata"]["langgraph_step"]}

    builder: Any = StateGraph(_Steps)
    builder.add_node("look", look)
    builder.add_edge(START, "look")
    return int(builder.compile().invoke({})["limit"])


@functools.cache
def subgraphs_resume() -> bool:
    """Whether a subgraph that is resumed leaves its finished tasks alone. The first releases run them again."""
    runs: list[str] = []
    inner: Any = StateGraph(_Asked)
    inner.add_node("finish", lambda state: runs.append("finish"))
    inner.add_node("ask", lambda state: {"answer": interrupt("?")})
    inner.add_edge(START, "finish")
    inner.add_edge(START, "ask")
    outer: Any = StateGraph(_Asked)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "probe"}}
    graph.invoke({"answer": ""}, config)
    graph.invoke(Command(resume="!"), config)
    return len(runs) == 1
