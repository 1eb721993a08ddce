"""The fan-out that a handler asks for."""

from __future__ import annotations

import asyncio

from fanfold_consumer import Sends
from fanfold_consumer.child_fan_out import sends_records
from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.patience import Patience
from fanfold_schemas import FanOut, Task, decode_task, derive_child_fan_out_id

TASK = Task("task-1", "t1", FanOut("parent", 1), 0, "node", None, {})


def ids(sends: Sends) -> set[str]:
    records = asyncio.run(sends_records(ClaimChecks(None, Patience(), bytes_max=1), TASK, "topic", sends))
    return {decode_task(record.value).fan_out.id for record in records if record.value is not None}


def test_its_id_is_derived_from_the_task_unless_the_handler_names_it() -> None:
    assert ids(Sends([("node", 1), ("node", 2)])) == {derive_child_fan_out_id("task-1", 1)}
    assert ids(Sends([("node", 1), ("node", 2)], fan_out_id="mine")) == {"mine"}
