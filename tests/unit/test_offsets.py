"""Progress of a partition, against plain sets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold_consumer.offsets import Tracker, after
from fanfold_sql import Islands
from tests.support.tree import ROOT

_OFFSET_MAX = 24


def _ranges(offsets: set[int]) -> Islands:
    """The maximal half-open ranges that cover exactly these offsets."""
    lows = sorted(offset for offset in offsets if offset - 1 not in offsets)
    highs = sorted(after(offset) for offset in offsets if after(offset) not in offsets)
    return tuple(zip(lows, highs, strict=True))


def _offsets(islands: Islands) -> set[int]:
    return {offset for low, high in islands for offset in range(low, high)}


@dataclass
class _Oracle:
    """The same partition as sets. `log`: the offsets it has, the others are gaps."""

    log: set[int]
    start: int | None
    claimed: set[int]
    delivered: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)

    def deliver(self, offset: int) -> bool:
        self.delivered.add(offset)
        if offset in self.claimed:
            self.finished.add(offset)
        return offset not in self.claimed

    @property
    def running(self) -> list[int]:
        return sorted(self.delivered - self.finished)

    @property
    def position(self) -> int | None:
        return after(max(self.delivered)) if self.delivered else self.start

    @property
    def next_offset(self) -> int | None:
        return min(self.delivered - self.finished, default=self.position)

    @property
    def islands(self) -> set[int]:
        finished = {offset for offset in self.finished if offset > (self.next_offset or 0)}
        return finished | {offset for offset in self.claimed if offset >= (self.position or 0)}

    @property
    def unfinished(self) -> list[int]:
        """What a successor must run."""
        known = self.finished | self.claimed
        return sorted(offset for offset in self.log if offset >= (self.start or 0) and offset not in known)


@st.composite
def _partitions(draw: st.DrawFn) -> _Oracle:
    offsets = st.integers(0, _OFFSET_MAX)
    start = draw(st.none() | offsets)
    claimed: set[int] = set()
    if start is not None:
        low = start
        claimed = draw(st.sets(offsets.filter(lambda offset: offset >= low)))
    return _Oracle(draw(st.sets(offsets)), start, claimed)


_CHOICES = st.lists(st.integers(0, 1000), max_size=60)
"""What to do next: even, deliver; odd, finish; and which of those that run."""


def _run(oracle: _Oracle, choices: list[int]) -> Iterator[Tracker]:
    """Deliver in log order and finish in any order; the tracker after every step, with the oracle at the same step."""
    tracker = Tracker(oracle.start, _ranges(oracle.claimed))
    coming = sorted(offset for offset in oracle.log if offset >= (oracle.start or 0))
    yield tracker
    for choice in choices:
        running = oracle.running
        if coming and (choice % 2 == 0 or not running):
            offset = coming.pop(0)
            assert tracker.deliver(offset) is oracle.deliver(offset)
        elif running:
            offset = running[choice // 2 % len(running)]
            oracle.finished.add(offset)
            tracker.finish(offset)
        yield tracker


@given(_partitions(), _CHOICES)
def test_next_offset_is_the_first_unfinished_delivery_or_where_reading_goes_on(
    oracle: _Oracle, choices: list[int]
) -> None:
    for tracker in _run(oracle, choices):
        assert tracker.next_offset == oracle.next_offset


@given(_partitions(), _CHOICES)
def test_next_offset_never_goes_back(oracle: _Oracle, choices: list[int]) -> None:
    before: int | None = None
    for tracker in _run(oracle, choices):
        now = tracker.next_offset
        assert before is None or (now is not None and now >= before)
        before = now


@given(_partitions(), _CHOICES)
def test_islands_are_the_finished_deliveries_above_next_offset_and_the_claimed_ones_to_come(
    oracle: _Oracle, choices: list[int]
) -> None:
    for tracker in _run(oracle, choices):
        islands = tracker.islands()
        covered = _offsets(islands)
        assert covered >= oracle.islands
        # A gap between two finished deliveries may be covered with them: nothing will ever be delivered there.
        assert not (covered - oracle.islands) & oracle.log
        assert all(offset < (oracle.position or 0) for offset in covered - oracle.islands)
        assert islands == _ranges(covered), "ascending, and apart from each other"


@given(_partitions(), _CHOICES)
def test_whoever_claims_from_stored_progress_is_given_exactly_what_is_unfinished(
    oracle: _Oracle, choices: list[int]
) -> None:
    for tracker in _run(oracle, choices):
        successor = Tracker(tracker.next_offset, tracker.islands())
        assert [offset for offset in sorted(oracle.log) if successor.deliver(offset)] == oracle.unfinished


@given(_partitions(), st.integers(0, 10), st.randoms(use_true_random=False))
def test_a_partition_that_changes_hands_has_every_offset_run_once(oracle: _Oracle, batch: int, random: Random) -> None:
    ran: list[int] = []
    next_offset, islands = oracle.start, _ranges(oracle.claimed)
    for count in (batch, batch, len(oracle.log)):
        tracker = Tracker(next_offset, islands)
        begun = [offset for offset in sorted(oracle.log) if tracker.deliver(offset)]
        finished = random.sample(begun, min(count, len(begun)))
        for offset in finished:
            tracker.finish(offset)
        ran += finished
        next_offset, islands = tracker.next_offset, tracker.islands()
    assert sorted(ran) == oracle.unfinished
    assert _offsets(islands) == {offset for offset in oracle.claimed if offset >= (next_offset or 0)}


@given(_partitions(), _CHOICES)
def test_a_delivery_that_came_before_changes_nothing(oracle: _Oracle, choices: list[int]) -> None:
    for tracker in _run(oracle, choices):
        before = tracker.next_offset, tracker.islands()
        assert not any(tracker.deliver(offset) for offset in sorted(oracle.delivered))
        assert (tracker.next_offset, tracker.islands()) == before


@given(_partitions(), _CHOICES, st.integers(0, 5))
def test_the_end_of_the_log_moves_progress_past_what_is_never_delivered_and_no_further(
    oracle: _Oracle, choices: list[int], markers: int
) -> None:
    *_, tracker = _run(oracle, choices)
    for offset in sorted(oracle.log):
        if tracker.deliver(offset):
            oracle.delivered.add(offset)
        elif offset in oracle.claimed and offset >= (oracle.start or 0):
            oracle.deliver(offset)
    end = (oracle.position or 0) + markers
    tracker.reach_end(end)
    assert tracker.next_offset == min(oracle.running, default=end)
    for offset in oracle.running:
        tracker.finish(offset)
    assert tracker.next_offset == end
    assert _offsets(tracker.islands()) == {offset for offset in oracle.claimed if offset >= end}


def test_an_end_that_was_passed_already_moves_nothing() -> None:
    tracker = Tracker(10)
    tracker.deliver(12)
    tracker.finish(12)
    tracker.reach_end(11)
    assert tracker.next_offset == 13


def test_the_end_does_not_move_progress_past_what_is_still_running() -> None:
    tracker = Tracker(10)
    tracker.deliver(10)
    tracker.reach_end(12)
    assert tracker.next_offset == 10
    tracker.finish(10)
    assert tracker.next_offset == 12


def test_an_empty_partition_has_progress_once_its_end_is_known() -> None:
    tracker = Tracker(None)
    tracker.reach_end(0)
    assert tracker.next_offset == 0


def test_a_partition_that_never_had_progress_has_none_before_its_first_delivery() -> None:
    tracker = Tracker(None)
    assert tracker.next_offset is None
    assert tracker.islands() == ()
    assert tracker.deliver(17)
    assert tracker.next_offset == 17


def test_a_gap_in_finished_offsets_holds_next_offset_before_the_gap() -> None:
    tracker = Tracker(10)
    for offset in (10, 11, 12):
        tracker.deliver(offset)
    tracker.finish(10)
    tracker.finish(12)
    assert tracker.next_offset == 11
    assert tracker.islands() == ((12, 13),)


def test_a_gap_in_the_log_holds_nothing() -> None:
    tracker = Tracker(10)
    tracker.deliver(10)
    tracker.deliver(25)
    tracker.finish(10)
    assert tracker.next_offset == 25
    tracker.finish(25)
    assert tracker.next_offset == 26
    assert tracker.islands() == ()


def test_what_lies_below_the_claim_is_finished() -> None:
    tracker = Tracker(10)
    assert not tracker.deliver(9)
    assert tracker.next_offset == 10


def test_an_island_from_the_claim_is_kept_while_it_is_only_partly_delivered() -> None:
    tracker = Tracker(5, ((7, 12),))
    for offset in (5, 7, 8):
        tracker.deliver(offset)
    assert tracker.next_offset == 5
    assert tracker.islands() == ((7, 12),)


def _increments(source: str) -> list[int]:
    """Lines on which one is added to something called an offset."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.BinOp | ast.AugAssign)]
    return [node.lineno for node in nodes if _is_increment(node)]


def _is_increment(node: ast.BinOp | ast.AugAssign) -> bool:
    if isinstance(node, ast.AugAssign):
        return isinstance(node.op, ast.Add) and _is_one(node.value) and _is_offset(node.target)
    sides = (node.left, node.right)
    return isinstance(node.op, ast.Add) and any(map(_is_one, sides)) and any(map(_is_offset, sides))


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def _is_offset(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return _is_offset(node.func)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.lower().endswith(("offset", "position"))


def test_one_is_added_to_an_offset_in_exactly_one_place() -> None:
    texts = {file: file.read_text(encoding="utf-8") for file in sorted((ROOT / "consumer").rglob("*.py"))}
    found = [(file.name, line) for file, text in texts.items() for line in _increments(text)]
    assert [name for name, _ in found] == ["offsets.py"], found


@pytest.mark.parametrize(
    "source",
    ["offset + 1", "1 + offset", "self._next_offset + 1", "message.offset() + 1", "offset += 1", "f(x=offset + 1)"],
)
def test_an_addition_to_an_offset_is_found_wherever_it_hides(source: str) -> None:
    assert _increments(source) == [1]


@pytest.mark.parametrize("source", ["offset + 2", "count + 1", "offset - 1", "offset += lag", "offsets + [1]"])
def test_other_sums_are_not_mistaken_for_it(source: str) -> None:
    assert not _increments(source)
