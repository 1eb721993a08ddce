"""A distributed graph on servers: what depends on dead letters, on the roles of Postgres, and on real checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from fanfold_consumer.langgraph import FanfoldSaver, FleetGraph, NodeFailed, distribute
from fanfold_producer import Publisher
from tests.support import graph_gates
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator
from tests.support.rig import Rig, rig_for

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t1"}}
_GRANT = "grant select, insert, update, delete on all tables in schema public to fanfold_worker"


@pytest.fixture
def rig(broker: Broker, database: Database, topic: Topic, tmp_path: Path) -> Iterator[Rig]:
    """With a member that runs the graph as a worker may, checkpoints beside the fleet's tables."""

    async def set_up() -> None:
        async with FanfoldSaver.from_conn_string(database.dsn) as saver:
            await saver.setup()

    asyncio.run(set_up())
    with database.connect() as connection:
        connection.execute(_GRANT)
    with rig_for(broker.config, database, tmp_path, atomic=False) as rig:
        rig.start(topic, graph=["tests.support.graph_gates:graph"])
        yield rig


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def on_fleet(rig: Rig, topic: Topic, work: Callable[[FleetGraph], Coroutine[Any, Any, None]]) -> None:
    """Do something with the graph, as a caller with a worker's rights."""

    async def run() -> None:
        url = rig.database.worker_dsn
        async with (
            Publisher(rig.kafka, topic=topic.name, database_url=url, atomic=False) as publisher,
            FanfoldSaver.from_conn_string(url) as saver,
        ):
            await work(distribute(graph_gates.graph, nodes=["work"], publisher=publisher, saver=saver))

    asyncio.run(run())


def test_a_run_goes_on_when_the_dead_letter_of_its_node_is_redriven(rig: Rig, topic: Topic, operator: Operator) -> None:
    async def fail(graph: FleetGraph) -> None:
        with pytest.raises(NodeFailed, match=r"node 'work' failed: ValueError: one is bad \(attempt 2\)"):
            await graph.ainvoke({"n": 3}, CONFIG, timeout=60)

    async def fetch(graph: FleetGraph) -> None:
        assert (await graph.result(CONFIG, timeout=60))["total"] == 3

    on_fleet(rig, topic, fail)
    rig.notes.open_gate("mended")
    (letter,) = rig.dead_letters()
    assert operator.run("dead-letters", "redrive", letter.dead_letter_id, "--execute").status == 0
    on_fleet(rig, topic, fetch)
    rig.assert_sound()


def test_an_update_of_the_past_is_gone_on_with_though_the_threads_steps_go_back(rig: Rig, topic: Topic) -> None:
    rig.notes.open_gate("mended")

    async def travel(graph: FleetGraph) -> None:
        for n in (3, 2):
            await graph.ainvoke({"n": n}, CONFIG, timeout=60)
        past = [snapshot async for snapshot in graph.graph.aget_state_history(CONFIG) if snapshot.next == ("plan",)]
        await graph.graph.aupdate_state(past[-1].config, {"n": 5}, as_node="__start__")
        assert (await graph.ainvoke(None, CONFIG, timeout=60))["found"] == [0, 1, 2, 3, 4]

    on_fleet(rig, topic, travel)
    rig.assert_sound()
