"""A graph that maps 100 `Send`s to an async node, in one process, with AsyncPostgresSaver; some graphs at once.

Tried: one saver for all graphs (slower: it serialises on a lock of its own, flushes included), one per graph on a pool
(kept), one per graph on a connection in pipeline mode (no less processor time, no faster). How many graphs run at once
is an argument, and is tried in each run of the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
import os
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.contenders.peer import ARGUMENTS, check_joined, end_cleanly_on_sigterm, serve

# At least one for each of the graphs.
_WARM_UP = 16


class State(TypedDict):
    """What a checkpoint holds. LangGraph applies writes in the order of their Sends, whatever order they end in."""

    results: Annotated[list[str], operator.add]


async def work(argument: str) -> dict[str, list[str]]:
    return {"results": [argument]}


def fan_out(_: State) -> list[Send]:
    return [Send("work", argument) for argument in ARGUMENTS]


def compiled(saver: Any) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("work", work)
    builder.add_conditional_edges(START, fan_out, ["work"])
    builder.add_edge("work", END)
    return builder.compile(checkpointer=saver)


class Graphs:
    """As many compiled graphs as there are to run at once, each with a saver of its own.

    Args:
        durability: "async", LangGraph's default, stores each task's result; "exit" only the state at the end, so that
            what a crash interrupts is lost.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], graphs: Sequence[Any], durability: str) -> None:
        self._pool = pool
        self._graphs = graphs
        self._durability = durability

    @classmethod
    async def open(cls, dsn: str, number: int, durability: str) -> Graphs:
        # As the saver's own `from_conn_string` connects.
        settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            dsn, min_size=number, max_size=number, kwargs=settings, open=False
        )
        await pool.open(wait=True)
        savers = [AsyncPostgresSaver(pool) for _ in range(number)]
        await savers[0].setup()
        return cls(pool, [compiled(saver) for saver in savers], durability)

    async def run(self, fan_outs: int) -> float:
        threads = [{"configurable": {"thread_id": str(uuid.uuid4())}} for _ in range(fan_outs)]
        waiting = iter(threads)

        async def one_after_another(graph: Any) -> None:
            for thread in waiting:
                await graph.ainvoke({"results": []}, thread, durability=self._durability)

        began = time.perf_counter()
        await asyncio.gather(*map(one_after_another, self._graphs))
        took = time.perf_counter() - began
        for thread in threads:
            # As it was stored.
            check_joined((await self._graphs[0].aget_state(thread)).values["results"])
        return took

    async def close(self) -> None:
        await self._pool.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", type=int, required=True)
    parser.add_argument("--durability", choices=["async", "exit"], default="async")
    options = parser.parse_args()
    end_cleanly_on_sigterm()
    with asyncio.Runner() as runner:
        graphs = runner.run(Graphs.open(os.environ["DATABASE_URL"], options.graphs, options.durability))
        try:
            runner.run(graphs.run(_WARM_UP))
            serve(lambda fan_outs: runner.run(graphs.run(fan_outs)))
        finally:
            runner.run(graphs.close())


if __name__ == "__main__":
    main()
