"""What going on from elsewhere gives up: offsets that were never finished and are not read any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fanfold_consumer.replay.plan import LogRange
from fanfold_sql import Islands, PartitionState


def given_up(state: PartitionState, log: LogRange, next_offset: int) -> Islands:
    """Ranges of offsets below `next_offset` that the group never finished."""
    ranges: list[tuple[int, int]] = []
    position = log.low if state.next_offset is None else state.next_offset
    for low, high in (*state.islands, (next_offset, next_offset)):
        if position < min(low, next_offset):
            ranges.append((position, min(low, next_offset)))
        position = max(position, high)
    return tuple(ranges)


def cost_of(state: PartitionState, log: LogRange, next_offset: int) -> str:
    """The same in words, for somebody who has to choose."""
    lost = given_up(state, log, next_offset)
    deleted = [(low, min(high, log.low)) for low, high in lost if low < log.low]
    passed = [(max(low, log.low), high) for low, high in lost if high > log.low]
    said = []
    if deleted:
        said.append(f"{_counted(deleted)} were deleted before they were read")
    if passed:
        said.append(f"{_counted(passed)} are passed over unread")
    if _cut_off(state, log) and next_offset > log.low:
        said.append(f"the log was cut off: what was written since to offsets below {next_offset} is not read")
    return "; ".join(said) or "nothing is given up; what is committed is recognised and not run again"


def _cut_off(state: PartitionState, log: LogRange) -> bool:
    return state.stopped == "gone" and state.next_offset is not None and state.next_offset >= log.low


def _counted(ranges: Iterable[tuple[int, int]]) -> str:
    listed = list(ranges)
    count = sum(high - low for low, high in listed)
    shown = ", ".join(f"{low} to {high - 1}" if high - low > 1 else str(low) for low, high in listed[:5])
    more = ", ..." if len(listed) > 5 else ""
    return f"{count} offset{'s' if count > 1 else ''} ({shown}{more})"
