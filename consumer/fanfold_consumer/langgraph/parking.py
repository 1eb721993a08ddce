"""Parking: in the graph that orchestrates, a mapped node interrupts with its arg instead of running.

The interrupt's value, a marker, is all that is needed to run the node elsewhere. LangGraph stores it with the task's
id, so what is parked outlives every process, and the graph can be resumed once the task's writes are there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from operator import itemgetter
from typing import Any, TypeGuard

from langgraph.types import interrupt

from fanfold_consumer.langgraph.errors import NodeFailed
from fanfold_consumer.langgraph.run import Run, current_run
from fanfold_consumer.langgraph.values import Types

_PARKED = "fanfold.parked"
_FAILED = "fanfold.failed"


def parking(table: Types) -> Callable[[Any], Awaitable[None]]:
    """The body of a mapped node in the orchestrating graph.

    A node that interrupted for a human is parked again with each answer; one that failed on the fleet raises here, so
    that the graph's own error handling takes over, unless this is another round: then it is tried again.

    Raises:
        SchemaError: the arg is of a type that cannot travel. Told here, before a checkpoint has it: what LangGraph
            reads back may have become something else, without a word.
    """

    async def park(arg: Any) -> None:
        plain, run = table.check(arg), current_run.get()
        answers: list[Any] = []
        while True:
            answer = interrupt({_PARKED: {"arg": plain, "answers": answers, "run": run}})
            if not is_failure(answer):
                answers = [*answers, table.check(answer)]
            elif answer[_FAILED]["round"] == run["round"]:
                raise NodeFailed(answer[_FAILED]["node"], answer[_FAILED]["reason"])

    return park


def is_marker(value: object) -> TypeGuard[dict[str, dict[str, Any]]]:
    """Whether an interrupt is a parked task, and none for a human."""
    return isinstance(value, dict) and len(value) == 1 and _PARKED in value


def marked(value: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a marker says: arg and answers, in plain values, and run."""
    return value[_PARKED]


def latest_run(values: Iterable[object]) -> Run | None:
    """The run of the latest marker among values of interrupts."""
    runs: list[Run] = [marked(value)["run"] for value in values if is_marker(value)]
    return max(runs, key=itemgetter("seq"), default=None)


def failure(run: Run, node: str, reason: str) -> dict[str, Any]:
    """To resume a parked task with that failed for good on the fleet."""
    return {_FAILED: {"round": run["round"], "node": node, "reason": reason}}


def is_failure(value: object) -> TypeGuard[dict[str, dict[str, Any]]]:
    return isinstance(value, dict) and len(value) == 1 and _FAILED in value
