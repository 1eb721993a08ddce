"""What one commit after another would do, in plain Python: the yardstick for commit_results.

It is written from the contract, not from the SQL: one result at a time, no batches, no locks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

from fanfold_schemas import FanOut, Task, VectorClock
from fanfold_sql import Finished

CONFLICT = "conflict"


@dataclass(slots=True)
class Row:
    fan_out_id: str
    index: int
    run: int
    status: str
    arg_hash: int
    payload: bytes | None


@dataclass(slots=True)
class Barrier:
    thread_id: str
    declared: tuple[FanOut, VectorClock]
    run: int = 1
    complete: bool = False


@dataclass(slots=True)
class Oracle:
    clocks: dict[str, VectorClock] = field(default_factory=dict)
    barriers: dict[str, Barrier] = field(default_factory=dict)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    completed: list[tuple[str, int]] = field(default_factory=list)

    def commit(self, result: Finished) -> str:
        task = result.task
        base = VectorClock(task.base)
        clock = self.clocks.get(task.thread_id)
        if clock is not None and clock.makes_stale(base):
            return "stale"
        barrier = self.barriers.get(task.fan_out.id)
        if barrier is not None and (barrier.thread_id, *barrier.declared) != (task.thread_id, task.fan_out, base):
            return CONFLICT
        if not -1 <= task.index < task.fan_out.size:
            return CONFLICT
        if task.is_fold and (barrier is None or not barrier.complete or barrier.run != task.run):
            return "stale"
        row = self.rows.get((task.thread_id, task.task_id))
        if row is None:
            if barrier is not None and self._taken(task.fan_out.id, task.index):
                # A refused place is refused whatever is on it.
                return "closed" if self._closed(barrier, task) else CONFLICT
            if barrier is not None and self._closed(barrier, task):
                return "closed"
        elif (row.fan_out_id, row.index, row.arg_hash) != (task.fan_out.id, task.index, result.arg_hash):
            return CONFLICT
        elif task.run <= row.run:
            return "duplicate"
        if barrier is None:
            barrier = self.barriers[task.fan_out.id] = Barrier(task.thread_id, (task.fan_out, base))
        self.clocks[task.thread_id] = base if clock is None else clock.merge(base)
        status = "failed" if result.failed else "done"
        self.rows[task.thread_id, task.task_id] = Row(
            task.fan_out.id, task.index, task.run, status, result.arg_hash, result.payload
        )
        if not barrier.complete and not task.is_fold and self._is_complete(task.fan_out):
            barrier.complete = True
            self.completed.append((task.fan_out.id, barrier.run))
        return "applied"

    def reopen(self, fan_out_id: str, task_ids: Sequence[str]) -> int | None:
        barrier = self.barriers.get(fan_out_id)
        if barrier is None:
            return None
        again = [
            row
            for (_, task_id), row in self.rows.items()
            if row.fan_out_id == fan_out_id and row.index >= 0 and row.status != "pending" and task_id in task_ids
        ]
        run = max([barrier.run + barrier.complete, *(row.run + 1 for row in again)])
        if again and not self.clocks[barrier.thread_id].makes_stale(barrier.declared[1]):
            for row in again:
                row.status = "pending"
            barrier.run, barrier.complete = run, False
        return run

    def remaining(self, fan_out_id: str) -> int:
        return self.barriers[fan_out_id].declared[0].size - len(self._settled(fan_out_id))

    def failed(self, fan_out_id: str) -> int:
        return sum(row.status == "failed" for row in self._settled(fan_out_id))

    def _settled(self, fan_out_id: str) -> list[Row]:
        return [
            row
            for row in self.rows.values()
            if row.fan_out_id == fan_out_id and row.index >= 0 and row.status != "pending"
        ]

    def _is_complete(self, fan_out: FanOut) -> bool:
        settled = self._settled(fan_out.id)
        enough = fan_out.quorum is not None and self._successes(fan_out.id) >= fan_out.quorum
        return enough or len(settled) == fan_out.size

    def _successes(self, fan_out_id: str) -> int:
        return sum(row.status == "done" for row in self._settled(fan_out_id))

    def _taken(self, fan_out_id: str, index: int) -> bool:
        return any(row.fan_out_id == fan_out_id and row.index == index for row in self.rows.values())

    def _closed(self, barrier: Barrier, task: Task) -> bool:
        """Whether a quorum takes no more; one that was reopened with enough successes waits for its reruns only."""
        quorum = task.fan_out.quorum
        if quorum is None or task.is_fold:
            return False
        return barrier.complete or self._successes(task.fan_out.id) >= quorum


def explain(
    before: Oracle, batch: Sequence[Finished], outcomes: Sequence[str], completed: Sequence[tuple[str, int]]
) -> list[Oracle]:
    """The states after every order of single commits that gives these outcomes; empty: the batch equals none.

    The order as given comes first and nearly always does it. A result that a higher run in the same batch replaced may
    be left out: a quorum counts what stands at the end of a batch, not a success that was taken back within it.
    """
    everything = list(range(len(batch)))
    final = [position for position in everything if not _replaced_within(batch, outcomes, position)]
    for positions in (everything, final):
        found = []
        for order in permutations(positions):
            oracle = copy.deepcopy(before)
            oracle.completed = []
            if all(oracle.commit(batch[position]) == outcomes[position] for position in order) and sorted(
                oracle.completed
            ) == sorted(completed):
                found.append(oracle)
                if list(order) == positions:
                    break
        if found:
            return found
    return []


def _replaced_within(batch: Sequence[Finished], outcomes: Sequence[str], position: int) -> bool:
    task = batch[position].task
    return outcomes[position] == "applied" and any(
        outcome == "applied"
        and (other.task.thread_id, other.task.task_id) == (task.thread_id, task.task_id)
        and other.task.run > task.run
        for other, outcome in zip(batch, outcomes, strict=True)
    )
