"""What a fold says of its superstep, in plain values, and what the caller hears of it."""

from __future__ import annotations

from typing import Any

from langgraph.errors import GraphRecursionError, InvalidUpdateError

from fanfold_consumer.langgraph.errors import NodeFailed, Superseded

Outcome = dict[str, Any]
"""`state` is `parked`, with the `next` fan-out, `done`, `interrupted`, `superseded`, or `failed` with its `kind`,
`node` and `reason`."""

_KINDS: dict[str, type[Exception]] = {"recursion": GraphRecursionError, "update": InvalidUpdateError}
"""Errors of LangGraph itself that can be told by their class. Nothing else is made of a name that was stored."""


def node_failed(node: str, reason: str) -> Outcome:
    return {"state": "failed", "kind": "node", "node": node, "reason": reason}


def graph_failed(error: Exception) -> Outcome:
    """The graph's own failure, or that of something which is no node, a reducer say."""
    kind = next((kind for kind, cls in _KINDS.items() if isinstance(error, cls)), "node")
    reason = str(error) if kind in _KINDS else f"{type(error).__name__}: {error}"
    return {"state": "failed", "kind": kind, "node": "", "reason": reason}


def out_of_steps(limit: int) -> Outcome:
    error = GraphRecursionError(
        f"Recursion limit of {limit} reached without hitting a stop condition; raise it with the `recursion_limit` of "
        "the config"
    )
    return graph_failed(error)


def raise_failure(outcome: Outcome) -> None:
    """Raise what an outcome says that is no progress; return if it is none of these."""
    if outcome["state"] == "superseded":
        raise Superseded("the thread was started again before this run was finished; result(config) waits for that")
    if outcome["state"] == "failed":
        cls = _KINDS.get(outcome["kind"])
        raise NodeFailed(outcome["node"], outcome["reason"]) if cls is None else cls(outcome["reason"])
