"""Partitions that move: what runs may finish, what takes too long is let go, and nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_producer import FanOutHandle
from fanfold_producer.kafka import KafkaConfig
from tests.support.kafka import Topic
from tests.support.members import Member
from tests.support.rig import Rig
from tests.support.wait import eventually


def test_handlers_that_outlast_the_grace_are_let_go_and_run_again_where_their_partition_went(
    rig: Rig, topic: Topic
) -> None:
    built = rig.build(topic, [("hold", {"n": n, "gate": "all"}) for n in range(8)], fold="sum")
    for number in range(topic.partitions):
        rig.write(built.records[2 * number : 2 * number + 2], partition=number)
    first = rig.start(topic, revoke_grace_s=0.5)
    eventually(lambda: len(rig.notes.calls()) == 8)

    second = rig.start(topic, revoke_grace_s=0.5)
    second.await_event("partition.claimed")
    first.await_event("fleet.drain_exceeded")

    def let_go() -> int:
        return sum(event["in_flight"] for event in first.events("fleet.drain_exceeded"))

    eventually(lambda: rig.notes.again() == let_go(), what="what was let go runs again")
    assert 0 < let_go() <= 8

    rig.notes.open_gate("all")
    assert rig.handle(built).result(20) == sum(range(8))
    assert max(rig.notes.counts().values()) == 2
    # A handler that was let go is cancelled: it does not go on beside its successor.
    assert set(rig.notes.counts("ended").values()) == {1}
    rig.assert_sound()


def test_a_rolling_restart_under_load_runs_nothing_twice_and_loses_nothing(rig: Rig, topic: Topic) -> None:
    def more_work() -> FanOutHandle:
        return rig.publish(topic, [("slow", {"n": n, "s": 0.03}) for n in range(300)], fold="sum")

    members = [_few_at_once(rig, topic) for _ in range(2)]
    handles = [more_work()]
    for old in list(members):
        members.append(_few_at_once(rig, topic))
        handles.append(more_work())  # so there is some when it stops, however long the new one took to start
        assert old.stop() == 0
    assert [handle.result(20) for handle in handles] == [sum(range(300))] * 3
    assert rig.notes.again() == 0
    assert len({call.pid for call in rig.notes.calls()}) >= 3, "the work was over before the fleet was replaced"
    assert rig.dead_letters() == []
    rig.assert_sound()


@pytest.mark.needs_real_kafka("the embedded broker knows only `range`, with which its other tests run")
@pytest.mark.parametrize("properties", [{"partition.assignment.strategy": "range"}, {"group.protocol": "consumer"}])
def test_partitions_move_without_a_second_run_under_the_other_protocols_too(
    rig: Rig, topic: Topic, properties: dict[str, str]
) -> None:
    """Eagerly, where every partition is given up at each change, and with KIP-848, where the broker assigns."""
    kafka = KafkaConfig(rig.kafka.bootstrap_servers, {f"consumer.{name}": value for name, value in properties.items()})
    first = _few_at_once(rig, topic, kafka=kafka)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.03}) for n in range(900)], fold="sum")
    eventually(handle.progress)
    second = _few_at_once(rig, topic, kafka=kafka)
    assert first.events("partition.released")
    assert first.stop() == 0
    assert handle.result(20) == sum(range(900))
    assert rig.notes.again() == 0
    assert second.alive
    rig.assert_sound()


def _few_at_once(rig: Rig, topic: Topic, **settings: Any) -> Member:
    return rig.start(topic, concurrency=4, in_flight_max=40, **settings).await_partitions(1)
