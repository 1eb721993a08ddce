"""What a member holds at once, and that nothing waits for more than it must."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_consumer.poller import PATIENCE_S
from tests.support.kafka import Topic
from tests.support.members import SESSION_S
from tests.support.rig import Rig, holds_for
from tests.support.wait import eventually

SMALL: dict[str, Any] = {"in_flight_max": 50, "concurrency": 20, "batch_results_max": 50}


@pytest.mark.parametrize("topic", [2], indirect=True)
def test_no_more_than_in_flight_max_is_ever_held_and_the_member_stays_in_its_group(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("hold", {"n": n, "gate": "all"}) for n in range(500)], fold="sum")
    member = rig.start_here(topic, **SMALL)
    eventually(lambda: member.metric("fanfold_in_flight") == 50, what="50 in flight")

    def holds() -> bool:
        return member.metric("fanfold_in_flight") == 50 and len(rig.notes.calls()) == 20

    holds_for(max(PATIENCE_S, SESSION_S) + 1.0, holds, what="50 in flight, 20 of them running")

    rig.notes.open_gate("all")
    assert handle.result(20) == sum(range(500))
    assert {state.epoch for state in rig.partitions().values()} == {1}
    assert rig.notes.again() == 0
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_few_blocked_handlers_leave_the_rest_of_the_room_to_others(rig: Rig, topic: Topic) -> None:
    blocked = rig.build(topic, [("hold", {"n": n, "gate": "all"}) for n in range(19)])
    rig.write(blocked.records)
    handle = rig.publish(topic, [("square", n) for n in range(500)], fold="count")
    rig.start_here(topic, **SMALL)

    assert handle.result(20) == 500
    rig.notes.open_gate("all")
    assert rig.handle(blocked).result(20) == list(range(19))


@pytest.mark.parametrize("topic", [2], indirect=True)
def test_in_flight_is_bounded_by_bytes_too(rig: Rig, topic: Topic) -> None:
    arg = {"n": 1, "gate": "all", "ballast": b"x" * 250_000}
    handle = rig.publish(topic, [("hold", arg) for _ in range(40)], fold="sum")
    member = rig.start_here(topic, in_flight_bytes_max=1024 * 1024, poll_records_max=1)
    eventually(lambda: member.metric("fanfold_in_flight") == 5, what="just above 1 MiB in flight")
    holds_for(1.0, lambda: member.metric("fanfold_in_flight") == 5, what="1 MiB and the record that passed it")
    rig.notes.open_gate("all")
    assert handle.result(20) == 40


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_finished_results_are_visible_while_others_still_run(rig: Rig, topic: Topic) -> None:
    sends = [("hold", {"n": n, "gate": f"gate-{n}"}) for n in range(5)]
    handle = rig.publish(topic, sends, fold="sum")
    rig.start_here(topic)
    eventually(lambda: len(rig.notes.calls()) == 5)

    for n in (3, 1, 4, 0):
        rig.notes.open_gate(f"gate-{n}")
        rig.await_value(handle.fan_out_id, n, 2.0)
    assert set(rig.values(handle.fan_out_id)) == {0, 1, 3, 4}
    progress = handle.progress()
    assert progress is not None
    assert progress.remaining == 1

    rig.notes.open_gate("gate-2")
    assert handle.result(20) == 10
