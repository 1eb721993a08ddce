"""Which records the groups were done with, when the audit began."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from fanfold_sql import Islands, PartitionState


class Passed:
    """Progress of all groups that read a topic. It must be read before the log and the tables.

    What was passed then has had its result, refusal or dead letter since then, so what the tables say later can be
    held against it while members go on working.
    """

    def __init__(self, states: Iterable[PartitionState]) -> None:
        by_group: dict[str, dict[int, PartitionState]] = {}
        for state in states:
            by_group.setdefault(state.group_id, {})[state.partition] = state
        self.groups = sorted(by_group)
        self._by_group = [by_group[group] for group in self.groups]

    def passed(self, partition: int, offset: int) -> bool:
        """Whether every group was done with this record. Without any group, none was."""
        return bool(self._by_group) and all(_is_done(states.get(partition), offset) for states in self._by_group)

    def first_open(self, partition: int, low: int) -> int:
        """The first offset from `low` on that may not be passed."""
        standing = [states.get(partition) for states in self._by_group]
        offsets = [state.next_offset if state is not None else None for state in standing]
        return max(low, min((low if offset is None else offset for offset in offsets), default=low))

    def next_offsets(self, partition: int) -> dict[str, int | None]:
        """Where each group stood."""
        states = [by_partition.get(partition) for by_partition in self._by_group]
        return {g: None if s is None else s.next_offset for g, s in zip(self.groups, states, strict=True)}


def _is_done(state: PartitionState | None, offset: int) -> bool:
    if state is None or state.next_offset is None:
        return False
    return offset < state.next_offset or _contains(state.islands, offset)


def _contains(islands: Islands, offset: int) -> bool:
    at = bisect_right(islands, (offset, float("inf"))) - 1
    return at >= 0 and offset < islands[at][1]
