"""Every graph of `tests.support.graphs`: what a fleet makes of it is what one process makes of it, step by step."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fanfold_consumer.langgraph import Blueprint, FanfoldSaver, distribute
from fanfold_producer import Publisher
from fanfold_sql.pool import open_pool
from tests.support.database import Database
from tests.support.duplicator import Duplicator
from tests.support.graphs import CASES, Case, config_of, history, in_one_process
from tests.support.kafka import Broker, Topic
from tests.support.rig import rig_for
from tests.support.wait import eventually_async

RUN_S = 60.0


def test_every_graph_comes_to_the_same_on_a_fleet_with_all_records_twice_and_a_member_killed(
    broker: Broker, database: Database, topic: Topic, tmp_path: Path
) -> None:
    graphs = [f"{name}={case.target}" for name, case in CASES.items()]
    with rig_for(broker.config, database, tmp_path, atomic=False) as rig:
        options: dict[str, Any] = {"graph": graphs, "checkpoint_url": database.dsn}
        members = [rig.start(topic, **options) for _ in range(2)]
        duplicator = Duplicator(broker.config, topic)
        try:
            for member in members:
                member.await_event("fleet.started")
            expected, found = asyncio.run(_both(rig.kafka, database, topic, members[0].kill))
        finally:
            duplicator.stop()
        for name in CASES:
            assert found[name] == expected[name], name
        assert duplicator.copied >= sum(len(case.nodes) for case in CASES.values())
        assert not rig.dead_letters()
        rig.assert_sound()


async def _both(kafka: Any, database: Database, topic: Topic, kill: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    expected = {name: await in_one_process(case, name) for name, case in CASES.items()}
    found: dict[str, Any] = {}
    publisher = Publisher(kafka, topic=topic.name, database_url=database.worker_dsn, atomic=False)
    async with publisher, open_pool(database.dsn, size=8) as pool:
        await FanfoldSaver(pool).setup()

        async def on_fleet(name: str, case: Case) -> None:
            blueprint = Blueprint(case.graph, name)
            saver = FanfoldSaver(pool)
            graph = distribute(blueprint, nodes=case.nodes, publisher=publisher, saver=saver)
            config = config_of(case, name)
            output = await graph.ainvoke(case.given, config, context=case.context, timeout=RUN_S)
            found[name] = (output, await history(graph.graph, config))

        async def kill_midway() -> None:
            await eventually_async(_of(lambda: len(found) >= len(CASES) // 3), RUN_S, what="a third of the graphs")
            await asyncio.to_thread(kill)

        await asyncio.gather(kill_midway(), *(on_fleet(name, case) for name, case in CASES.items()))
    return expected, found


def _of(condition: Any) -> Any:
    async def ask() -> Any:
        return condition()

    return ask
