"""Which offsets of a partition are finished. Pure; an offset is always the next one to read.

Offsets may have gaps (transaction markers, compaction), so progress follows the delivered sequence: `next_offset` is
the first delivered offset that is not finished, or the one after the last delivered. What is finished above it are
islands: they are stored too, so that whoever takes over does not run them again. An island may cover a gap: nothing is
ever delivered there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Set
from itertools import islice

from fanfold_sql import Islands


def after(offset: int) -> int:
    """The offset to read once `offset` is done with. Nowhere else is one added to an offset."""
    return offset + 1


class Tracker:
    """Progress of one partition since it was claimed.

    Args:
        next_offset: where reading begins; None: wherever the first delivery is.
        islands: ranges above it that are finished already.
    """

    __slots__ = ("_finished", "_islands", "_position", "_unfinished")

    def __init__(self, next_offset: int | None, islands: Islands = ()) -> None:
        self._position = next_offset
        self._islands = islands
        # Delivered offsets from the first unfinished one on, in order; and which of them are finished.
        self._unfinished: deque[int] = deque()
        self._finished: set[int] = set()

    @property
    def next_offset(self) -> int | None:
        """Everything below is finished. None until something was delivered to a partition that never had progress."""
        return self._unfinished[0] if self._unfinished else self._position

    @property
    def at_rest(self) -> bool:
        """Whether nothing that was delivered is unfinished."""
        return not self._unfinished

    def deliver(self, offset: int) -> bool:
        """Note a delivery. False: it is finished or on its way already, so it must not be run."""
        if self._position is not None and offset < self._position:
            return False
        self._position = after(offset)
        self._unfinished.append(offset)
        if self._in_island(offset):
            self.finish(offset)
            return False
        return True

    def reach_end(self, offset: int) -> None:
        """Note that nothing below `offset` is still to be delivered: the log ends in records that never are
        (transaction markers), and a lag of one that never goes away would keep an autoscaler awake."""
        if self._position is None or offset > self._position:
            self._position = offset

    def finish(self, offset: int) -> None:
        """Note that a delivered offset needs nothing more."""
        self._finished.add(offset)
        unfinished, finished = self._unfinished, self._finished
        while unfinished and unfinished[0] in finished:
            finished.remove(unfinished.popleft())

    def islands(self) -> Islands:
        """Finished ranges above `next_offset`, ascending: those of this delivery, then those still to be delivered."""
        return self.progress(frozenset())[1]

    def progress(self, finishing: Set[int]) -> tuple[int | None, Islands]:
        """`next_offset`, and the finished ranges above it, ascending, as they will be with these offsets finished.

        Nothing is noted: the commit that says so may be refused.
        """
        unfinished = self._unfinished
        done = finishing | self._finished if self._finished else finishing
        first = next((n for n, offset in enumerate(unfinished) if offset not in done), len(unfinished))
        next_offset = unfinished[first] if first < len(unfinished) else self._position
        ranges: list[tuple[int, int]] = []
        if first < len(unfinished) and len(done) > first:
            low: int | None = None
            high = 0
            for offset in islice(unfinished, first, None):
                if offset in done:
                    low = offset if low is None else low
                    high = after(offset)
                elif low is not None:
                    ranges.append((low, high))
                    low = None
            if low is not None:
                ranges.append((low, high))
        return next_offset, self._with_claimed(ranges)

    def _with_claimed(self, ranges: list[tuple[int, int]]) -> Islands:
        """With those of the claim that are still to be delivered."""
        position = self._position
        for low, high in self._islands:
            if position is None or low >= position:
                ranges.append((low, high))
            elif high > position:
                # Partly delivered: what was, is counted above.
                ranges.append((position, high))
        return _joined(ranges)

    def _in_island(self, offset: int) -> bool:
        at = bisect_right(self._islands, (offset, float("inf"))) - 1
        return at >= 0 and self._islands[at][0] <= offset < self._islands[at][1]


def _joined(ranges: list[tuple[int, int]]) -> Islands:
    joined: list[tuple[int, int]] = []
    for low, high in ranges:
        if joined and joined[-1][1] >= low:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)
