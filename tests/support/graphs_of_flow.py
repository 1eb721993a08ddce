"""Cases: how a graph goes on. Loops, edges, commands, nested fan-outs, subgraphs."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal, TypedDict

import langgraph.types
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send

from tests.support.graph_case import Builder, Numbers, case, fan, map_reduce, reduce, square


@case()
def plain() -> Any:
    return map_reduce()


@case()
def a_sync_node() -> Any:
    return map_reduce(lambda arg: {"found": [arg["i"] + 1]})


@case(given={"n": 40})
def forty_wide() -> Any:
    return map_reduce()


@case(given={"n": 0})
def no_sends() -> Any:
    builder = map_reduce()
    builder.add_conditional_edges("plan", lambda state: "reduce" if not state["n"] else END, ["reduce", END])
    return builder


@case()
def fan_from_start() -> Any:
    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", square)
    builder.add_node("reduce", reduce)
    builder.add_conditional_edges(START, fan, ["work"])
    builder.add_edge("work", "reduce")
    return builder


def again(state: Numbers) -> Any:
    return [Send("work", {"i": i}) for i in range(3)] if state["rounds"] < 3 else END


@case(given={"n": 2, "rounds": 0})
def a_loop_of_supersteps() -> Any:
    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", square)
    builder.add_node("count", lambda state: {"rounds": state["rounds"] + 1})
    builder.add_conditional_edges(START, fan, ["work"])
    builder.add_edge("work", "count")
    builder.add_conditional_edges("count", again, ["work", END])
    return builder


@case(given={"n": 0, "rounds": 0})
def a_mapped_node_that_loops_to_itself() -> Any:
    builder: Builder = StateGraph(Numbers)

    def step(state: Numbers) -> Any:
        return {"rounds": state["rounds"] + 1, "found": [state["rounds"]]}

    def more(state: Numbers) -> Literal["work", "__end__"]:
        return "work" if state["rounds"] < 4 else "__end__"

    builder.add_node("work", step)
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", more)
    return builder


@case()
def a_conditional_edge_that_reads_state() -> Any:
    builder = map_reduce()
    builder.add_node("many", lambda state: {"rounds": 1})

    def route(state: Numbers) -> str:
        return "many" if state["n"] > 3 and len(state["found"]) == 1 else END

    builder.add_conditional_edges("work", route, ["many", END])
    return builder


@case(given={"n": 3, "rounds": 1})
def an_edge_that_does_not_see_what_ran_beside() -> Any:
    def route(state: Numbers) -> str:
        return "early" if state["rounds"] == 1 else "late"

    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", square)
    builder.add_node("beside", lambda state: {"rounds": 2})
    builder.add_node("early", lambda state: {"total": 1})
    builder.add_node("late", lambda state: {"total": 2})
    builder.add_conditional_edges(START, lambda state: [*fan(state), "beside"], ["work", "beside"])
    builder.add_conditional_edges("work", route, ["early", "late"])
    return builder


@case()
def an_async_edge_and_a_path_map() -> Any:
    builder = map_reduce()
    builder.add_node("odd", lambda state: {"rounds": 1})

    async def parity(state: Numbers) -> bool:
        return state["found"][-1] % 2 == 1

    builder.add_conditional_edges("work", parity, {True: "odd", False: END})
    return builder


@case()
def a_command_with_update_and_goto() -> Any:
    def work(arg: Any) -> Command[Literal["extra", "reduce"]]:
        return Command(update={"found": [arg["i"]]}, goto="extra" if arg["i"] == 2 else "reduce")

    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", work)
    builder.add_node("extra", lambda state: {"rounds": 7})
    builder.add_node("reduce", reduce)
    builder.add_conditional_edges(START, fan, ["work"])
    return builder


@case()
def sends_from_the_worker() -> Any:
    def work(arg: Any) -> Any:
        if arg["i"] > 2:
            return Command(update={"found": [100]}, goto=[Send("work", {"i": arg["i"] - 2}), Send("other", arg)])
        return {"found": [arg["i"]]}

    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", work)
    builder.add_node("other", lambda arg: {"found": [-arg["i"]]})
    builder.add_conditional_edges(START, fan, ["work"])
    return builder


@case(nodes=("work", "detail"))
def nested_fan_outs() -> Any:
    def split(state: Any) -> list[Send]:
        return [Send("detail", {"i": 10 * i}) for i in range(2)]

    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", square)
    builder.add_node("detail", square)
    builder.add_node("reduce", reduce, defer=True)
    builder.add_conditional_edges(START, fan, ["work"])
    builder.add_conditional_edges("work", split, ["detail"])
    builder.add_edge("detail", "reduce")
    return builder


@case(nodes=("work", "detail"))
def two_mapped_nodes_in_one_step() -> Any:
    def both(state: Numbers) -> list[Send]:
        return [Send("work" if i % 2 else "detail", {"i": i}) for i in range(state["n"])]

    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", square)
    builder.add_node("detail", lambda arg: {"found": [-arg["i"]]})
    builder.add_node("reduce", reduce)
    builder.add_conditional_edges(START, both, ["work", "detail"])
    builder.add_edge("work", "reduce")
    builder.add_edge("detail", "reduce")
    return builder


@case()
def ordinary_nodes_beside() -> Any:
    def both(state: Numbers) -> list[Any]:
        return [*fan(state), "beside", Send("sent", {"i": 9})]

    builder: Builder = StateGraph(Numbers)
    builder.add_node("work", square)
    builder.add_node("beside", lambda state: {"rounds": state["n"]})
    builder.add_node("sent", lambda arg: {"found": [arg["i"]]})
    builder.add_node("reduce", reduce)
    builder.add_conditional_edges(START, both, ["work", "beside", "sent"])
    builder.add_edge("work", "reduce")
    builder.add_edge("beside", "reduce")
    return builder


@case(nodes=("left", "right"))
def a_join_of_two_mapped_nodes() -> Any:
    builder: Builder = StateGraph(Numbers)
    builder.add_node("left", lambda state: {"found": [1]})
    builder.add_node("right", lambda state: {"found": [2]})
    builder.add_node("reduce", reduce)
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge(["left", "right"], "reduce")
    return builder


class Inner(TypedDict, total=False):
    i: int
    found: Annotated[list[int], operator.add]
    inner: int


def inner_graph(**options: Any) -> Any:
    builder: Builder = StateGraph(Inner)
    builder.add_node("first", lambda state: {"inner": state["i"] + 1})
    builder.add_node("second", lambda state: {"found": [state["inner"] * 10]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    return builder.compile(**options)


@case()
def a_subgraph_as_mapped_node() -> Any:
    return map_reduce(inner_graph())


@case()
def a_subgraph_without_checkpoints_as_mapped_node() -> Any:
    return map_reduce(inner_graph(checkpointer=False))


@case(nodes=("work:first",))
def a_mapped_node_in_sent_subgraphs() -> Any:
    return map_reduce(inner_graph())


@case(nodes=("work:first", "work:second"))
def every_node_of_sent_subgraphs() -> Any:
    return map_reduce(inner_graph())


@case(nodes=("outer:work",), given={"n": 3, "rounds": 0})
def a_subgraph_that_fans_out_in_a_loop() -> Any:
    inner: Builder = StateGraph(Numbers)
    inner.add_node("work", square)
    inner.add_node("count", lambda state: {"rounds": state["rounds"] + 1})
    inner.add_conditional_edges(START, fan, ["work"])
    inner.add_edge("work", "count")
    inner.add_conditional_edges("count", again, ["work", END])
    builder: Builder = StateGraph(Numbers)
    builder.add_node("outer", inner.compile())
    builder.add_node("reduce", reduce)
    builder.add_edge(START, "outer")
    builder.add_edge("outer", "reduce")
    return builder


@case(nodes=("outer:middle:work", "outer:route"))
def a_subgraph_in_a_subgraph() -> Any:
    inner = map_reduce().compile()
    middle: Builder = StateGraph(Numbers)
    middle.add_node("middle", inner)
    middle.add_node("route", lambda state: {"rounds": len(state["found"])})
    middle.add_edge(START, "middle")
    middle.add_edge("middle", "route")
    builder: Builder = StateGraph(Numbers)
    builder.add_node("outer", middle.compile())
    builder.add_edge(START, "outer")
    return builder


if hasattr(langgraph.types, "Overwrite"):  # since 1.0.3

    @case()
    def overwriting_a_reducer() -> Any:
        def work(arg: Any) -> Any:
            return {"found": langgraph.types.Overwrite([77]) if arg["i"] == 3 else [arg["i"]]}

        return map_reduce(work)


@case()
def a_node_with_a_retry_policy() -> Any:
    failed: set[int] = set()

    def work(arg: Any) -> Any:
        if arg["i"] not in failed:
            failed.add(arg["i"])
            raise ConnectionError("once")
        return {"found": [arg["i"]]}

    return map_reduce(work, retry_policy=RetryPolicy(initial_interval=0.001, jitter=False))


@case()
def a_node_that_writes_nothing() -> Any:
    return map_reduce(lambda arg: None)
