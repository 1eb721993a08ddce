"""A handler in a process of its own comes to the same as in the member, to the byte: values, Sends and failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanfold_consumer.work import Completion
from tests.support.process_handlers import registry
from tests.unit.executor_bench import bench
from tests.unit.fleet_records import a_task, some_work

SAME = [
    ("echo", {"a": [1, -(2**63), 2.5, None, True, "ä", b"\xff"]}),
    ("echo", None),
    ("echo-async", [1]),
    ("of-point", {"x": 5}),
    ("of-point", {"x": "five"}),
    ("of-point", 7),
    ("context", None),
    *[("sends", what) for what in ("all", "none", "only-fold", "iterator", "no-send", "text", "raises")],
    *[("sends", what) for what in ("bad-arg", "bad-node", "bad-fold", "bad-base", "same-id")],
    *[("raise", what) for what in ("value", "none", "key", "unprintable", "surrogate", "exit")],
    *[("raise", what) for what in ("stop", "group", "base-group", "timeout", "later")],
    *[("raise-async", what) for what in ("value", "cancelled")],
    ("raise-long", 10),
    ("raise-long", 10_000_000),
    *[("unstorable", what) for what in ("object", "set", "nan", "large-int", "uint64", "nul", "int-key")],
    *[("unstorable", what) for what in ("long", "huge", "deep", "deeper")],
]


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Completion, Completion]]:
    """What each of them comes to, in the member and in a process."""

    async def scenario() -> dict[str, tuple[Completion, Completion]]:
        found = {}
        async with bench(registry, bound_s=60.0) as at:
            for name, arg in SAME:
                fields: dict[str, Any] = {"run": 3, "attempt": 5, "base": {"main": 4}}
                here = await at.run(some_work(a_task(name, arg, **fields)))
                there = await at.run(some_work(a_task(f"{name}-process", arg, **fields)))
                found[f"{name} {arg!r:.30}"] = here, there
            return found

    return asyncio.run(scenario())


@pytest.mark.parametrize("case", [f"{name} {arg!r:.30}" for name, arg in SAME])
def test_a_handler_comes_to_the_same(pairs: dict[str, tuple[Completion, Completion]], case: str) -> None:
    here, there = map(_outcome, pairs[case])
    assert there == here


def test_both_values_and_failures_were_compared(pairs: dict[str, tuple[Completion, Completion]]) -> None:
    codes = {here.dead_letter.code if here.dead_letter else None for here, _ in pairs.values()}
    assert codes == {None, "E_ARG", "E_HANDLER", "E_RESULT"}


def _outcome(completion: Completion) -> Any:
    letter, result = completion.dead_letter, completion.result
    assert result is not None
    failed = None if letter is None else (letter.code, letter.error.replace("-process", ""))
    payload = None if result.payload is None else result.payload.replace(b"-process", b"")
    # A repr of a context names the node; all else must be the same to the byte.
    if payload is not None and b"TaskContext" in payload:
        payload = payload[10:]
    return failed, payload, completion.outbox
