"""Reading the log again: where a group goes on from, and which tasks are published once more."""

from __future__ import annotations

from fanfold_consumer.replay.errors import ReplayInterrupted, ReplayRefused
from fanfold_consumer.replay.plan import LogRange, PlannedOffset, plan_offsets
from fanfold_consumer.replay.targets import Target

__all__ = [
    "LogRange",
    "PlannedOffset",
    "ReplayInterrupted",
    "ReplayRefused",
    "Target",
    "plan_offsets",
]
