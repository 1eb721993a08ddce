"""Redriving: letters are locked, fan-outs reopened, records queued, and the letters marked, in one transaction.

So a letter is redriven once, whoever tries at the same time, and no fan-out waits for a task that is not sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fanfold_consumer.redrive.decide import Action, Decision, decide
from fanfold_consumer.replay.requeue import persist, reopen_fan_outs, rerun_record
from fanfold_schemas import unpack_headers
from fanfold_sql import OutboxRecord, Store
from fanfold_sql.dead_letters import (
    judge_dead_letters,
    lock_dead_letters,
    read_dead_letters,
    reopen_fold,
    resolve_dead_letters,
)
from fanfold_sql.outbox import enqueue_records


async def preview(store: Store, ids: Sequence[int], missing_topics: Collection[str] = ()) -> list[Decision]:
    """What `redrive` would do now with each of those letters that there are, by id.

    Their bytes are in memory: ask for a few at a time.
    """

    async def look() -> list[Decision]:
        async with store.transaction() as connection:
            letters = await read_dead_letters(connection, ids)
            return decide(letters, await judge_dead_letters(connection, ids), missing_topics)

    return await persist(look)


async def redrive(store: Store, ids: Sequence[int], missing_topics: Collection[str] = ()) -> list[Decision]:
    """Redrive those letters that can be, all of them or none. What comes back is as of `preview`.

    When an answer of Postgres is lost the call is repeated, and may then find its own letters redriven already.
    """

    async def act() -> list[Decision]:
        async with store.transaction() as connection:
            await lock_dead_letters(connection, ids)
            letters = await read_dead_letters(connection, ids)
            decisions = decide(letters, await judge_dead_letters(connection, ids), missing_topics)
            doing = [d for d in decisions if d.outlook.action is not None]
            tasks = [d.task for d in doing if d.task is not None and d.outlook.action is Action.RERUN]
            runs = await reopen_fan_outs(connection, tasks)
            records = [_record(d, runs) for d in doing if d.outlook.action is not Action.REFOLD]
            await enqueue_records(connection, records)
            for decision in doing:
                if decision.task is not None and decision.outlook.action is Action.REFOLD:
                    fan_out_id = decision.task.fan_out.id
                    runs[fan_out_id] = await reopen_fold(connection, fan_out_id)
            await resolve_dead_letters(connection, [d.letter.dead_letter_id for d in doing], "redriven")
            return [replace(d, run=_run(d, runs)) for d in decisions]

    return await persist(act)


def _record(decision: Decision, runs: dict[str, int | None]) -> OutboxRecord:
    letter, run = decision.letter, _run(decision, runs)
    assert letter.value is not None  # else it would have been left alone
    if run is None:
        return OutboxRecord(letter.topic, letter.key, letter.value, letter.headers or b"")
    return rerun_record(letter.topic, letter.key, letter.value, unpack_headers(letter.headers), run)


def _run(decision: Decision, runs: dict[str, int | None]) -> int | None:
    if decision.task is None or decision.outlook.action in (None, Action.RESEND):
        return None
    return runs[decision.task.fan_out.id]
