"""Cancelled work in a running fleet: what is queued is skipped, what runs is refused, and the partition moves on."""

from __future__ import annotations

import pytest

from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_queued_tasks_of_a_cancelled_fan_out_are_skipped_and_later_work_goes_on(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("hold", {"n": n, "gate": "g"}) for n in range(40)], fold="sum")
    rig.start(topic, concurrency=4, in_flight_max=8)
    eventually(lambda: len(rig.notes.calls()) == 4)
    assert handle.cancel()
    rig.notes.open_gate("g")

    after = rig.publish(topic, [("square", 6)], thread_id="t2")
    assert after.result(20) == [36]
    eventually(
        lambda: rig.partitions()[0].next_offset == topic.end_offsets()[0], what="progress over the cancelled tasks"
    )
    # Four ran when it was cancelled, four more were checked already.
    assert len(rig.notes.calls()) <= 8 + 1
    assert rig.count_results() == 1
    assert rig.dead_letters() == []
    rig.assert_sound()
