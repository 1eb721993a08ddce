"""Random commits over a small universe, each compared with the oracle in its answers and in what the tables hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from fanfold_sql import Conflict, Finished
from tests.sql.oracle import CONFLICT, Oracle, explain
from tests.sql.support import FanOutSpec, Tables, Worker

_BASES: tuple[tuple[tuple[str, int], ...], ...] = ((), (("a", 1),), (("a", 2),), (("a", 1), ("b", 1)), (("b", 2),))


def mixed(rng: random.Random, prefix: str) -> list[FanOutSpec]:
    """Three fan-outs of one or two threads, with and without a base, a fold, a quorum, a deadline, max_failures."""
    return [
        FanOutSpec(
            id=f"{prefix}-f{number}",
            size=(size := rng.randint(1, 4)),
            thread_id=f"{prefix}-t{rng.randrange(2)}",
            fold=rng.choice(("sum", None)),
            quorum=rng.choice((None, None, min(size, 2), 1)),
            max_failures=rng.choice((None, None, 0, 1)),
            deadline_ms=rng.choice((None, 1)),
            on_deadline=rng.choice((None, "fold")),
            base=rng.choice(_BASES),
        )
        for number in range(3)
    ]


def quorums(rng: random.Random, prefix: str) -> list[FanOutSpec]:
    """One or two fan-outs with a quorum, so that runs of the same few tasks meet in one batch."""
    return [
        FanOutSpec(
            id=f"{prefix}-f{number}",
            size=(size := rng.randint(2, 4)),
            thread_id=f"{prefix}-t",
            fold=rng.choice(("sum", None)),
            quorum=rng.randint(1, min(3, size)),
            max_failures=rng.choice((None, None, 0, 1)),
        )
        for number in range(rng.choice((1, 1, 2)))
    ]


def _result(rng: random.Random, specs: list[FanOutSpec], number: int) -> Finished:
    spec = rng.choice(specs)
    roll = rng.random()
    payload = None if rng.random() < 0.3 else b"%d" % number
    run = rng.choice((1, 1, 1, 2, 2, 3))
    if roll < 0.15 and spec.fold:
        return spec.fold_result(run=run, payload=payload)
    if roll > 0.97:
        # Something that contradicts: another arg, an index outside, another task_id, another size.
        wrong = rng.choice(("arg", "index", "id", "size"))
        index = rng.randrange(spec.size)
        if wrong == "arg":
            return spec.result(index, run=run, payload=payload, arg_hash=8)
        if wrong == "index":
            return spec.result(spec.size, run=run, payload=payload)
        if wrong == "id":
            return spec.result(index, run=run, payload=payload, task_id=spec.task(rng.randrange(spec.size)).task_id)
        return spec.but(size=spec.size + 1).result(index, run=run, payload=payload)
    return spec.result(rng.randrange(spec.size), run=run, payload=payload)


def _state(tables: Tables, prefix: str) -> dict[str, Any]:
    like = prefix + "-%"
    return {
        "clocks": {
            thread_id: {branch: count for branch, count in clock.items() if count}
            for thread_id, clock in tables.rows(
                "select thread_id, clock from fanfold.thread where thread_id like %s", like
            )
        },
        "fan_outs": {
            row[0]: row[1:]
            for row in tables.rows(
                "select fan_out_id, remaining, failed, run, completed_at is not null, cancelled_by from fanfold.fan_out"
                " where fan_out_id like %s",
                like,
            )
        },
        "rows": {
            row[:2]: row[2:]
            for row in tables.rows(
                "select thread_id, task_id, index, run, status, case when status <> 'pending' then payload end"
                " from fanfold.result where thread_id like %s",
                like,
            )
        },
    }


def _expected(oracle: Oracle) -> dict[str, Any]:
    return {
        "clocks": {thread_id: clock.to_dict() for thread_id, clock in oracle.clocks.items()},
        "fan_outs": {
            name: (oracle.remaining(name), oracle.failed(name), barrier.run, barrier.complete, barrier.cancelled_by)
            for name, barrier in oracle.barriers.items()
        },
        "rows": {
            key: (row.index, row.run, row.status, row.payload if row.status != "pending" else None)
            for key, row in oracle.rows.items()
        },
    }


def _commit(
    worker: Worker, batch: list[Finished]
) -> tuple[list[Finished], list[str], list[tuple[str, int]], list[Finished]]:
    """Commit, taking conflicts out. Returns what was committed, its outcomes, what completed, and the conflicts."""
    conflicts: list[Finished] = []
    while True:
        try:
            reply = worker.commit(batch)
        except Conflict as conflict:
            conflicts += [batch[position] for position in conflict.positions]
            batch = [result for position, result in enumerate(batch) if position not in conflict.positions]
            continue
        completed = [(done.fan_out_id, done.run) for done in reply.completed]
        return batch, [outcome.value for outcome in reply.outcomes], completed, conflicts


def play(
    rng: random.Random,
    worker: Worker,
    tables: Tables,
    prefix: str,
    universe: Callable[[random.Random, str], list[FanOutSpec]] = mixed,
) -> None:
    """Some random commits and reopenings over a few fan-outs whose ids start with `prefix`, each compared."""
    specs = universe(rng, prefix)
    oracle = Oracle()
    queued: list[tuple[str, int]] = []
    for step in range(rng.randint(4, 12)):
        if rng.random() < 0.12:
            spec = rng.choice(specs)
            task_ids = [spec.task(index).task_id for index in range(spec.size) if rng.random() < 0.6]
            assert worker.reopen(spec.id, *task_ids) == oracle.reopen(spec.id, task_ids)
        if rng.random() < 0.1:
            task = rng.choice(specs).task(0)
            worker.open(task)
            oracle.open(task)
        if rng.random() < 0.1:
            expired = [found for found in worker.expire(1000) if found[0].startswith(prefix + "-")]
            assert expired == oracle.expire()
            queued += [(name, 1) for name, folds in expired if folds and next(s for s in specs if s.id == name).fold]
        batch = [_result(rng, specs, 10 * step + number) for number in range(rng.randint(1, 6))]
        batch += rng.sample(batch, rng.randint(0, min(2, len(batch), 6 - len(batch))))
        # What a check says before the commit is what a commit of the task alone then answers.
        for result, verdict in zip(batch, worker.check(*batch), strict=True):
            alone = _alone(oracle, result)
            where = f"{prefix} step {step}: {result} is {verdict}, the commit says {alone}"
            # A check does not compare fan-outs: what contradicts its own may pass for known already.
            assert verdict in (None, alone) or (alone == CONFLICT and _contradicts(oracle, result)), where
            assert verdict is not None or alone in ("applied", CONFLICT), where
        committed, outcomes, completed, conflicts = _commit(worker, batch)
        orders = explain(oracle, committed, outcomes, completed)
        found = _state(tables, prefix)
        seen = _state_without_zeros(found)
        matching = [state for state in orders if _state_without_zeros(_expected(state)) == seen]
        assert matching, f"{prefix} step {step}: no order of {committed} gives {outcomes} and {found}"
        oracle = matching[0]
        for result in conflicts:
            # Where a batch says two things about a new fan-out, the first opens it, even if it is then refused itself
            # for another reason; the other is parked, which is safe, though alone it would have been taken.
            if len({one.task.fan_out for one in batch if one.task.fan_out.id == result.task.fan_out.id}) == 1:
                assert _alone(oracle, result) != "applied", f"{prefix} step {step}: {result} is no conflict"
        queued += [done for done in completed if next(s for s in specs if s.id == done[0]).fold]
    assert sorted(queued) == sorted(entry for entry in tables.queued_folds() if entry[0].startswith(prefix + "-"))


def _state_without_zeros(state: dict[str, Any]) -> dict[str, Any]:
    clocks = {
        thread_id: {branch: count for branch, count in clock.items() if count}
        for thread_id, clock in state["clocks"].items()
    }
    return {**state, "clocks": clocks}


def _contradicts(oracle: Oracle, result: Finished) -> bool:
    barrier = oracle.barriers.get(result.task.fan_out.id)
    return barrier is not None and barrier.declared is not None and barrier.declared[0] != result.task.fan_out


def _alone(oracle: Oracle, result: Finished) -> str:
    return oracle.copy().commit(result)
