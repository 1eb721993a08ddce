"""What a distributed graph does when all goes well, on a fleet without servers: run, ship, and ask humans."""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from fanfold_consumer.langgraph import GraphRefused, NodeFailed, StillRunning
from fanfold_consumer.langgraph.parked import read_superstep
from fanfold_schemas import SchemaError
from tests.support.distributed import CONFIG, Setup, in_a_loop
from tests.support.graph_case import Builder, Numbers, fan, map_reduce
from tests.support.graphs import CASES, config_of, history, in_one_process


@dataclass(frozen=True)
class Undeclared:
    n: int


# Equality, without what only servers can do.


@pytest.mark.parametrize("name", CASES)
def test_a_graph_comes_to_the_same_as_in_one_process(name: str) -> None:
    case = CASES[name]
    config = config_of(case, "t1")

    async def both() -> None:
        expected = await in_one_process(case, "t1")
        setup = Setup(case.graph, *case.nodes)
        output = await setup.graph.ainvoke(case.given, config, context=case.context, timeout=30)
        assert (output, await history(setup.graph.graph, config)) == expected

    asyncio.run(both())


@in_a_loop
async def test_a_thread_may_be_given_new_input_when_its_run_has_ended() -> None:
    setup = Setup(map_reduce())
    await setup.graph.ainvoke({"n": 2}, CONFIG)
    assert (await setup.graph.ainvoke({"n": 3}, CONFIG))["found"] == [0, 1, 0, 1, 4]


@in_a_loop
async def test_a_run_is_started_here_and_its_result_fetched_elsewhere() -> None:
    setup = Setup(map_reduce())
    setup.fleet.hold = True
    await setup.graph.start({"n": 3}, CONFIG)
    result = asyncio.ensure_future(setup.another_caller().result(CONFIG))
    setup.fleet.release()
    assert (await result)["total"] == 5
    assert (await setup.another_caller().result(CONFIG))["total"] == 5


@in_a_loop
async def test_a_wait_that_takes_too_long_is_given_up_and_nothing_is_lost() -> None:
    setup = Setup(map_reduce())
    setup.fleet.hold = True
    with pytest.raises(TimeoutError):
        await setup.graph.ainvoke({"n": 3}, CONFIG, timeout=0.01)
    setup.fleet.release()
    assert (await setup.graph.result(CONFIG))["total"] == 5


@in_a_loop
async def test_what_has_not_ended_and_is_not_on_the_fleet_is_no_result() -> None:
    setup = Setup(map_reduce())
    with pytest.raises(GraphRefused, match="'t1' has no checkpoint"):
        await setup.graph.result(CONFIG)
    # As far as a caller has come that dies before it parks anything.
    await map_reduce().compile(setup.saver, interrupt_before="*").ainvoke({"n": 3}, CONFIG)
    with pytest.raises(StillRunning, match="not come to its end"):
        await setup.graph.result(CONFIG)
    assert (await setup.graph.ainvoke(None, CONFIG))["total"] == 5


# What is shipped.


@in_a_loop
async def test_tasks_have_the_ids_of_langgraph_and_state_only_where_an_edge_reads_it() -> None:
    plain, reading = Setup(map_reduce()), Setup(CASES["a-conditional-edge-that-reads-state"].graph)
    for setup, has_state in ((plain, False), (reading, True)):
        setup.fleet.hold = True
        await setup.graph.start({"n": 2}, CONFIG)
        superstep = await read_superstep(setup.graph.graph, "t1")
        (sends,) = setup.fleet.sends()
        assert [send.task_id for send in sends] == [task.task.id for task in superstep.parked]
        assert [send.node for send in sends] == ["graph:work"] * 2
        assert [("state" in send.arg) for send in sends] == [has_state] * 2


@in_a_loop
async def test_an_arg_that_cannot_travel_is_refused_where_it_is_published() -> None:
    builder = map_reduce()
    builder.branches["plan"].clear()
    builder.add_conditional_edges("plan", lambda state: [Send("work", {"deep": Undeclared(1)})], ["work"])
    with pytest.raises(SchemaError, match=r"\$\.deep: a tests.unit.test_langgraph_distribute.Undeclared"):
        await Setup(builder).graph.ainvoke({"n": 1}, CONFIG)


@in_a_loop
async def test_a_result_that_cannot_travel_fails_its_node() -> None:
    setup = Setup(map_reduce(lambda arg: {"found": [object()]}))
    with pytest.raises(NodeFailed, match="what node 'work' returned cannot travel"):
        await setup.graph.ainvoke({"n": 1}, CONFIG)


# Humans.


class Asked(TypedDict, total=False):
    n: int
    found: Annotated[list[Any], operator.add]


def asking(*, beside: bool = False) -> tuple[Builder, Counter[int]]:
    """Odd ones ask twice."""
    calls: Counter[int] = Counter()

    def work(arg: Any) -> Any:
        calls[arg["i"]] += 1
        if arg["i"] % 2 == 0:
            return {"found": [arg["i"]]}
        first = interrupt({"first": arg["i"]})
        second = interrupt({"second": first})
        return {"found": [[arg["i"], first, second]]}

    builder: Builder = StateGraph(Asked)
    builder.add_node("work", work)
    builder.add_node("last", lambda state: {"found": ["end"]})
    builder.add_node("beside", lambda state: {"found": [interrupt("beside")]})
    ends = ["work", "beside"] if beside else ["work"]
    builder.add_conditional_edges(START, lambda state: [*fan(state), *ends[1:]], ends)
    builder.add_edge("work", "last")
    return builder, calls


@in_a_loop
async def test_a_mapped_node_asks_a_human_and_goes_on_with_the_answers() -> None:
    builder, calls = asking()
    setup = Setup(builder)
    output = await setup.graph.ainvoke({"n": 2}, CONFIG)
    assert [question.value for question in output["__interrupt__"]] == [{"first": 1}]
    output = await setup.graph.ainvoke(Command(resume="a"), CONFIG)
    assert [question.value for question in output["__interrupt__"]] == [{"second": "a"}]
    output = await setup.graph.ainvoke(Command(resume="b"), CONFIG)
    assert output == {"n": 2, "found": [0, [1, "a", "b"], "end"]}
    assert calls[0] == 2, "what had its writes ran again"  # every task comes twice here


@in_a_loop
async def test_several_questions_are_answered_one_by_one_by_their_ids_as_in_one_process() -> None:
    builder, _ = asking()
    setup, alone = Setup(builder), builder.compile(checkpointer=InMemorySaver())
    said = []
    for graph in (setup.graph, alone):
        outputs = [await graph.ainvoke({"n": 4}, CONFIG)]
        while questions := outputs[-1].pop("__interrupt__", []):
            asked = min(questions, key=lambda question: repr(question.value))
            outputs.append(sorted(repr(question.value) for question in questions))
            outputs.append(await graph.ainvoke(Command(resume={asked.id: repr(asked.value)}), CONFIG))
        said.append(outputs)
    assert said[0] == said[1]
    assert len(said[0]) == 9


@in_a_loop
async def test_an_ordinary_node_beside_them_asks_a_human() -> None:
    setup = Setup(asking(beside=True)[0])
    output = await setup.graph.ainvoke({"n": 1}, CONFIG)
    assert [question.value for question in output["__interrupt__"]] == ["beside"]
    assert (await setup.graph.ainvoke(Command(resume="yes"), CONFIG))["found"] == ["yes", 0, "end"]


@in_a_loop
async def test_an_answer_that_comes_while_tasks_are_on_the_fleet_is_refused() -> None:
    setup = Setup(asking(beside=True)[0])
    setup.fleet.hold = True
    await setup.graph.start({"n": 1}, CONFIG)
    with pytest.raises(StillRunning, match="waits for fan-out"):
        await setup.graph.start(Command(resume="yes"), CONFIG)


@in_a_loop
async def test_a_question_from_a_subgraph_within_a_mapped_node_is_refused() -> None:
    inner: Builder = StateGraph(Numbers)
    inner.add_node("ask", lambda state: {"found": [interrupt("?")]})
    inner.add_edge(START, "ask")
    with pytest.raises(NodeFailed, match="a subgraph within node 'work' interrupted"):
        await Setup(map_reduce(inner.compile())).graph.ainvoke({"n": 1}, CONFIG)
