"""A graph on a fleet without servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from fanfold_consumer.langgraph import Blueprint, FleetGraph, distribute, register_graph
from fanfold_consumer.langgraph.finish import Finisher
from tests.support.local_fleet import LocalFleet

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t1"}}


class Setup:
    """A graph and a fleet for it."""

    def __init__(self, graph: Any, *nodes: str, **options: Any) -> None:
        self.fleet = LocalFleet()
        self.saver = InMemorySaver()
        self.blueprint = Blueprint(graph, **options)
        register_graph(self.fleet.registry, self.blueprint, self.saver, self.fleet)  # type: ignore[arg-type]
        self.nodes = nodes or ("work",)
        self.graph = self.another_caller()

    def another_caller(self) -> FleetGraph:
        """As another process would have it."""
        return distribute(self.blueprint, nodes=self.nodes, publisher=self.fleet, saver=self.saver)  # type: ignore[arg-type]

    def finisher(self) -> Finisher:
        """As another member would have it."""
        return Finisher(self.blueprint, self.saver, self.fleet)  # type: ignore[arg-type]


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine function."""

    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    run.__name__ = test.__name__
    return run
