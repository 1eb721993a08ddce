"""Members killed, paused and drained: what runs again is bounded, and nothing counts twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.kafka import Topic
from tests.support.members import SESSION_S
from tests.support.rig import Rig
from tests.support.wait import eventually

IN_FLIGHT = 16
WINDOW = 8


def _slow(count: int, seconds: float = 0.03) -> list[tuple[str, dict[str, float]]]:
    return [("slow", {"n": n, "s": seconds}) for n in range(count)]


def test_after_a_kill_9_only_what_was_in_flight_runs_again(rig: Rig, topic: Topic) -> None:
    limits: dict[str, Any] = {"in_flight_max": IN_FLIGHT, "concurrency": 4, "batch_results_max": WINDOW}
    victim, other = rig.start(topic, **limits), rig.start(topic, **limits)
    for member in (victim, other):
        member.await_event("partition.claimed")
    handle = rig.publish(topic, _slow(400), fold="sum")
    eventually(lambda: any(call.pid == victim.pid for call in rig.notes.calls("ended")))
    eventually(lambda: rig.count_results() >= 60)
    victim.kill()
    assert handle.result(60) == sum(range(400))
    # In flight bounds what was polled and not committed, so the window of the commit on its way is within it.
    assert rig.notes.again() <= IN_FLIGHT
    assert rig.rows("select count(*) from fanfold.result where index = -1") == [(1,)]
    rig.assert_sound()


def test_results_are_committed_while_others_of_their_batch_still_run(rig: Rig, topic: Topic) -> None:
    rig.start(topic)
    built = rig.build(topic, [("hold", {"n": 0, "gate": "late"}), *[("square", n) for n in range(1, 30)]], fold="sum")
    rig.write(built.records, partition=0)
    rig.await_results(29)
    state = rig.fan_out(built.fan_out.id)
    assert state is not None
    assert state.remaining == 1
    rig.notes.open_gate("late")
    assert rig.handle(built).result(20) == sum(n * n for n in range(30))


def test_finished_results_above_a_blocked_one_are_not_run_again_by_the_next_owner(rig: Rig, topic: Topic) -> None:
    first = rig.start(topic)
    built = rig.build(topic, [("hold", {"n": 0, "gate": "never"}), *[("square", n) for n in range(1, 40)]], fold="sum")
    rig.write(built.records, partition=0)
    rig.await_results(39)
    eventually(lambda: rig.partitions()[0].islands == ((1, 40),), what="an island above the blocked task")
    assert rig.partitions()[0].next_offset == 0
    first.kill()
    second = rig.start(topic)
    eventually(lambda: any(call.pid == second.pid for call in rig.notes.calls()), 30, what="the blocked task ran again")
    rig.notes.open_gate("never")
    assert rig.handle(built).result(30) == sum(n * n for n in range(40))
    again = {task_id for task_id, count in rig.notes.counts().items() if count > 1}
    assert again == {built.task_ids[0]}
    eventually(lambda: (rig.partitions()[0].next_offset or 0) >= 40)
    assert rig.partitions()[0].islands == ()
    rig.assert_sound()


def test_sigterm_finishes_what_runs_and_hands_over_so_that_nothing_runs_again(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic, concurrency=4, in_flight_max=200, drain_s=10)
    handle = rig.publish(topic, _slow(200, 0.05), fold="sum")
    eventually(lambda: rig.count_results() >= 20)
    assert member.stop() == 0
    assert len(rig.notes.calls("began")) == len(rig.notes.calls("ended")) == rig.count_results()
    assert all(state.owner is None for state in rig.partitions().values())
    rig.start(topic)
    assert handle.result(60) == sum(range(200))
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_a_drain_ends_at_its_bound_and_the_rest_runs_elsewhere(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic, drain_s=0.5)
    handle = rig.publish(topic, [("hold", {"n": 7, "gate": "g"})], fold="sum")
    eventually(lambda: rig.notes.calls())
    assert member.stop() == 0
    member.await_event("fleet.drain_exceeded", in_flight=1)
    rig.notes.open_gate("g")
    rig.start(topic)
    assert handle.result(30) == 7
    assert rig.notes.again() == 1


def test_a_second_sigterm_ends_at_once(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic, drain_s=600)
    handle = rig.publish(topic, [("hold", {"n": 7, "gate": "g"})], fold="sum")
    eventually(lambda: rig.notes.calls())
    member.terminate()
    member.await_event("fleet.drain_started")
    member.terminate()
    assert member.await_exit() == 130
    rig.notes.open_gate("g")
    rig.start(topic)
    assert handle.result(30) == 7


def test_a_member_that_joins_under_load_takes_partitions_and_nothing_runs_twice(rig: Rig, topic: Topic) -> None:
    first = rig.start(topic, concurrency=4, in_flight_max=40, revoke_grace_s=5)
    handle = rig.publish(topic, _slow(500), fold="sum")
    eventually(lambda: rig.count_results() >= 20)
    second = rig.start(topic, concurrency=4, in_flight_max=40)
    second.await_event("partition.claimed", 40)
    first.await_event("partition.released")
    assert handle.result(60) == sum(range(500))
    assert rig.notes.again() == 0
    assert {call.pid for call in rig.notes.calls()} == {first.pid, second.pid}
    rig.assert_sound()


@pytest.mark.needs_real_kafka("the embedded broker lets a session that was paused go on")
def test_a_member_paused_beyond_its_session_is_fenced_and_comes_back(rig: Rig, topic: Topic) -> None:
    zombie = rig.start(topic, concurrency=4, in_flight_max=IN_FLIGHT).await_partitions(topic.partitions)
    handle = rig.publish(topic, _slow(200, 0.05), fold="sum")
    eventually(lambda: rig.count_results() >= 20)
    zombie.pause()
    other = rig.start(topic, concurrency=4, in_flight_max=IN_FLIGHT)
    other.await_partitions(topic.partitions, 6 * SESSION_S + 15)
    epochs = {number: state.epoch for number, state in rig.partitions().items()}
    zombie.resume()
    assert handle.result(60) == sum(range(200))
    # Whatever it held was dropped: refused by the fence, or let go when Kafka told it that its session was over.
    eventually(lambda: zombie.events("partition.fenced") or zombie.events("partition.lost"))
    again = rig.publish(topic, _slow(60, 0.05), thread_id="t2", fold="sum")
    assert again.result(60) == sum(range(60))
    assert zombie.alive
    assert all(state.epoch >= epochs[number] for number, state in rig.partitions().items())
    assert rig.notes.again() <= IN_FLIGHT
    assert rig.dead_letters() == []
    rig.assert_sound()
