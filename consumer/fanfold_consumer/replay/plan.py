"""From a target, the log's bounds and where the group stands, to an offset per partition. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_consumer.replay.targets import (
    FromFile,
    ShiftBy,
    Target,
    ToCurrent,
    ToEarliest,
    ToLatest,
    ToOffset,
    ToTime,
)
from fanfold_sql import Islands


@dataclass(frozen=True, slots=True)
class LogRange:
    """What a partition holds: [low, high). `at_time`: its first offset at or after the asked time, if any."""

    low: int
    high: int
    at_time: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedOffset:
    """Where a partition would go on from. `current` None: the group never finished anything here.

    `given_up`: ranges of offsets that are not done and would not be; None: nobody asked.
    """

    partition: int
    current: int | None
    next_offset: int
    log: LogRange
    note: str | None = None
    given_up: Islands | None = None


def plan_offsets(
    target: Target, logs: Mapping[int, LogRange], current: Mapping[int, int | None]
) -> list[PlannedOffset]:
    """One entry per partition of `logs` that the target speaks of, ascending, clamped into the log.

    A group without progress stands at the start of the log: that is where its members would begin.

    Raises:
        ReplayRefused: the target names partitions that are not in `logs`.
    """
    if isinstance(target, FromFile):
        unknown = sorted(set(target.offsets) - set(logs))
        if unknown:
            raise ReplayRefused(
                f"the file has offsets for partitions {_listed(unknown)}, which are not among those "
                f"to be replayed ({_listed(sorted(logs))}); mend the file or --partitions"
            )
        logs = {partition: logs[partition] for partition in target.offsets}
    return [_planned(target, partition, logs[partition], current.get(partition)) for partition in sorted(logs)]


def _planned(target: Target, partition: int, log: LogRange, current: int | None) -> PlannedOffset:
    wanted, note = _wanted(target, partition, log, current)
    clamped = min(max(wanted, log.low), log.high)
    if clamped != wanted:
        edge = "begins" if wanted < log.low else "ends"
        note = f"{wanted} was asked for; the log {edge} at {clamped}"
    return PlannedOffset(partition, current, clamped, log, note)


def _wanted(target: Target, partition: int, log: LogRange, current: int | None) -> tuple[int, str | None]:
    standing = log.low if current is None else current
    never = "no progress yet, so counted from the start of the log" if current is None else None
    match target:
        case ToEarliest():
            return log.low, None
        case ToLatest():
            return log.high, None
        case ToCurrent():
            return standing, never
        case ToOffset(offset):
            return offset, None
        case ShiftBy(offsets):
            return standing + offsets, never
        case ToTime():
            if log.at_time is None:
                return log.high, "no record is that late; the end of the log"
            return log.at_time, None
        case FromFile(offsets):
            return offsets[partition], None


def _listed(partitions: list[int]) -> str:
    shown = ", ".join(map(str, partitions[:10]))
    return f"{shown}, ... ({len(partitions)})" if len(partitions) > 10 else shown or "none"
