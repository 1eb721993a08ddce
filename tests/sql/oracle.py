"""What one commit after another would do, in plain Python: the yardstick for commit_results and what goes with it.

It is written from the contract, not from the SQL: one result at a time, no batches, no locks. Threads, fan-outs and
results are here; partitions, the outbox and dead letters are in tests/property/ledger.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from fanfold_schemas import FanOut, Task, VectorClock
from fanfold_sql import Finished

CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Row:
    fan_out_id: str
    index: int
    run: int
    status: str
    arg_hash: int
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Barrier:
    """A fan-out. `declared` None: cancelled before anybody saw one of its tasks.

    `cancelled_by`: a caller, too many failures, or its deadline.
    """

    thread_id: str
    declared: tuple[FanOut, VectorClock] | None
    run: int = 1
    complete: bool = False
    folded: bool = False
    cancelled_by: str | None = None

    @property
    def cancelled(self) -> bool:
        return self.cancelled_by is not None

    @property
    def done(self) -> bool:
        """Whether nothing of it is still to come."""
        return self.complete and (self.folded or self.declared is None or self.declared[0].fold is None)


@dataclass(slots=True)
class Oracle:
    clocks: dict[str, VectorClock] = field(default_factory=dict)
    barriers: dict[str, Barrier] = field(default_factory=dict)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    deadlines: set[str] = field(default_factory=set)
    completed: list[tuple[str, int]] = field(default_factory=list)
    # Ended by failures since the copy was made: what belongs to the same batch is still taken.
    ending: set[str] = field(default_factory=set)

    def copy(self) -> Oracle:
        """One that goes on by itself; what it completes or ends is counted from here."""
        return Oracle(dict(self.clocks), dict(self.barriers), dict(self.rows), set(self.deadlines))

    def commit(self, result: Finished) -> str:
        task = result.task
        base = VectorClock(task.base)
        clock = self.clocks.get(task.thread_id)
        if clock is not None and clock.makes_stale(base):
            return "stale"
        barrier = self.barriers.get(task.fan_out.id)
        if barrier is not None and barrier.cancelled and task.fan_out.id not in self.ending:
            return "closed"
        if barrier is not None and barrier.declared is None:
            raise AssertionError(f"{task.fan_out.id} is open and nobody said what it is")
        if barrier is not None and (barrier.thread_id, barrier.declared) != (task.thread_id, (task.fan_out, base)):
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
            barrier = self._open(task)
        self.clocks[task.thread_id] = base if clock is None else clock.merge(base)
        status = "failed" if result.failed else "done"
        self.rows[task.thread_id, task.task_id] = Row(
            task.fan_out.id, task.index, task.run, status, result.arg_hash, result.payload
        )
        if task.is_fold:
            self.barriers[task.fan_out.id] = replace(barrier, folded=True)
        elif not barrier.complete:
            self._end_or_complete(task.fan_out, barrier)
        return "applied"

    def open(self, task: Task) -> None:
        """Open the fan-out of a task ahead of its first result."""
        base = VectorClock(task.base)
        clock = self.clocks.get(task.thread_id)
        if task.fan_out.id not in self.barriers and not (clock is not None and clock.makes_stale(base)):
            self._open(task)
            self.clocks[task.thread_id] = base if clock is None else clock.merge(base)

    def expire(self) -> list[tuple[str, bool]]:
        """All deadlines pass. Returns what was ended by it, and whether it is to be folded."""
        ended = []
        for name in sorted(self.deadlines):
            barrier = self.barriers.get(name)
            if barrier is None or barrier.declared is None or barrier.complete or barrier.cancelled or barrier.run > 1:
                continue
            if self.is_stale(name):
                continue
            folds = barrier.declared[0].on_deadline == "fold"
            self.barriers[name] = replace(barrier, complete=folds, cancelled_by=None if folds else "deadline")
            ended.append((name, folds))
        self.deadlines.clear()
        return ended

    def reopen(self, fan_out_id: str, task_ids: Sequence[str]) -> int | None:
        barrier = self.barriers.get(fan_out_id)
        if barrier is None:
            return None
        again = {
            key: row
            for key, row in self.rows.items()
            if row.fan_out_id == fan_out_id and row.index >= 0 and row.status != "pending" and key[1] in task_ids
        }
        run = max([barrier.run + barrier.complete, *(row.run + 1 for row in again.values())])
        if again and barrier.cancelled_by in (None, "failures") and not self.is_stale(fan_out_id):
            for key, row in again.items():
                self.rows[key] = replace(row, status="pending")
            self.barriers[fan_out_id] = replace(barrier, run=run, complete=False, folded=False, cancelled_by=None)
        return run

    def advance(self, thread_id: str, clock: VectorClock) -> VectorClock:
        """Move a thread up to `clock`: what is derived from less is stale from here on."""
        before = self.clocks.get(thread_id)
        self.clocks[thread_id] = clock if before is None else before.merge(clock)
        return self.clocks[thread_id]

    def cancel(self, fan_out_id: str, thread_id: str | None) -> str:
        """End a fan-out: 'cancelled' | 'done' | 'unknown' | 'refused' (it is of another thread)."""
        barrier = self.barriers.get(fan_out_id)
        if barrier is None:
            if thread_id is None:
                return "unknown"
            self.barriers[fan_out_id] = Barrier(thread_id, None, cancelled_by="caller")
            self.clocks.setdefault(thread_id, VectorClock())
            return "cancelled"
        if thread_id not in (None, barrier.thread_id):
            return "refused"
        if barrier.done:
            return "done"
        self.barriers[fan_out_id] = replace(barrier, cancelled_by="caller")
        return "cancelled"

    def cancel_thread(self, thread_id: str) -> tuple[VectorClock | None, list[str]]:
        """Move every branch on by one and cancel what is not done. Returns the clock and what was cancelled by this."""
        clock = self.clocks.get(thread_id)
        if clock is None:
            return None, []
        for branch in clock:
            clock = clock.advance(branch)
        self.clocks[thread_id] = clock
        ended = [
            fan_out_id
            for fan_out_id, barrier in sorted(self.barriers.items())
            if barrier.thread_id == thread_id and not barrier.done and not barrier.cancelled
        ]
        for fan_out_id in ended:
            self.barriers[fan_out_id] = replace(self.barriers[fan_out_id], cancelled_by="caller")
        return clock, ended

    def prune(self) -> tuple[int, int, int]:
        """Forget every fan-out that is finished or never will be. Returns how many fan-outs, results and threads."""
        gone = {
            fan_out_id
            for fan_out_id, barrier in self.barriers.items()
            if barrier.done or barrier.cancelled or self.is_stale(fan_out_id)
        }
        threads = {self.barriers[fan_out_id].thread_id for fan_out_id in gone}
        results = sum(row.fan_out_id in gone for row in self.rows.values())
        self.rows = {key: row for key, row in self.rows.items() if row.fan_out_id not in gone}
        self.barriers = {name: barrier for name, barrier in self.barriers.items() if name not in gone}
        threads -= {barrier.thread_id for barrier in self.barriers.values()}
        self.clocks = {name: clock for name, clock in self.clocks.items() if name not in threads}
        return len(gone), results, len(threads)

    def is_stale(self, fan_out_id: str) -> bool:
        barrier = self.barriers[fan_out_id]
        return barrier.declared is not None and self.clocks[barrier.thread_id].makes_stale(barrier.declared[1])

    def size(self, fan_out_id: str) -> int:
        declared = self.barriers[fan_out_id].declared
        return 0 if declared is None else declared[0].size

    def remaining(self, fan_out_id: str) -> int:
        return self.size(fan_out_id) - len(self._settled(fan_out_id))

    def failed(self, fan_out_id: str) -> int:
        return sum(row.status == "failed" for row in self._settled(fan_out_id))

    def _settled(self, fan_out_id: str) -> list[Row]:
        return [
            row
            for row in self.rows.values()
            if row.fan_out_id == fan_out_id and row.index >= 0 and row.status != "pending"
        ]

    def _open(self, task: Task) -> Barrier:
        if task.fan_out.deadline_ms is not None:
            self.deadlines.add(task.fan_out.id)
        barrier = self.barriers[task.fan_out.id] = Barrier(task.thread_id, (task.fan_out, VectorClock(task.base)))
        return barrier

    def _end_or_complete(self, fan_out: FanOut, barrier: Barrier) -> None:
        enough = fan_out.quorum is not None and self._successes(fan_out.id) >= fan_out.quorum
        if not enough and fan_out.max_failures is not None and self.failed(fan_out.id) > fan_out.max_failures:
            self.barriers[fan_out.id] = replace(barrier, cancelled_by="failures")
            self.ending.add(fan_out.id)
        elif enough or self.remaining(fan_out.id) == 0:
            # A batch that has both one failure too many and the last success of the quorum completes it.
            self.barriers[fan_out.id] = replace(barrier, complete=True, cancelled_by=None)
            self.ending.discard(fan_out.id)
            self.completed.append((fan_out.id, barrier.run))
        elif fan_out.id in self.ending:
            # One that was too many is taken back by the same batch.
            self.barriers[fan_out.id] = replace(barrier, cancelled_by=None)
            self.ending.discard(fan_out.id)

    def _successes(self, fan_out_id: str) -> int:
        return sum(row.status == "done" for row in self._settled(fan_out_id))

    def _taken(self, fan_out_id: str, index: int) -> bool:
        return any(row.fan_out_id == fan_out_id and row.index == index for row in self.rows.values())

    def _closed(self, barrier: Barrier, task: Task) -> bool:
        """Whether a quorum takes no more, or the fan-out is complete without this one, by its deadline; one that was
        reopened with enough successes waits for its reruns only."""
        quorum = task.fan_out.quorum
        if task.is_fold:
            return False
        if barrier.complete:
            return quorum is not None or self.remaining(task.fan_out.id) > 0
        return quorum is not None and self._successes(task.fan_out.id) >= quorum


def explain(
    before: Oracle, batch: Sequence[Finished], outcomes: Sequence[str], completed: Sequence[tuple[str, int]]
) -> list[Oracle]:
    """The states after every order of single commits that gives these outcomes; empty: the batch equals none.

    The order as given comes first and nearly always does it. A result that a higher run in the same batch replaced may
    be left out: quorums and limits count what stands at the end of a batch, not what was taken back within it.
    """
    everything = list(range(len(batch)))
    final = [position for position in everything if not _replaced_within(batch, outcomes, position)]
    for positions in (everything, final):
        found = []
        for order in permutations(positions):
            oracle = before.copy()
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
