"""Which fan-outs a producer publishes, one after another: drawn from a seed, in the proportions that hurt."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from fanfold_schemas import new_fan_out_id
from tests.fault.chaos.plan import Plan

SIZE_MAX = 500
_DEADLINE = timedelta(seconds=3)


class Workload:
    """An endless supply of plans; some come in groups that are published one right after the other."""

    def __init__(self, rng: random.Random, topics: tuple[str, ...], label: str) -> None:
        self._rng = rng
        self._topics = topics
        self._label = label
        self._count = 0

    def next(self) -> list[Plan]:
        make, _ = self._rng.choices(_MIX, [weight for _, weight in _MIX])[0]
        return make(self)

    def _plan(self, thread: str, size: int, **fields: Any) -> Plan:
        return Plan(new_fan_out_id(), thread, self._rng.choice(self._topics), size, **fields)

    def _thread(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._label}-{self._count}"

    def _size(self) -> int:
        """1 to 500, small ones more often."""
        return int(SIZE_MAX ** self._rng.random())

    def _wide(self) -> list[Plan]:
        return [self._plan(self._thread("wide"), self._size())]

    def _hot(self) -> list[Plan]:
        """All producers on one thread."""
        return [self._plan("hot", min(60, self._size()))]

    def _tiny(self) -> list[Plan]:
        fold = self._rng.choice(["tally", None])
        return [self._plan(self._thread("tiny"), self._rng.randint(1, 3), way="records", fold=fold)]

    def _nested(self) -> list[Plan]:
        return [self._plan(self._thread("nested"), self._rng.randint(1, 5), children=self._rng.randint(1, 12))]

    def _poisoned(self) -> list[Plan]:
        size = self._rng.randint(2, 20)
        return [self._plan(self._thread("poison"), size, poisoned=self._rng.randint(1, 2))]

    def _flaky(self) -> list[Plan]:
        size = self._rng.randint(2, 20)
        return [self._plan(self._thread("flaky"), size, flaky=self._rng.randint(1, size))]

    def _quorum(self) -> list[Plan]:
        size = self._rng.randint(4, 60)
        return [self._plan(self._thread("quorum"), size, kind="quorum", quorum=self._rng.randint(1, size - 1))]

    def _failures(self) -> list[Plan]:
        allowed = self._rng.randint(0, 2)
        size = self._rng.randint(allowed + 1, 30)
        return [self._plan(self._thread("failures"), size, kind="failures", poisoned=allowed + 1, max_failures=allowed)]

    def _allowed_failures(self) -> list[Plan]:
        return [self._plan(self._thread("allowed"), self._rng.randint(3, 30), poisoned=2, max_failures=2)]

    def _deadline(self) -> list[Plan]:
        at_ms = int((datetime.now(UTC) + _DEADLINE).timestamp() * 1000)
        ends = self._rng.choice(["fail", "fold"])
        size = self._rng.randint(2, 20)
        thread = self._thread("deadline")
        return [self._plan(thread, size, kind="deadline", way="records", deadline_ms=at_ms, on_deadline=ends)]

    def _cancelled(self) -> list[Plan]:
        return [self._plan(self._thread("cancelled"), self._rng.randint(1, 60), kind="cancelled")]

    def _superseded(self) -> list[Plan]:
        thread = self._thread("superseded")
        older = self._plan(thread, self._rng.randint(1, 60), kind="older", base={"main": 1})
        return [older, self._plan(thread, self._rng.randint(1, 5), base={"main": 2, "side": 1})]

    def _stale(self) -> list[Plan]:
        thread = self._thread("stale")
        newer = self._plan(thread, 1, base={"main": 5}, way="records")
        return [newer, self._plan(thread, self._rng.randint(1, 5), kind="stale", base={"main": 4})]

    def _enqueued(self) -> list[Plan]:
        way = self._rng.choice(["enqueue", "enqueue", "rolled_back"])
        return [self._plan(self._thread(way.replace("_", "-")), self._rng.randint(1, 40), way=way)]


_MIX: list[tuple[Callable[[Workload], list[Plan]], float]] = [
    (Workload._wide, 10),
    (Workload._hot, 5),
    (Workload._tiny, 55),
    (Workload._nested, 4),
    (Workload._poisoned, 2),
    (Workload._flaky, 3),
    (Workload._quorum, 4),
    (Workload._failures, 2),
    (Workload._allowed_failures, 1),
    (Workload._deadline, 2),
    (Workload._cancelled, 3),
    (Workload._superseded, 3),
    (Workload._stale, 2),
    (Workload._enqueued, 6),
]
