"""What a distributed graph does when nodes fail, finishers die and come twice; on a fleet without servers."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError, InvalidUpdateError
from langgraph.graph import START, StateGraph

from fanfold_consumer import Sends, TaskContext
from fanfold_consumer.langgraph import NodeFailed
from fanfold_consumer.langgraph.landing import land, landings
from fanfold_consumer.langgraph.parked import read_superstep
from fanfold_consumer.langgraph.probes import subgraphs_resume
from fanfold_consumer.retry import HandlerFailed
from fanfold_schemas import VectorClock, derive_fold_task_id
from tests.support.distributed import CONFIG, Setup, in_a_loop
from tests.support.graph_case import Builder, Numbers, map_reduce, square
from tests.support.graphs import CASES, history

try:
    from langgraph.errors import NodeError
except ImportError:  # before 1.2
    NodeError = None  # type: ignore[assignment, misc]


# Failures.


def failing(times: int, **options: Any) -> tuple[Builder, Counter[int]]:
    """The last of two fails so many times."""
    calls: Counter[int] = Counter()

    def work(arg: Any) -> Any:
        calls[arg["i"]] += 1
        if arg["i"] == 1 and calls[1] <= times:
            raise ValueError("one is bad")
        return {"found": [arg["i"]]}

    return map_reduce(work, **options), calls


@in_a_loop
async def test_a_node_that_failed_for_good_fails_the_run_and_is_all_that_runs_again() -> None:
    builder, calls = failing(2)
    setup = Setup(builder)
    with pytest.raises(NodeFailed, match="node 'work' failed: ValueError: one is bad") as caught:
        await setup.graph.ainvoke({"n": 2}, CONFIG)
    assert caught.value.node == "work"
    with pytest.raises(NodeFailed):
        await setup.graph.result(CONFIG)
    assert (await setup.graph.ainvoke(None, CONFIG))["total"] == 1
    assert calls == {0: 2, 1: 4}


def test_an_attempt_is_given_what_the_one_before_it_was_given() -> None:
    given = []

    def work(arg: Any) -> Any:
        given.append(dict(arg))
        arg["i"] = -1
        raise ValueError("again")

    async def run() -> None:
        setup = Setup(map_reduce(work))
        setup.fleet.hold = True
        await setup.graph.start({"n": 1}, CONFIG)
        ((send,),) = setup.fleet.sends()
        handler = setup.fleet.registry.get("graph:work")
        assert handler is not None
        for attempt in (1, 2):
            context = TaskContext(send.task_id or "", "t1", "f", 0, "graph:work", 1, attempt, VectorClock({}))
            with pytest.raises(ValueError, match="again"):
                await handler.function(send.arg, context)

    asyncio.run(run())
    assert given == [{"i": 0}, {"i": 0}]


@in_a_loop
async def test_an_ordinary_node_that_fails_on_a_member_fails_the_run_and_is_all_that_runs_again() -> None:
    calls: Counter[str] = Counter()

    def last(state: Any) -> Any:
        calls["last"] += 1
        if calls["last"] == 1:
            raise ValueError("not yet")
        return {"total": 7}

    builder = map_reduce()
    builder.add_node("last", last)
    builder.add_edge("reduce", "last")
    setup = Setup(builder)
    with pytest.raises(NodeFailed, match="node 'last' failed: ValueError: not yet"):
        await setup.graph.ainvoke({"n": 2}, CONFIG)
    assert (await setup.graph.ainvoke(None, CONFIG))["total"] == 7
    assert calls["last"] == 2


@in_a_loop
async def test_two_values_for_a_key_that_takes_one_are_langgraphs_own_error() -> None:
    with pytest.raises(InvalidUpdateError, match="total"):
        await Setup(map_reduce(lambda arg: {"total": arg["i"]})).graph.ainvoke({"n": 2}, CONFIG)


@pytest.mark.skipif(NodeError is None, reason="this LangGraph has no error handlers")
@in_a_loop
async def test_the_graphs_error_handler_handles_what_failed_on_the_fleet() -> None:
    seen: list[str] = []

    def handle(state: Any, error: NodeError) -> Any:
        seen.append(str(error.error))
        return {"found": [-1]}

    builder, _ = failing(100, error_handler=handle)
    setup = Setup(builder)
    output = await setup.graph.ainvoke({"n": 3}, CONFIG)
    assert sorted(output["found"]) == [-1, 0, 2]
    assert "ValueError: one is bad" in seen[0]


@pytest.mark.parametrize("limit", range(1, 12))
def test_a_recursion_limit_ends_a_run_where_it_would_end_in_one_process(limit: int) -> None:
    case = CASES["a-loop-of-supersteps"]
    config: RunnableConfig = {**CONFIG, "recursion_limit": limit}

    async def run(graph: Any, compiled: Any) -> Any:
        try:
            output = await graph.ainvoke(case.given, config)
        except GraphRecursionError as error:
            output = str(error).split("reached")[0]
        return output, await history(compiled, CONFIG)

    async def both() -> None:
        alone = case.graph.compile(checkpointer=InMemorySaver())
        setup = Setup(case.graph)
        assert await run(setup.graph, setup.graph.graph) == await run(alone, alone)

    asyncio.run(both())


@pytest.mark.skipif(not subgraphs_resume(), reason="this LangGraph runs all of a subgraph again")
@in_a_loop
async def test_a_loop_without_end_in_a_subgraph_is_ended_too() -> None:
    inner: Builder = StateGraph(Numbers)
    inner.add_node("work", lambda state: {"rounds": 1})
    inner.add_edge(START, "work")
    builder: Builder = StateGraph(Numbers)
    builder.add_node("outer", inner.compile())
    builder.add_edge(START, "outer")
    builder.add_edge("outer", "outer")
    with pytest.raises(GraphRecursionError):
        await Setup(builder, "outer:work").graph.ainvoke({"n": 1}, {**CONFIG, "recursion_limit": 6})


@pytest.mark.parametrize("where", ["work", "reduce"])
def test_a_node_that_exits_fails_and_ends_no_member(where: str) -> None:
    def leave(state: Any) -> Any:
        sys.exit(3)

    builder = map_reduce(leave) if where == "work" else map_reduce()
    if where == "reduce":
        builder.add_node("leave", leave)
        builder.add_edge("reduce", "leave")

    async def run() -> None:
        with pytest.raises(NodeFailed, match="SystemExit: 3"):
            await Setup(builder).graph.ainvoke({"n": 2}, CONFIG)

    asyncio.run(run())


# Finishing more than once, and dying in between.


async def parked(setup: Setup, given: Any) -> tuple[list[Any], TaskContext]:
    """A run whose tasks have run and are not folded: results, and what the fold is called with."""
    setup.fleet.hold = True
    await setup.graph.start(given, CONFIG)
    fan_out_id = (await read_superstep(setup.graph.graph, "t1")).fan_out_id()
    assert fan_out_id is not None
    results = await setup.fleet.run_tasks(fan_out_id)
    task_id = derive_fold_task_id(fan_out_id)
    return results, TaskContext(task_id, "t1", fan_out_id, -1, "graph", 1, 1, VectorClock({}))


@in_a_loop
async def test_a_second_finisher_of_a_superstep_changes_nothing() -> None:
    setup = Setup(map_reduce())
    results, context = await parked(setup, {"n": 3})
    first, second = setup.finisher(), setup.finisher()
    assert await first.finish(results, context) == {"state": "done"}
    before = await history(setup.graph.graph, CONFIG)
    assert await second.finish(results, context) == {"state": "done"}
    assert await history(setup.graph.graph, CONFIG) == before


@in_a_loop
async def test_two_copies_of_a_fold_on_one_member_run_the_graphs_nodes_once() -> None:
    reduced: Counter[str] = Counter()

    def count(state: Any) -> Any:
        reduced["reduce"] += 1
        return {}

    builder = map_reduce()
    builder.add_node("count", count)
    builder.add_edge("reduce", "count")
    setup = Setup(builder)
    results, context = await parked(setup, {"n": 3})
    finisher = setup.finisher()
    await asyncio.gather(finisher.finish(results, context), finisher.finish(results, context))
    assert reduced["reduce"] == 1


@in_a_loop
async def test_a_finisher_whose_thread_was_given_new_input_changes_nothing() -> None:
    setup = Setup(map_reduce())
    results, context = await parked(setup, {"n": 3})
    await setup.graph.start({"n": 1}, CONFIG)
    before = await history(setup.graph.graph, CONFIG)
    assert await setup.finisher().finish(results, context) == {"state": "superseded"}
    assert await history(setup.graph.graph, CONFIG) == before


@in_a_loop
async def test_a_finisher_that_has_another_database_or_another_graph_does_not_take_that_for_superseded() -> None:
    setup = Setup(map_reduce())
    results, context = await parked(setup, {"n": 3})
    elsewhere = Setup(map_reduce())
    older: Builder = StateGraph(Numbers)
    older.add_node("other", square)
    older.add_edge(START, "other")
    renamed = Setup(older, "other")
    with pytest.raises(HandlerFailed, match="no checkpoint in this member's database"):
        await elsewhere.finisher().finish(results, context)
    renamed.saver = setup.saver
    with pytest.raises(HandlerFailed, match="does not have"):
        await renamed.finisher().finish(results, context)
    assert await setup.finisher().finish(results, context) == {"state": "done"}


@pytest.mark.parametrize("landed", [1, 3])
def test_a_finisher_that_died_with_results_put_down_is_repeated(landed: int) -> None:
    async def run() -> None:
        setup = Setup(map_reduce())
        results, context = await parked(setup, {"n": 3})
        superstep = await read_superstep(setup.graph.graph, "t1")
        await land(setup.saver, landings(setup.blueprint, superstep.parked, results[:landed]))
        assert await setup.finisher().finish(results, context) == {"state": "done"}
        assert (await setup.graph.graph.aget_state(CONFIG)).values["total"] == 5

    asyncio.run(run())


@in_a_loop
async def test_a_finisher_that_died_among_ordinary_nodes_is_repeated_from_there() -> None:
    died: Counter[str] = Counter()

    class Died(BaseException):
        pass

    def die(state: Any) -> Any:
        died["die"] += 1
        if died["die"] == 1:
            raise Died
        return {"rounds": 1}

    def first(state: Any) -> Any:
        died["first"] += 1
        return {}

    builder = map_reduce()
    builder.add_node("first", first)
    builder.add_node("die", die)
    builder.add_edge("reduce", "first")
    builder.add_edge("first", "die")
    setup = Setup(builder)
    results, context = await parked(setup, {"n": 3})
    with pytest.raises(Died):
        await setup.finisher().finish(results, context)
    assert await setup.finisher().finish(results, context) == {"state": "done"}
    assert died == {"first": 1, "die": 2}
    assert (await setup.graph.graph.aget_state(CONFIG)).values["rounds"] == 1


@in_a_loop
async def test_a_finisher_that_died_after_it_parked_again_publishes_the_same_once_more() -> None:
    setup = Setup(CASES["a-loop-of-supersteps"].graph)
    results, context = await parked(setup, {"n": 2, "rounds": 0})
    first = await setup.finisher().finish(results, context)
    assert isinstance(first, Sends)
    again = await setup.finisher().finish(results, context)
    assert first == again
    assert first.fan_out_id not in (None, context.fan_out_id)
    await setup.another_caller().start(None, CONFIG)
    assert first.fan_out_id not in setup.fleet.published, "before its fold was committed, which it makes stale"


@in_a_loop
async def test_a_caller_that_died_before_it_published_goes_on_with_none() -> None:
    setup = Setup(map_reduce())

    async def die(*_: Any, **__: Any) -> None:
        raise ConnectionError("the caller is gone")

    publish, setup.fleet.afan_out = setup.fleet.afan_out, die  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await setup.graph.start({"n": 3}, CONFIG)
    setup.fleet.afan_out = publish  # type: ignore[method-assign]
    assert (await setup.another_caller().ainvoke(None, CONFIG))["total"] == 5


@in_a_loop
async def test_a_caller_that_goes_on_while_a_superstep_is_finished_waits_for_that() -> None:
    setup = Setup(map_reduce())
    results, _ = await parked(setup, {"n": 3})
    superstep = await read_superstep(setup.graph.graph, "t1")
    await land(setup.saver, landings(setup.blueprint, superstep.parked, results))
    before = await history(setup.graph.graph, CONFIG)
    await setup.another_caller().start(None, CONFIG)
    assert await history(setup.graph.graph, CONFIG) == before, "the caller went on beside the finisher"


@in_a_loop
async def test_going_on_with_what_is_on_its_way_publishes_the_same_fan_out() -> None:
    setup = Setup(map_reduce())
    setup.fleet.hold = True
    await setup.graph.start({"n": 3}, CONFIG)
    await setup.another_caller().start(None, CONFIG)
    assert list(setup.fleet.published.values()) == [2]
    setup.fleet.release()
    assert (await setup.graph.result(CONFIG))["found"] == [0, 1, 4]
