"""LangGraph's own conformance suite for checkpointers, all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.report import ProgressCallbacks

from fanfold_consumer.langgraph import FanfoldSaver


def test_the_saver_conforms_in_full_including_copies_deletion_by_run_and_pruning(empty_database: str) -> None:
    @checkpointer_test(name="FanfoldSaver")
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with FanfoldSaver.from_conn_string(empty_database, size=2) as made:
            await made.setup()
            yield made

    report = asyncio.run(validate(saver, progress=ProgressCallbacks.quiet())).to_dict()

    assert {name: result["failures"] for name, result in report["results"].items() if result["failures"]} == {}
    assert {name for name, result in report["results"].items() if result["detected"]} == set(Capability)
    assert report["conformance_level"] == "FULL"
