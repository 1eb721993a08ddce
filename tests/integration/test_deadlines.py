"""What a member knows of deadlines, and when it must not rely on that."""

from __future__ import annotations

import asyncio

from fanfold_consumer.deadlines import Deadlines
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_schemas import FanOut, Task
from fanfold_sql import Store
from tests.support.database import Database
from tests.unit.fleet_records import a_partition

_LATER_MS = 4_102_444_800_000


def _task() -> Task:
    return Task("t-0", "t1", FanOut("f1", 2, deadline_ms=_LATER_MS), 0, "work")


def test_a_deadline_is_made_known_again_under_a_new_claim_because_a_failover_may_have_lost_it(
    database: Database,
) -> None:
    async def play() -> None:
        async with Store.open(database.worker_dsn) as store:
            deadlines = Deadlines(store, Patience(), Metrics())
            before, after = a_partition(), a_partition()
            await deadlines.open([(_task(), before)])
            with database.connect() as connection:
                connection.execute("delete from fanfold.deadline")
                connection.execute("delete from fanfold.fan_out")
            await deadlines.open([(_task(), before)])
            assert await store.read_fan_out("f1") is None, "it is asked for once a claim"
            await deadlines.open([(_task(), after)])
            assert await store.read_fan_out("f1") is not None

    asyncio.run(play())
