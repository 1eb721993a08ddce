"""What a campaign publishes, and what must become of it. Pure: producers, handlers and the checker work it
out alike."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from fanfold_schemas import Send, derive_child_fan_out_id, derive_task_id

Kind = Literal[
    "whole",  # every task ends as its arg says, and it folds
    "quorum",  # its first successes complete it
    "failures",  # one failure too many ends it
    "deadline",  # its last task was never published
    "cancelled",  # or whole, if the cancel came too late
    "older",  # whole, or stale because the newer one was first
    "stale",  # published when its thread had moved on: nothing
]
Way = Literal["atomic", "records", "enqueue", "rolled_back"]
Value = list[int]

FOLD = "tally"
ALWAYS = -1
"""In an arg: fails however often it is tried."""
_SYNC_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """One fan-out. Its tasks follow from its id, so that a log needs one short line for it."""

    fan_out_id: str
    thread_id: str
    topic: str
    size: int
    kind: Kind = "whole"
    way: Way = "atomic"
    fold: str | None = FOLD
    base: Mapping[str, int] | None = None
    quorum: int | None = None
    max_failures: int | None = None
    deadline_ms: int | None = None
    on_deadline: Literal["fail", "fold"] = "fail"
    poisoned: int = 0
    flaky: int = 0
    children: int = 0
    """Each task opens a fan-out of so many; 0: none does."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sends(self) -> list[Send]:
        rng = random.Random(self.fan_out_id)
        sends = []
        for index in range(self.size):
            arg: dict[str, int] = {"v": rng.randrange(1 << 30)}
            node = "work-sync" if rng.random() < _SYNC_SHARE else "work"
            if self.children:
                node, arg["children"] = "branch", self.children
            elif index < self.poisoned:
                node, arg["fails"] = "poison", ALWAYS
            elif index < self.poisoned + self.flaky:
                node, arg["fails"] = "flaky", 1 + index % 2
            sends.append(Send(node, arg))
        return sends

    def build(self) -> BuiltFanOut:
        """Its records, all of them."""
        return build_fan_out(
            self.thread_id,
            self.sends(),
            topic=self.topic,
            fan_out_id=self.fan_out_id,
            fold=self.fold,
            base=self.base,
            quorum=self.quorum,
            max_failures=self.max_failures,
            deadline_ms=self.deadline_ms,
            on_deadline=self.on_deadline,
        )

    def values(self) -> dict[int, Value]:
        """What each task that does not fail for good comes to."""
        return {
            index: value_of(derive_task_id(self.fan_out_id, index), index, send.arg)
            for index, send in enumerate(self.sends())
            if send.arg.get("fails") != ALWAYS
        }

    def child_plans(self) -> list[Plan]:
        """The fan-outs that its tasks open."""
        if not self.children:
            return []
        return [
            child_plan(derive_task_id(self.fan_out_id, index), self.thread_id, self.topic, self.children)
            for index in range(self.size)
        ]


def child_plan(task_id: str, thread_id: str, topic: str, size: int) -> Plan:
    return Plan(derive_child_fan_out_id(task_id, 1), thread_id, topic, size)


def value_of(task_id: str, index: int, arg: Mapping[str, Any]) -> Value:
    """A task's result. It depends on all that a mix-up could exchange."""
    text = json.dumps([task_id, index, arg], sort_keys=True)
    return [index, int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())]


def tally_of(values: Iterable[Value], failed: Sequence[int], missing: Sequence[int]) -> dict[str, Any]:
    """A fold's result: which indexes it was given, in which order, and a digest of what they were."""
    listed = [list(value) for value in values]
    digest = hashlib.blake2b(json.dumps(listed).encode(), digest_size=8).hexdigest()
    return {"count": len(listed), "failed": list(failed), "missing": list(missing), "digest": digest}


def delay_s_of(task_id: str, mean_s: float) -> float:
    """How long its handler takes: exponential, and the same at each attempt."""
    return min(random.Random(task_id).expovariate(1 / mean_s), 10 * mean_s)
