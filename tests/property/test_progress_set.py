"""A partition's progress is a set of finished offsets: it only grows, and does not say in which order they came."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fanfold_consumer.offsets import Tracker
from fanfold_sql import Islands

_OFFSETS = range(30)
_logs = st.sets(st.sampled_from(_OFFSETS), min_size=1)
_randoms = st.randoms(use_true_random=False)


def _covered(next_offset: int | None, islands: Islands) -> set[int]:
    """What a claim of this progress would not run."""
    return {
        offset
        for offset in _OFFSETS
        if (next_offset is not None and offset < next_offset) or any(low <= offset < high for low, high in islands)
    }


@given(_logs, st.data(), st.lists(_randoms, min_size=2, max_size=2))
def test_progress_does_not_depend_on_the_order_in_which_offsets_finish(
    log: set[int], data: st.DataObject, randoms: list[Random]
) -> None:
    finished = sorted(data.draw(st.sets(st.sampled_from(sorted(log)))))
    ends = set()
    for random in randoms:
        tracker = Tracker(0)
        for offset in sorted(log):
            tracker.deliver(offset)
        for offset in random.sample(finished, len(finished)):
            tracker.finish(offset)
        assert tracker.next_offset is not None
        ends.add((tracker.next_offset, tracker.islands()))
    assert len(ends) == 1
    # Gaps of the log below what is finished may be in it or not; of what was delivered, exactly what finished.
    assert _covered(*ends.pop()) & log == set(finished)


@given(_logs, _randoms)
def test_progress_only_grows(log: set[int], random: Random) -> None:
    tracker = Tracker(0)
    for offset in sorted(log):
        tracker.deliver(offset)
    before: set[int] = set()
    for offset in random.sample(sorted(log), len(log)):
        tracker.finish(offset)
        now = _covered(tracker.next_offset, tracker.islands())
        assert now >= before | {offset}
        before = now


@given(_logs, st.data(), _randoms)
def test_claiming_from_stored_progress_gives_the_same_set_as_never_having_lost_it(
    log: set[int], data: st.DataObject, random: Random
) -> None:
    handover = data.draw(st.sets(st.sampled_from(sorted(log))))
    kept = Tracker(0)
    for offset in sorted(log):
        kept.deliver(offset)
    for offset in handover:
        kept.finish(offset)
    resumed = Tracker(kept.next_offset, kept.islands())
    for offset in sorted(log):
        resumed.deliver(offset)
    for offset in random.sample(sorted(log - handover), len(log - handover)):
        kept.finish(offset)
        resumed.finish(offset)
        mine, theirs = (_covered(t.next_offset, t.islands()) & log for t in (kept, resumed))
        assert mine == theirs
