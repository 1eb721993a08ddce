"""What would not be the same on a fleet as in one process is refused, and says so."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.managed import RemainingSteps
from langgraph.types import Command

from fanfold_consumer import Registry
from fanfold_consumer.errors import ConfigError
from fanfold_consumer.langgraph import Blueprint, GraphRefused, NodeFailed, distribute, load_graph, register_graph
from fanfold_consumer.langgraph.probes import subgraphs_resume
from tests.support.distributed import CONFIG, Setup, in_a_loop
from tests.support.graph_case import ALL_CASES, Builder, Numbers, map_reduce, reduce, square
from tests.support.local_fleet import LocalFleet


class Marked(TypedDict, total=False):
    n: int


class Untracked(TypedDict, total=False):
    n: int
    session: Annotated[Any, UntrackedValue]


class Managed(TypedDict, total=False):
    n: int
    left: RemainingSteps


def _with_untracked() -> Builder:
    builder: Builder = StateGraph(Untracked)
    builder.add_node("work", square)
    builder.add_edge(START, "work")
    return builder


def _with_managed() -> Builder:
    builder: Builder = StateGraph(Managed)
    builder.add_node("work", square)
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: END, [END])
    return builder


def _named(name: str) -> Builder:
    builder: Builder = StateGraph(Marked)
    builder.add_node(name, square)
    builder.add_edge(START, name)
    return builder


def test_everything_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(GraphRefused) as refused:
        distribute(map_reduce(), nodes=["work"], publisher=None, saver=None)  # type: ignore[arg-type]
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["publisher", "saver"]


@pytest.mark.parametrize(
    ("graph", "nodes", "problem"),
    [
        (map_reduce(), ["wrok"], r"node 'wrok': the graph has plan, reduce, work"),
        (map_reduce(), ["work:inner"], r"node 'work:inner': the graph has"),
        (map_reduce(), [], r"name at least one node"),
        (map_reduce(), "work", r"in a list"),
        (_named("Fetch page"), ["Fetch page"], r"node 'Fetch page'.*rename it"),
        (_with_untracked(), ["work"], r"'session' is an UntrackedValue"),
        (_with_managed(), ["work"], r"conditional edges could read left"),
        (map_reduce().compile(checkpointer=InMemorySaver()), ["work"], r"compiled with a checkpointer"),
        (map_reduce().compile(interrupt_before=["work"]), ["work"], r"compiled with breakpoints"),
        (map_reduce(map_reduce().compile(checkpointer=True)), ["work"], r"a checkpointer of its own"),
        (map_reduce(map_reduce().compile(checkpointer=True)), ["work:work"], r"the graph has"),
        (object(), ["work"], r"is no StateGraph"),
    ],
)
def test_a_graph_that_would_not_be_the_same_on_a_fleet_is_refused(graph: Any, nodes: Any, problem: str) -> None:
    with pytest.raises(GraphRefused, match=problem):
        distribute(graph, nodes=nodes, publisher=LocalFleet(), saver=InMemorySaver())  # type: ignore[arg-type]


@in_a_loop
async def test_a_distributed_graph_within_a_node_of_another_graph_is_refused() -> None:
    setup = Setup(map_reduce())

    async def call(state: Any) -> Any:
        return await setup.graph.ainvoke({"n": 1}, CONFIG)

    outer: Builder = StateGraph(Numbers)
    outer.add_node("call", call)
    outer.add_edge(START, "call")
    with pytest.raises(GraphRefused, match="within a node"):
        await outer.compile().ainvoke({"n": 1})


def test_a_node_of_a_subgraph_is_refused_by_releases_that_run_it_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanfold_consumer.langgraph.blueprint.subgraphs_resume", lambda: False)
    with pytest.raises(GraphRefused, match="'outer:work': this LangGraph runs all of a subgraph again"):
        Blueprint(ALL_CASES["a-subgraph-that-fans-out-in-a-loop"].graph).check_mapped(["outer:work"])


@pytest.mark.parametrize(
    ("config", "context", "problem"),
    [
        ({"configurable": {"thread_id": "no id!"}}, None, "thread_id"),
        ({"configurable": {}}, None, "thread_id"),
        ({"configurable": {"thread_id": "t", "checkpoint_id": "c"}}, None, "aupdate_state"),
        ({"configurable": {"thread_id": "t", "client": object()}}, None, r"config: .*\$\.configurable\.client"),
        ({"configurable": {"thread_id": "t"}}, object(), "context: "),
    ],
)
def test_a_config_or_context_that_cannot_go_to_a_fleet_is_refused(config: Any, context: Any, problem: str) -> None:
    setup = Setup(map_reduce())
    with pytest.raises(GraphRefused, match=problem):
        asyncio.run(setup.graph.start({"n": 1}, config, context=context))
    assert not setup.fleet.published


@pytest.mark.skipif(not subgraphs_resume(), reason="this LangGraph runs all of a subgraph again")
@in_a_loop
async def test_a_command_to_the_parent_from_a_mapped_node_of_a_subgraph_is_refused() -> None:
    inner: Builder = StateGraph(Numbers)
    inner.add_node("work", lambda state: Command(graph=Command.PARENT, goto="reduce"))
    inner.add_edge(START, "work")
    builder: Builder = StateGraph(Numbers)
    builder.add_node("outer", inner.compile(), destinations=("reduce",))
    builder.add_node("reduce", reduce)
    builder.add_edge(START, "outer")
    with pytest.raises(NodeFailed, match=r"Command\.PARENT"):
        await Setup(builder, "outer:work").graph.ainvoke({"n": 1}, CONFIG)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("my_agent", "write MODULE:OBJECT"),
        ("my_agent:", "write MODULE:OBJECT"),
        ("=my_agent:builder", "write MODULE:OBJECT"),
        ("no_such_module_here:builder", "ModuleNotFoundError"),
        ("tests.support.graphs_of_flow:no_such_graph", "AttributeError"),
        ("tests.support.graphs_of_flow:fan", "is no StateGraph"),
        ("count=tests.support.graphs_of_flow:plain", "that of a built-in fold"),
        ("a:b=tests.support.graphs_of_flow:plain", "has a colon"),
    ],
)
def test_a_graph_option_that_names_no_graph_is_refused(target: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_graph(target)


def test_a_graph_option_may_name_a_blueprint_and_give_it_another_name() -> None:
    assert load_graph("tests.support.graphs_of_flow:plain").name == "graph"
    assert load_graph("squares=tests.support.graphs_of_flow:plain").name == "squares"


def test_two_graphs_of_one_name_are_refused_with_all_that_they_have_in_common() -> None:
    registry = Registry()
    blueprint = Blueprint(map_reduce())
    register_graph(registry, blueprint, InMemorySaver(), LocalFleet())  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        register_graph(registry, blueprint, InMemorySaver(), LocalFleet())  # type: ignore[arg-type]
    assert len(caught.value.problems) == 4


def test_a_policy_in_a_nodes_metadata_is_that_of_its_handler_and_is_checked() -> None:
    registry = Registry()
    good = map_reduce(metadata={"fanfold": {"timeout": 7, "retries": 1}})
    register_graph(registry, Blueprint(good), InMemorySaver(), LocalFleet())  # type: ignore[arg-type]
    handler = registry.get("graph:work")
    assert handler is not None
    assert (handler.timeout_s, handler.retry.retries) == (7, 1)
    for policy in ({"timeout": -1}, {"timout": 1}):
        bad = Blueprint(map_reduce(metadata={"fanfold": policy}), "bad")
        with pytest.raises(ConfigError, match="bad:work"):
            register_graph(Registry(), bad, InMemorySaver(), LocalFleet())  # type: ignore[arg-type]
