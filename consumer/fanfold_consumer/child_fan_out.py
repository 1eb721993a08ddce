"""The fan-out that a handler asks for with `Sends`, as records for the outbox."""

from __future__ import annotations

import asyncio

from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.context import Sends
from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from fanfold_schemas import Task, derive_child_fan_out_id, pack_headers
from fanfold_sql import OutboxRecord


async def sends_records(claim_checks: ClaimChecks, task: Task, topic: str, sends: Sends) -> tuple[OutboxRecord, ...]:
    """The records of the fan-out that a task's handler returned, once its large args are in the claim store."""
    bytes_min = claim_checks.bytes_min
    if bytes_min is None:
        built = _build(task, topic, sends, None)
    else:  # a second's work, if its args are large
        built = await asyncio.to_thread(_build, task, topic, sends, bytes_min)
    await claim_checks.put_all(built.fan_out.id, built.large_args)
    return tuple(OutboxRecord(r.topic, r.key, r.value, pack_headers(r.headers)) for r in built.records)


def _build(task: Task, topic: str, sends: Sends, claim_check_bytes_min: int | None) -> BuiltFanOut:
    """The same ids on every attempt of this run."""
    return build_fan_out(
        task.thread_id,
        sends.sends,
        topic=topic,
        fan_out_id=derive_child_fan_out_id(task.task_id, task.run) if sends.fan_out_id is None else sends.fan_out_id,
        fold=sends.fold,
        base=task.base if sends.base is None else sends.base,
        quorum=sends.quorum,
        max_failures=sends.max_failures,
        claim_check_bytes_min=claim_check_bytes_min,
    )
