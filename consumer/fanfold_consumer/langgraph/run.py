"""What a thread's run needs to know wherever it goes on: the caller's config and context, in plain values.

It is written into every parked task, so a member that finishes a superstep goes on as the caller would have.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import RunnableConfig

from fanfold_consumer.langgraph.errors import GraphRefused
from fanfold_consumer.langgraph.probes import default_recursion_limit
from fanfold_consumer.langgraph.values import Types
from fanfold_schemas import SchemaError, check_id

Run = dict[str, Any]
"""
nodes: those that are mapped. limit: the recursion limit. stop: the last step it leaves.
config: the caller's. context: the runtime context, if there is one.
seq: counts the invocations that the run is made of; what one of them parks at a checkpoint is one fan-out.
round: 0, or the seq of the invocation that last ran again what was parked before: a second try is another task.
by: the fan-out whose finisher this invocation is; empty if it is the caller's.
"""

current_run: ContextVar[Run] = ContextVar("fanfold_run")
"""Of the graph that is invoked here; parked nodes read it. Not in the config, where traces would show it."""

MARK = "fanfold_fan_out"
"""In the metadata of the checkpoints that a member writes while it finishes that fan-out."""
_CARRIED = ("tags", "metadata", "recursion_limit", "max_concurrency", "run_name")


def new_run(nodes: tuple[str, ...], config: RunnableConfig, context: Any, types: Types, *, began: int, seq: int) -> Run:
    """Check and carry what the caller says.

    Raises:
        GraphRefused: there is something in it that cannot go to a fleet.
    """
    problems = []
    configurable = {k: v for k, v in config.get("configurable", {}).items() if not k.startswith("__")}
    try:
        check_id(configurable.get("thread_id"), "config.configurable.thread_id")
    except SchemaError as error:
        problems.append(str(error))
    if configurable.pop("checkpoint_id", None) or configurable.pop("checkpoint_ns", None):
        problems.append(
            "config.configurable.checkpoint_id: a distributed run goes on from its thread's latest checkpoint; "
            "to go back, make a new one of an old one: graph.graph.aupdate_state(old_config, ...)"
        )
    limit = config.get("recursion_limit") or default_recursion_limit()
    carried: Run = {
        "nodes": list(nodes),
        "limit": limit,
        # As LangGraph counts: the first superstep has the number of the checkpoint it begins with and one more.
        "stop": began + limit + 2,
        "seq": seq,
        "round": seq,
        "by": "",
    }
    try:
        wanted = {name: value for name, value in config.items() if name in _CARRIED and value is not None}
        carried["config"] = types.check({**wanted, "configurable": configurable})
    except SchemaError as error:
        problems.append(f"config: {error}")
    try:
        carried["context"] = types.check(context)
    except SchemaError as error:
        problems.append(f"context: {error}")
    if problems:
        raise GraphRefused(problems)
    return carried


def config_of(run: Run, types: Types) -> RunnableConfig:
    """The caller's config, the receiver's to change."""
    config: RunnableConfig = types.load(run["config"])
    return {**config, "configurable": {**config["configurable"]}, "metadata": {**config.get("metadata", {})}}
