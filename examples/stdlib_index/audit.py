"""What really happened, counted: from the tables, the calls that handlers wrote down, and the members' metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from fanfold_schemas import decode_payload

FOLD = "fold"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the fan-out is. `state` is that of `fanfold status`, or `new` before its first result."""

    done: int
    state: str


@dataclass(frozen=True, slots=True)
class Held:
    """A partition of the group. `owner` None: nobody holds it."""

    partition: int
    owner: str | None
    next_offset: int | None
    islands: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A handler that began. `what`: a file's path, or `fold`."""

    at: float
    pid: int
    what: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What the tables say at the end.

    Attributes:
        results: rows of tasks.
        lost: Sends without a successful result.
        doubled: rows beyond the first of a task or of an index, and results that the countdown counted too often.
        folds: results of the fold.
        highest_run: replay generation; 1 as long as nobody asked for a rerun.
    """

    results: int
    lost: int
    doubled: int
    folds: int
    highest_run: int
    answer: Any


def read_progress(connection: psycopg.Connection[Any], fan_out_id: str) -> Progress:
    row = connection.execute(
        "select size - remaining, state from fanfold.list_fan_outs(array[%s], null, null, 1)", (fan_out_id,)
    ).fetchone()
    return Progress(*row) if row else Progress(0, "new")


def read_held(connection: psycopg.Connection[Any], group: str, topic: str) -> list[Held]:
    rows = connection.execute(
        "select partition, owner::text, next_offset, islands <> '{}' from fanfold.list_partitions(%s, %s)",
        (group, topic),
    ).fetchall()
    return [Held(*row) for row in rows]


def read_stored(connection: psycopg.Connection[Any], fan_out_id: str, task_ids: Collection[str]) -> Stored:
    rows = connection.execute(
        "select index, thread_id, task_id, status, run from fanfold.result where fan_out_id = %s", (fan_out_id,)
    ).fetchall()
    tasks = [row for row in rows if row[0] >= 0]
    done = {task_id for _, _, task_id, status, _ in tasks if status == "done"}
    by_task = Counter((thread_id, task_id) for _, thread_id, task_id, _, _ in tasks)
    by_index = Counter(index for index, *_ in tasks)
    found = connection.execute(
        "select f.size - f.remaining, r.payload from fanfold.fan_out f"
        " left join fanfold.result r on r.fan_out_id = f.fan_out_id and r.index = -1 where f.fan_out_id = %s",
        (fan_out_id,),
    ).fetchone()
    counted, answer = found or (0, None)
    return Stored(
        results=len(tasks),
        lost=len(set(task_ids) - done),
        doubled=_beyond_first(by_task) + _beyond_first(by_index) + max(0, counted - len(tasks)),
        folds=len(rows) - len(tasks),
        highest_run=max((run for *_, run in rows), default=0),
        answer=None if answer is None else decode_payload(answer),
    )


def read_calls(runs_file: Path) -> list[Call]:
    """Every call of a handler that began, in the order in which they were written down."""
    calls = []
    for line in runs_file.read_text().splitlines():
        at, pid, what = line.split(" ", 2)
        calls.append(Call(float(at), int(pid), what))
    return calls


def calls_again(calls: Iterable[Call]) -> int:
    """Calls beyond the first for the same file."""
    return _beyond_first(Counter(call.what for call in calls if call.what != FOLD))


def fold_calls(calls: Iterable[Call]) -> int:
    return sum(call.what == FOLD for call in calls)


def skipped(metrics: Iterable[Mapping[str, float]]) -> int:
    """Deliveries whose handler did not run, because these members found the answer known."""
    prefix = "fanfold_deliveries_skipped_total"
    return int(sum(value for member in metrics for name, value in member.items() if name.startswith(prefix)))


def fenced(metrics: Iterable[Mapping[str, float]]) -> int:
    """Claims that these members lost to another owner."""
    return int(sum(member.get("fanfold_partitions_fenced_total", 0) for member in metrics))


def _beyond_first(counts: Counter[Any]) -> int:
    return sum(count - 1 for count in counts.values())
