"""What going on from elsewhere gives up."""

from __future__ import annotations

from uuid import uuid4

import pytest

from fanfold_consumer.replay.cost import cost_of, given_up
from fanfold_consumer.replay.plan import LogRange
from fanfold_sql import Islands, PartitionState, Stopped


def _state(next_offset: int | None, islands: Islands = (), stopped: Stopped = "gone") -> PartitionState:
    return PartitionState(
        1, "g", "c", "t", "id", 0, 1, uuid4(), next_offset, islands, 0, None, None, 0.0, stopped, "why"
    )


@pytest.mark.parametrize(
    ("next_offset", "islands", "to", "expected"),
    [
        (10, (), 25, ((10, 25),)),
        (10, ((12, 14), (20, 30)), 25, ((10, 12), (14, 20))),
        (10, ((10, 40),), 25, ()),
        (10, ((30, 40),), 25, ((10, 25),)),
        (10, (), 10, ()),
        (30, (), 25, ()),
        (None, (), 25, ((20, 25),)),
    ],
)
def test_what_was_never_finished_below_the_new_offset_is_given_up(
    next_offset: int | None, islands: Islands, to: int, expected: Islands
) -> None:
    assert given_up(_state(next_offset, islands), LogRange(20, 50), to) == expected


def test_what_is_gone_is_told_from_what_is_passed_over() -> None:
    cost = cost_of(_state(10, ((22, 40),)), LogRange(20, 50), 41)
    assert cost == (
        "10 offsets (10 to 19) were deleted before they were read; 3 offsets (20 to 21, 40) are passed over unread"
    )


def test_going_on_in_a_log_that_was_cut_off_says_what_nobody_can_count() -> None:
    state = _state(30)
    assert "cut off" in cost_of(state, LogRange(0, 50), 20)
    assert cost_of(state, LogRange(0, 50), 0).startswith("nothing is given up")


def test_a_batch_that_cannot_be_read_is_no_log_that_was_cut_off() -> None:
    cost = cost_of(_state(30, stopped="unreadable"), LogRange(0, 50), 40)
    assert cost == "10 offsets (30 to 39) are passed over unread"
