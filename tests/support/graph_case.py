"""What a case is, and the graph that most of them are a variation of: numbers fanned out, squared and summed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Send

Builder = Any
"""A `StateGraph`. What its type asks of a node, lambdas and handlers of Sends do not say."""


@dataclass(frozen=True)
class Case:
    """A graph with what it is given, which of its nodes a fleet runs, and where `--graph` finds it."""

    graph: Any
    target: str
    nodes: tuple[str, ...] = ("work",)
    given: Any = field(default_factory=lambda: {"n": 5})
    context: Any = None
    configurable: dict[str, Any] = field(default_factory=dict)


ALL_CASES: dict[str, Case] = {}


def case(**settings: Any) -> Callable[[Callable[[], Any]], Any]:
    """Put what a function builds among the cases. It takes the function's place, where `--graph` finds it."""

    def add(build: Callable[[], Any]) -> Any:
        graph = build()
        target = f"{build.__module__}:{build.__name__}"
        ALL_CASES[build.__name__.replace("_", "-")] = Case(graph, target, **settings)
        return graph

    return add


class Numbers(TypedDict, total=False):
    n: int
    found: Annotated[list[int], operator.add]
    total: int
    rounds: int


def fan(state: Numbers) -> list[Send]:
    return [Send("work", {"i": i}) for i in range(state["n"])]


async def square(arg: Any) -> Any:
    return {"found": [arg["i"] ** 2]}


def reduce(state: Numbers) -> Any:
    return {"total": sum(state["found"])}


def nothing(state: Any) -> Any:
    return {}


def map_reduce(work: Any = square, schema: Any = Numbers, **options: Any) -> Builder:
    builder: Builder = StateGraph(schema)
    builder.add_node("plan", nothing)
    builder.add_node("work", work, **options)
    builder.add_node("reduce", reduce)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", fan, ["work"])
    builder.add_edge("work", "reduce")
    return builder
