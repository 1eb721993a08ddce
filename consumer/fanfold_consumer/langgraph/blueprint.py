"""A user's graph, level by level: what is at which node, what may be mapped, and the two graphs made of it.

A *level* is a builder: the root's, or that of a compiled graph that is a node of another. A *path* names a node from
the root, `subgraph:node`; LangGraph keeps the colon out of node names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy

from fanfold_consumer.folds import built_in
from fanfold_consumer.langgraph.errors import GraphRefused
from fanfold_consumer.langgraph.exits import Guarded
from fanfold_consumer.langgraph.parking import parking
from fanfold_consumer.langgraph.probes import subgraphs_resume
from fanfold_consumer.langgraph.values import Types, declared_types
from fanfold_schemas import SchemaError, check_id

SEPARATOR = ":"
_COMPILE_OPTIONS = ("store", "debug", "name")


@dataclass(frozen=True, slots=True)
class Level:
    """One builder of the graph. `options` are those it was compiled with."""

    path: tuple[str, ...]
    builder: StateGraph[Any, Any, Any, Any]
    options: dict[str, Any]

    def needs_state(self, node: str) -> bool:
        """Whether the node's edges look at the state when it has run."""
        return bool(self.builder.branches.get(node))


@dataclass(frozen=True)
class Blueprint:
    """A graph for a fleet, the same where it is started and where it runs.

    Args:
        graph: a `StateGraph`, or a compiled one without checkpointer and breakpoints, whose store and name are kept.
        name: under which the fleet knows it. Fleets that run several graphs on one topic give each its own.
        types: how values travel; by default, what the graph's schemas declare.
    """

    graph: Any
    name: str = "graph"
    types: Types | None = None
    table: Types = field(init=False, repr=False, compare=False)
    levels: dict[tuple[str, ...], Level] = field(init=False, repr=False, compare=False)
    _park: Runnable[Any, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        levels = {level.path: level for level in _levels(self.graph)}
        object.__setattr__(self, "levels", levels)
        table = declared_types(levels[()].builder) if self.types is None else self.types
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "_park", _runnable_of(parking(table)))
        problems = [problem for level in levels.values() for problem in _channel_problems(level)]
        try:
            check_id(self.name, "name")
        except SchemaError as error:
            problems.append(str(error))
        if SEPARATOR in self.name or built_in(self.name) is not None:
            problems.append(f"name {self.name!r} has a colon, or is that of a built-in fold; choose another")
        if problems:
            raise GraphRefused(problems)

    @property
    def root(self) -> Level:
        return self.levels[()]

    def nodes(self) -> Iterator[tuple[Level, str]]:
        """Every node that a fleet could run; not those that LangGraph adds to handle errors."""
        for level in self.levels.values():
            for node, spec in level.builder.nodes.items():
                if not getattr(spec, "is_error_handler", False):
                    yield level, node

    def level_of(self, path: str) -> tuple[Level, str]:
        *above, node = path.split(SEPARATOR)
        return self.levels[tuple(above)], node

    def handler_name(self, path: str) -> str:
        """Under which name members know a node."""
        return f"{self.name}{SEPARATOR}{path}"

    def handles_errors(self) -> bool:
        """Whether any node has an error handler, so that a failure need not be the end."""
        return any(
            getattr(spec, "error_handler_node", None) is not None
            for level in self.levels.values()
            for spec in level.builder.nodes.values()
        )

    def check_mapped(self, paths: Sequence[str]) -> tuple[str, ...]:
        """The nodes to be mapped, sorted.

        Raises:
            GraphRefused: all that is in the way of mapping them.
        """
        if isinstance(paths, str) or not paths or not all(isinstance(path, str) for path in paths):
            raise GraphRefused(["nodes: name at least one node to run on the fleet, in a list of names"])
        problems = [problem for path in paths for problem in self._path_problems(path)]
        if problems:
            raise GraphRefused(problems)
        return tuple(sorted(set(paths)))

    def orchestrating(
        self, mapped: Iterable[str], saver: BaseCheckpointSaver[Any]
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The graph with its mapped nodes parked, and all else as it is."""
        return self._parked(self.root, frozenset(mapped), saver)

    def alone(self, level: Level) -> CompiledStateGraph[Any, Any, Any, Any]:
        """A graph of one level to run single nodes with their edges: it stops after each, and handles no errors."""
        nodes = {
            name: _guarded(
                replace(spec, error_handler_node=None) if getattr(spec, "error_handler_node", None) else spec
            )
            for name, spec in level.builder.nodes.items()
        }
        return _rebuilt(level.builder, nodes).compile(
            store=level.options.get("store") or self.root.options.get("store"), interrupt_after="*"
        )

    def _parked(self, level: Level, mapped: frozenset[str], saver: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        nodes = dict(level.builder.nodes)
        for name, spec in nodes.items():
            below = self.levels.get((*level.path, name))
            if SEPARATOR.join((*level.path, name)) in mapped:
                # Its own policies are the fleet's business. One attempt: `park` raises only what has failed for good.
                nodes[name] = replace(
                    spec, runnable=self._park, retry_policy=RetryPolicy(max_attempts=1), cache_policy=None
                )
            elif below is not None and any(path.startswith(SEPARATOR.join(below.path) + SEPARATOR) for path in mapped):
                nodes[name] = replace(spec, runnable=self._parked(below, mapped, None))
            else:
                nodes[name] = _guarded(spec)
        return _rebuilt(level.builder, nodes).compile(saver, **level.options)

    def _path_problems(self, path: str) -> Iterator[str]:
        *above, node = path.split(SEPARATOR)
        level = self.levels.get(tuple(above))
        if level is None or node not in level.builder.nodes:
            known = ", ".join(sorted(SEPARATOR.join((*at.path, name)) for at, name in self.nodes()))
            yield f"node {path!r}: the graph has {known}; one of a subgraph can be mapped if that is itself a node"
            return
        spec = level.builder.nodes[node]
        if above and not subgraphs_resume():
            yield f"node {path!r}: this LangGraph runs all of a subgraph again when it is resumed; upgrade it"
        try:
            check_id(self.handler_name(path), f"node {path!r}")
        except SchemaError as error:
            yield f"{error}; rename it"
        if getattr(spec, "is_error_handler", False):
            yield f"node {path!r} handles errors, which happens where the graph is finished; leave it out"
        if level.builder.managed and level.needs_state(node):
            yield (
                f"node {path!r}: its conditional edges could read {', '.join(level.builder.managed)}, which a member "
                "does not know; route in a node of its own behind it"
            )
        if isinstance(spec.runnable, CompiledStateGraph) and spec.runnable.checkpointer not in (None, False):
            yield f"node {path!r} is a graph with a checkpointer of its own; compile it without"


def _levels(graph: Any, path: tuple[str, ...] = ()) -> Iterator[Level]:
    options: dict[str, Any] = {}
    if isinstance(graph, CompiledStateGraph):
        if graph.checkpointer is not None and not path:
            raise GraphRefused(
                ["the graph is compiled with a checkpointer; pass the StateGraph, and the saver beside it"]
            )
        if graph.interrupt_before_nodes or graph.interrupt_after_nodes:
            raise GraphRefused(["the graph is compiled with breakpoints; call interrupt() in a node instead"])
        options = {name: getattr(graph, name) for name in _COMPILE_OPTIONS}
        graph = graph.builder
    if not isinstance(graph, StateGraph):
        raise GraphRefused([f"{graph!r:.60} is no StateGraph, nor a compiled one"])
    builder = _with_defaults(graph)
    yield Level(path, builder, options)
    for name, spec in builder.nodes.items():
        # A graph with a checkpointer of its own, or none at all, is not stopped and resumed with its parent.
        if isinstance(spec.runnable, CompiledStateGraph) and spec.runnable.checkpointer is None:
            yield from _levels(spec.runnable, (*path, name))


def _with_defaults(builder: StateGraph[Any, Any, Any, Any]) -> StateGraph[Any, Any, Any, Any]:
    """The builder with its node defaults in its nodes, where compiling puts them; the user's own stays as it is."""
    if builder.compiled:
        return builder
    mine = copy.copy(builder)
    mine.nodes = {name: replace(spec) for name, spec in builder.nodes.items()}
    mine.compile()
    return mine


def _guarded(spec: Any) -> Any:
    # Graphs are left as they are: LangGraph looks for them among its nodes.
    return spec if isinstance(spec.runnable, CompiledStateGraph) else replace(spec, runnable=Guarded(spec.runnable))


def _rebuilt(builder: StateGraph[Any, Any, Any, Any], nodes: dict[str, Any]) -> StateGraph[Any, Any, Any, Any]:
    """The same graph with other nodes. Not a copy, which would apply its node defaults once more."""
    made: StateGraph[Any, Any, Any, Any] = StateGraph(
        builder.state_schema,
        builder.context_schema,
        input_schema=builder.input_schema,
        output_schema=builder.output_schema,
    )
    made.nodes = nodes
    made.edges = builder.edges
    made.branches = builder.branches
    made.waiting_edges = builder.waiting_edges
    made.schemas = builder.schemas
    made.channels = builder.channels
    made.managed = builder.managed
    return made


def _channel_problems(level: Level) -> Iterator[str]:
    where = f" of subgraph {SEPARATOR.join(level.path)}" if level.path else ""
    for name, channel in level.builder.channels.items():
        if isinstance(channel, UntrackedValue):
            yield (
                f"state key {name!r}{where} is an UntrackedValue: it is in no checkpoint, so it would be gone whenever "
                "the run goes on elsewhere; make it an ordinary key, or the context's"
            )
        elif type(channel).__name__ == "DeltaChannel":
            yield f"state key {name!r}{where} is a DeltaChannel, which is not supported yet; use a reducer"


def _runnable_of(function: Any) -> Runnable[Any, Any]:
    made: StateGraph[Any, Any, Any, Any] = StateGraph(dict)
    made.add_node("park", function)
    runnable: Runnable[Any, Any] = made.nodes["park"].runnable  # type: ignore[assignment]
    return runnable
