"""What happens to topics under a fleet: made anew, shortened, read again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.cimpl import NewPartitions

from fanfold_producer import Sender
from fanfold_producer.kafka import KafkaConfig
from fanfold_sql import PartitionState
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator
from tests.support.rig import Rig
from tests.support.wait import eventually


def _squares(count: int) -> list[tuple[str, int]]:
    return [("square", n) for n in range(count)]


def test_a_topic_made_anew_between_two_lives_of_a_fleet_loses_nothing(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic)
    # Its fold too: a record that is deleted before it was read is gone.
    assert rig.publish(topic, _squares(100), thread_id="before", fold="sum").result(30)
    assert member.stop() == 0
    topic.recreate()
    handle = rig.publish(topic, _squares(150), thread_id="after", fold="sum")
    rig.start(topic)
    assert handle.result(30) == sum(n * n for n in range(150))
    rig.await_results(250)
    assert len(rig.notes.counts()) == 250
    assert rig.notes.again() == 0
    rig.assert_sound()


@pytest.mark.needs_real_kafka("the embedded broker does not tell members that a topic they read is gone")
def test_a_topic_made_anew_under_a_running_fleet_loses_nothing(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic)
    # Its fold too: a record that is deleted before it was read is gone.
    assert rig.publish(topic, _squares(100), thread_id="before", fold="sum").result(30)
    topic.recreate()
    rig.publish(topic, _squares(150), thread_id="after", fold="sum")
    rig.await_results(250, 60)
    assert member.alive
    assert rig.notes.again() == 0
    rig.assert_sound()


@pytest.mark.needs_real_kafka("the embedded broker does not delete records")
def test_a_partition_whose_next_records_are_gone_stops_until_an_operator_decides(
    rig: Rig, topic: Topic, broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = rig.build(topic, _squares(40), thread_id="t1")
    first = rig.start(topic)
    rig.write(built.records[:10], partition=0)
    rig.await_results(10)
    assert first.stop() == 0
    # Twenty more come and are deleted by retention before anybody has read them.
    rig.write(built.records[10:30], partition=0)
    admin = broker.admin()
    for future in admin.delete_records([TopicPartition(topic.name, 0, 25)]).values():
        future.result(15)
    second = rig.start(topic)
    stopped = second.await_event("partition.stopped", topic=topic.name, partition=0)
    assert (stopped["next_offset"], stopped["stopped"]) == (10, "gone")
    assert stopped["todo"] == f"fanfold resolve --group {rig.group} --topic {topic.name}"
    # The others go on, and this one has skipped nothing by itself.
    rig.write(built.records[30:40], partition=1)
    rig.await_results(20)
    assert rig.partitions()[0].next_offset == 10

    operator = Operator(broker, rig.database, monkeypatch, capsys)
    at = ["--group", rig.group, "--topic", topic.name, "--partition", 0]
    assert "15 offsets (10 to 24) were deleted before they were read" in operator.run("resolve", *at).err
    assert operator.run("resolve", *at, "--retry").status == 1
    assert operator.run("resolve", *at, "--to-earliest").status == 0
    assert rig.partitions()[0].next_offset == 10, "it was only said what would be done"
    done = operator.run("resolve", *at, "--to-earliest", "--execute", "--json").json["partitions"]
    assert [(p["outcome"], p["new_offset"], p["given_up"]) for p in done] == [("reset", 25, [[10, 25]])]
    rig.await_results(25)
    assert rig.partitions()[0].stopped is None
    assert second.alive
    nothing = operator.run("resolve", *at, "--to-earliest", "--execute")
    assert (nothing.status, "did not stop" in nothing.err) == (1, True)


@pytest.mark.needs_real_kafka("the embedded broker adds no partitions")
def test_partitions_that_are_added_are_read_from_their_beginning_by_a_group_that_began_at_the_end(
    rig: Rig, topic: Topic, broker: Broker
) -> None:
    soon = KafkaConfig(rig.kafka.bootstrap_servers, {"consumer.topic.metadata.refresh.interval.ms": "1000"})
    member = rig.start(topic, kafka=soon, start="latest").await_partitions(topic.partitions)
    built = rig.build(topic, _squares(60), thread_id="after", fold="sum")
    rig.write(built.records[:20], partition=0)
    eventually(lambda: rig.fan_out(built.fan_out.id))
    # It does not see the new partitions before there is something in them.
    member.pause()
    admin = broker.admin()
    for future in admin.create_partitions([NewPartitions(topic.name, topic.partitions + 2)]).values():
        future.result(15)
    eventually(lambda: len(admin.list_topics(topic.name, timeout=5).topics[topic.name].partitions) > topic.partitions)
    # A new sender: the rig's own learns of them as late as members do.
    sender = Sender(rig.kafka)
    for n, record in enumerate(built.records[20:]):
        sender.send([replace(record, partition=topic.partitions + n % 2)], 20.0)
    sender.close()
    member.resume()
    assert rig.handle(built).result(40) == sum(n * n for n in range(60))
    rig.assert_sound()


def test_a_live_member_reads_again_from_where_an_operator_says_and_runs_nothing_twice(rig: Rig, topic: Topic) -> None:
    member = rig.start(topic)
    handle = rig.publish(topic, _squares(60), fold="sum")
    assert handle.result(30) == sum(n * n for n in range(60))
    eventually(lambda: not rig.rows("select from fanfold.outbox"))
    claimed = len(member.events("partition.claimed"))
    ends = {number: state.next_offset for number, state in rig.partitions().items()}
    calls = rig.notes.counts()
    for state in rig.partitions().values():
        _reset(rig, state, 0)
    reset_at = time.monotonic()
    member.await_event("partition.claimed", count=claimed + topic.partitions)
    assert time.monotonic() - reset_at < 2.5
    eventually(
        lambda: all((state.next_offset or 0) >= (ends[number] or 0) for number, state in rig.partitions().items()),
        what=f"progress back at {ends}",
    )
    assert rig.notes.counts() == calls
    rig.assert_sound()


def _reset(rig: Rig, state: PartitionState, next_offset: int) -> None:
    """As `fanfold replay` does. A commit or claim in between is refused; then on the newer picture."""

    def done() -> bool:
        now = rig.partitions()[state.partition]
        return rig.store(
            lambda store: store.reset_partition(
                now.group_id,
                now.cluster_id,
                now.topic,
                now.topic_id,
                now.partition,
                epoch=now.epoch,
                next_offset=next_offset,
            )
        )

    eventually(done, what=f"partition {state.partition} reset to {next_offset}")
