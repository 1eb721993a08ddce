"""Which fan-outs of the log were seen, and which of their tasks: as little as is needed to tell what is not there."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator

_FIRST_SLOTS = 1024


class CompactSet:
    """A set of names that only grows: 64 bits of each one's hash, in a table that is half full at most.

    8 to 32 bytes a name, where a set of Python has a hundred. Two of ten million names are taken for one with a
    probability of some 1 in 400,000.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: str) -> bool:
        return self._slots[self._find(_hash(name))] != 0

    def add(self, name: str) -> bool:
        """Whether it was new."""
        value = _hash(name)
        at = self._find(value)
        if self._slots[at]:
            return False
        self._slots[at] = value
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def _find(self, value: int) -> int:
        slots, mask = self._slots, len(self._slots) - 1
        at = value & mask
        while slots[at] and slots[at] != value:
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(2 * 8 * len(old)))
        for value in old:
            if value:
                self._slots[self._find(value)] = value


def _hash(name: str) -> int:
    # 0 is an empty slot.
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") or 1


class InPart:
    """A fan-out of which not every task was seen yet. `newest_ms`: the time of its last record."""

    __slots__ = ("_bits", "_unseen", "newest_ms", "size", "thread_id")

    def __init__(self, thread_id: str, size: int) -> None:
        self.thread_id = thread_id
        self.size = size
        self.newest_ms = 0
        self._bits = bytearray((size + 7) // 8)
        self._unseen = size

    def note(self, index: int, timestamp_ms: int) -> bool:
        """Whether this is the first record of the task."""
        self.newest_ms = max(self.newest_ms, timestamp_ms)
        at, bit = index >> 3, 1 << (index & 7)
        if self._bits[at] & bit:
            return False
        self._bits[at] |= bit
        self._unseen -= 1
        return True

    @property
    def is_whole(self) -> bool:
        return self._unseen == 0

    def bits(self) -> int:
        """A bit for each index that was seen."""
        return int.from_bytes(self._bits, "little")


def bits_of(ranges: tuple[tuple[int, int], ...]) -> int:
    """Half-open ranges as bits."""
    found = 0
    for low, high in ranges:
        found |= (1 << high) - (1 << low)
    return found


def ranges_text(bits: int, shown: int = 10) -> str:
    """`3, 7..9`: the set bits as a text of bounded length."""
    ranges = list(_ranges(bits))
    texts = [str(low) if low == high else f"{low}..{high}" for low, high in ranges[:shown]]
    return ", ".join(texts) + (", ..." if len(ranges) > shown else "")


def _ranges(bits: int) -> Iterator[tuple[int, int]]:
    low = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        low += skip
        # Of ones in a row: the lowest zero says how many.
        count = (~bits & (bits + 1)).bit_length() - 1
        yield low, low + count - 1
        bits >>= count
        low += count
