"""Small graphs that run twice: in one process, and on a fleet. Both must come to the same, step by step."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from fanfold_consumer.langgraph.probes import subgraphs_resume
from tests.support import graphs_of_flow, graphs_of_state
from tests.support.graph_case import ALL_CASES, Case

CASES = {
    name: case for name, case in ALL_CASES.items() if subgraphs_resume() or not any(":" in node for node in case.nodes)
}
"""Those that this release of LangGraph can distribute, by name."""


def config_of(case: Case, thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **case.configurable}}


async def in_one_process(case: Case, thread_id: str) -> tuple[Any, list[Any]]:
    """What the graph itself comes to, and its history."""
    graph = case.graph.compile(checkpointer=InMemorySaver())
    config = config_of(case, thread_id)
    output = await graph.ainvoke(case.given, config, context=case.context)
    return output, await history(graph, config)


async def history(graph: Any, config: RunnableConfig) -> list[Any]:
    """What each step began with, in order, and what each of its tasks made of that."""
    steps = []
    async for snapshot in graph.aget_state_history(config):
        tasks = [(task.name, task.path, task.result) for task in snapshot.tasks]
        steps.append((snapshot.metadata["step"], snapshot.metadata["source"], snapshot.next, snapshot.values, tasks))
    return steps[::-1]


__all__ = ["CASES", "Case", "config_of", "graphs_of_flow", "graphs_of_state", "history", "in_one_process"]
