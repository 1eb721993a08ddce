"""Cases: what a graph's state is made of. Reducers, messages, models, schemas, and what a run is given beside it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import BaseModel

from tests.support.graph_case import Builder, Numbers, case, fan, reduce, square


def longest(left: str, right: str) -> str:
    return max(left, right, key=lambda text: (len(text), text))


def times(left: int, right: int) -> int:
    return (left or 1) * right


class Texts(TypedDict, total=False):
    n: int
    best: Annotated[str, longest]
    product: Annotated[int, times]
    seen: Annotated[set[str], operator.or_]


@case(given={"n": 4, "product": 3})
def reducers_of_ones_own() -> Any:
    def work(arg: Any) -> Any:
        return {"best": "x" * arg["i"], "product": arg["i"] + 1, "seen": {str(arg["i"])}}

    def route(state: Texts) -> str:
        # A product that began at 3 tells whether the state came through as it was.
        return "far" if state["product"] == 6 else "near"

    builder: Builder = StateGraph(Texts)
    builder.add_node("start", lambda state: {"product": 1})
    builder.add_node("work", work)
    builder.add_node("far", lambda state: {"best": "far"})
    builder.add_node("near", lambda state: {"best": "nearest"})
    builder.add_edge(START, "start")
    builder.add_conditional_edges("start", fan, ["work"])
    builder.add_conditional_edges("work", route, ["far", "near"])
    return builder


class Chat(TypedDict, total=False):
    n: int
    messages: Annotated[list[AnyMessage], add_messages]


@case(given={"n": 3, "messages": [HumanMessage("count", id="h")]})
def messages() -> Any:
    def work(arg: Any) -> Any:
        asked = arg["messages"][0]
        calls = [{"name": "add", "args": {"i": arg["i"]}, "id": f"c{arg['i']}", "type": "tool_call"}]
        return {"messages": [AIMessage(f"{asked.content} {arg['i']}", id=f"m{arg['i']}", tool_calls=calls)]}

    builder: Builder = StateGraph(Chat)
    builder.add_node("work", work)
    builder.add_node("tidy", lambda state: {"messages": [RemoveMessage(id="m1"), AIMessage("new", id="m2")]})
    builder.add_conditional_edges(
        START,
        lambda state: [Send("work", {"i": i, "messages": state["messages"]}) for i in range(state["n"])],
        ["work"],
    )
    builder.add_edge("work", "tidy")
    return builder


@case(given={"n": 2, "messages": [HumanMessage("hello", id="h")]})
def an_edge_that_reads_messages() -> Any:
    def route(state: Chat) -> str:
        return "last" if isinstance(state["messages"][-1], AIMessage) and len(state["messages"]) == 2 else END

    builder: Builder = StateGraph(Chat)
    builder.add_node("work", lambda arg: {"messages": [AIMessage("x", id=str(arg["i"]))]})
    builder.add_node("last", lambda state: {"messages": [AIMessage("done", id="done")]})
    builder.add_conditional_edges(START, fan, ["work"])
    builder.add_conditional_edges("work", route, ["last", END])
    return builder


class Page(BaseModel):
    url: str
    size: int = 0


class Pages(BaseModel):
    n: int = 0
    pages: Annotated[list[Page], operator.add] = []
    total: int = 0


@case(given={"n": 4})
def pydantic_state() -> Any:
    def work(page: Page) -> Any:
        return {"pages": [Page(url=page.url, size=len(page.url))]}

    def route(state: Pages) -> str:
        return "count" if state.pages and state.pages[-1].size else END

    builder: Builder = StateGraph(Pages)
    builder.add_node("work", work)
    builder.add_node("count", lambda state: {"total": sum(page.size for page in state.pages)})
    builder.add_conditional_edges(
        START, lambda state: [Send("work", Page(url="u" * i)) for i in range(state.n)], ["work"]
    )
    builder.add_conditional_edges("work", route, ["count", END])
    return builder


@dataclass
class Tally:
    n: int = 0
    found: Annotated[list[int], operator.add] = field(default_factory=list)
    total: int = 0


@case(given=Tally(n=3))
def dataclass_state() -> Any:
    builder: Builder = StateGraph(Tally)
    builder.add_node("work", lambda state: {"found": [state.n], "total": state.n + 1})
    builder.add_node("last", lambda state: {"found": [state.total]})
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: "last" if state.total == 4 else END, ["last", END])
    return builder


@case(given=[1, 2])
def state_without_keys() -> Any:
    schema: Any = Annotated[list[int], operator.add]
    builder: Builder = StateGraph(schema)
    builder.add_node("work", lambda arg: [10 * arg[0]])
    builder.add_node("last", lambda state: [len(state)])
    builder.add_conditional_edges(START, lambda state: [Send("work", [i]) for i in state], ["work"])
    builder.add_conditional_edges("work", lambda state: "last" if len(state) == 3 else END, ["last", END])
    return builder


@dataclass(frozen=True)
class Settings:
    factor: int
    tenant: str


@case(context=Settings(3, "acme"), configurable={"user": "u-1"})
def context_and_config() -> Any:
    def work(arg: Any, config: RunnableConfig, runtime: Runtime[Settings]) -> Any:
        marks = len(config["configurable"]["user"]) + config["metadata"]["langgraph_step"]
        return {"found": [arg["i"] * runtime.context.factor + marks + len(config["configurable"]["thread_id"])]}

    def total(state: Numbers, config: RunnableConfig, runtime: Runtime[Settings]) -> Any:
        return {"total": sum(state["found"]) * runtime.context.factor, "rounds": len(config["configurable"]["user"])}

    builder: Builder = StateGraph(Numbers, context_schema=Settings)
    builder.add_node("work", work)
    builder.add_node("reduce", total)
    builder.add_conditional_edges(START, fan, ["work"])
    builder.add_edge("work", "reduce")
    return builder


class Narrow(TypedDict):
    n: int


class Wide(TypedDict, total=False):
    total: int


@case()
def input_and_output_schemas() -> Any:
    builder: Builder = StateGraph(Numbers, input_schema=Narrow, output_schema=Wide)
    builder.add_node("work", square)
    builder.add_node("reduce", reduce)
    builder.add_conditional_edges(START, fan, ["work"])
    builder.add_edge("work", "reduce")
    return builder
