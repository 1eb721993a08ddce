"""Where a member reads, and who decides it: Postgres, never Kafka's copy of the offsets."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as KafkaPartition

from fanfold_producer import Record
from tests.support.kafka import Broker, Topic
from tests.support.members import group_offsets
from tests.support.rig import Rig
from tests.support.wait import eventually


def stored(rig: Rig) -> dict[int, int]:
    return {number: p.next_offset for number, p in rig.partitions().items() if p.next_offset is not None}


def await_copied(rig: Rig, topic: Topic, *, within_s: float = 5.0) -> None:
    """Wait until progress has reached the end of the log, and Kafka's copy of it too, so much later at most."""
    ends = topic.end_offsets()
    eventually(lambda: stored(rig) == ends, what=f"progress at {ends}")
    eventually(
        lambda: group_offsets(topic.broker, rig.group, topic.name) == ends, within_s, what=f"Kafka's copy at {ends}"
    )


def test_the_copy_of_the_offsets_in_kafka_is_that_of_postgres_within_a_second(
    rig: Rig, topic: Topic, broker: Broker
) -> None:
    rig.start_here(topic)
    for n in range(3):
        assert rig.publish(topic, [("square", i) for i in range(100)], fold="count", thread_id=f"t{n}").result(20)
        rig.assert_sound()
        await_copied(rig, topic, within_s=1.0)


@pytest.mark.parametrize("topic", [8], indirect=True)
def test_the_copy_of_the_offsets_is_right_after_rebalances_too(rig: Rig, topic: Topic, broker: Broker) -> None:
    """While the group rebalances Kafka refuses commits; a partition that stays where it is may get no other."""
    rig.start_here(topic, mirror_interval_s=0.05)
    built = [rig.build(topic, [("slow", {"n": n, "s": 0.01}) for n in range(100)], fold="count") for _ in range(3)]
    for fan_out in built:
        rig.write(fan_out.records)
        rig.handle(fan_out)
        rig.start_here(topic, mirror_interval_s=0.05).await_partitions().stop()
    for fan_out in built:
        assert rig.handle(fan_out).result(20) == 100
    await_copied(rig, topic)


def test_offsets_that_kafka_lost_are_copied_again(rig: Rig, topic: Topic, broker: Broker) -> None:
    member = rig.start_here(topic)
    assert rig.publish(topic, [("square", i) for i in range(50)], fold="count").result(20) == 50
    ends = topic.end_offsets()
    eventually(lambda: group_offsets(broker, rig.group, topic.name) == ends)
    member.stop()

    admin = broker.admin()
    admin.delete_consumer_groups([rig.group])[rig.group].result()
    assert group_offsets(broker, rig.group, topic.name) == {}
    rig.start_here(topic)
    eventually(lambda: group_offsets(broker, rig.group, topic.name) == ends)
    assert rig.notes.again() == 0


@pytest.mark.needs_real_kafka("the embedded broker takes no offsets from an admin client")
@pytest.mark.parametrize("altered", [0, 10_000])
def test_altered_offsets_in_kafka_change_nothing(rig: Rig, topic: Topic, broker: Broker, altered: int) -> None:
    member = rig.start_here(topic)
    assert rig.publish(topic, [("square", i) for i in range(50)], fold="count").result(20) == 50
    member.stop()

    parts = [KafkaPartition(topic.name, number, altered) for number in range(topic.partitions)]
    admin = broker.admin()
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(rig.group, parts)])[rig.group].result()

    member = rig.start_here(topic)
    assert rig.publish(topic, [("square", i) for i in range(50)], fold="count").result(20) == 50
    assert rig.notes.again() == 0
    # Nothing was even read again.
    assert member.metric("fanfold_deliveries_skipped_total", why="duplicate") == 0


def test_a_fan_out_written_twice_is_run_once(rig: Rig, topic: Topic) -> None:
    built = rig.build(topic, [("square", n) for n in range(50)], fold="total")
    rig.write(built.records)
    member = rig.start_here(topic)
    assert rig.handle(built).result(20) == sum(n * n for n in range(50))
    before = rig.results(built.fan_out.id)

    rig.write(built.records)
    eventually(lambda: member.metric("fanfold_deliveries_skipped_total", why="duplicate") == 50)
    eventually(lambda: stored(rig) == topic.end_offsets())
    assert rig.notes.again() == 0
    assert rig.results(built.fan_out.id) == before
    rig.assert_sound()


def test_both_copies_of_a_fan_out_written_twice_at_once_count_once(rig: Rig, topic: Topic) -> None:
    built = rig.build(topic, [("square", n) for n in range(200)], fold="total")
    rig.write([record for record in built.records for _ in range(2)])
    rig.start_here(topic)
    assert rig.handle(built).result(20) == sum(n * n for n in range(200))
    eventually(lambda: stored(rig) == topic.end_offsets())
    rig.assert_sound()


@pytest.mark.needs_real_kafka("the embedded broker has no transactions that abort")
@pytest.mark.parametrize("topic", [1], indirect=True)
def test_tasks_of_aborted_transactions_are_not_run_and_their_gaps_stop_nothing(
    rig: Rig, topic: Topic, broker: Broker
) -> None:
    rig.start_here(topic)
    handles = []
    producer = broker.producer(transactional_id=f"aborts-{topic.name}")
    producer.init_transactions(15)
    aborted: list[str] = []
    for n in range(3):
        handles.append(rig.publish(topic, [("square", i) for i in range(20)], fold="count", thread_id=f"t{n}"))
        built = rig.build(topic, [("square", i) for i in range(20)], thread_id=f"t{n}")
        producer.begin_transaction()
        for record in built.records:
            producer.produce(topic.name, record.value, record.key, headers=list(record.headers))
        producer.flush()
        producer.abort_transaction(15)
        aborted += built.task_ids

    assert [handle.result(20) for handle in handles] == [20, 20, 20]
    # The log ends with the markers of an aborted transaction and of the folds' own: progress is behind them all.
    eventually(lambda: stored(rig) == topic.end_offsets())
    assert not set(aborted) & set(rig.notes.counts())
    assert rig.partitions()[0].islands == ()


@pytest.mark.needs_real_kafka("the embedded broker cannot delete records")
@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_new_group_begins_with_the_first_record_that_is_still_there(rig: Rig, topic: Topic, broker: Broker) -> None:
    built = rig.build(topic, [("square", n) for n in range(10)])
    rig.write(built.records)
    delete_records(broker, topic, 0, 4)
    rig.start_here(topic)
    eventually(lambda: rig.values(built.fan_out.id) == {n: n * n for n in range(4, 10)})


def test_a_group_that_starts_with_the_latest_skips_what_was_there_before(rig: Rig, topic: Topic) -> None:
    old = rig.build(topic, [("square", n) for n in range(10)])
    rig.write(old.records)
    member = rig.start_here(topic, start="latest")
    eventually(lambda: stored(rig) == topic.end_offsets())
    member.stop()

    # What comes while nobody is there is not skipped: the start was decided, once.
    handle = rig.publish(topic, [("square", n) for n in range(10)], fold="count", thread_id="t2")
    rig.start_here(topic, start="latest")
    assert handle.result(20) == 10
    assert rig.fan_out(old.fan_out.id) is None


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_busy_member_takes_a_reset_as_soon_as_an_idle_one_and_loses_nothing(rig: Rig, topic: Topic) -> None:
    """Its commit is fenced before it hears of the reset; and records of where it read before are on their way."""
    member = rig.start_here(topic)
    eventually(lambda: rig.partitions().get(0))
    fan_outs = []
    for n in range(6):
        fan_outs.append(rig.build(topic, [("square", i) for i in range(500)], fold="count", thread_id=f"t{n}"))
        rig.write(fan_outs[-1].records)
        reset(rig, 0, 0)
    started = time.monotonic()
    for built in fan_outs:
        assert rig.handle(built).result(20) == 500
    eventually(lambda: stored(rig) == topic.end_offsets())
    assert time.monotonic() - started < 6.0
    assert member.alive
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_member_that_hears_of_a_reset_by_its_commit_claims_again_at_once(rig: Rig, topic: Topic) -> None:
    built = rig.build(topic, [("square", 3), ("hold", {"n": 1, "gate": "all"})])
    rig.write(built.records)
    member = rig.start_here(topic, renew_interval_s=5.0)
    eventually(lambda: rig.notes.counts()[built.task_ids[1]] == 1)
    eventually(lambda: rig.partitions()[0].islands or rig.partitions()[0].next_offset)

    reset(rig, 0, 0)
    rig.notes.open_gate("all")
    started = time.monotonic()
    assert rig.handle(built).result(20) == [9, 1]
    assert time.monotonic() - started < 3.0
    assert member.metric("fanfold_partitions_fenced_total") == 1
    assert rig.notes.counts() == {built.task_ids[0]: 1, built.task_ids[1]: 2}


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_handler_whose_claim_was_taken_is_not_left_running_beside_its_successor(rig: Rig, topic: Topic) -> None:
    built = rig.build(topic, [("hold", {"n": 1, "gate": "all"})])
    rig.write(built.records)
    rig.start_here(topic)
    eventually(lambda: rig.notes.counts()[built.task_ids[0]] == 1)

    reset(rig, 0, 0)
    eventually(lambda: rig.notes.counts()[built.task_ids[0]] == 2)
    rig.notes.open_gate("all")
    assert rig.handle(built).result(20) == [1]
    assert len(rig.notes.calls("ended")) == 1


def test_records_of_another_release_are_parked_and_not_taken_for_tasks(rig: Rig, topic: Topic) -> None:
    (record,) = rig.build(topic, [("square", 3)]).records
    value = record.value
    assert value is not None
    rig.write([Record(topic.name, record.key, value.replace(b"\xa1v\x01", b"\xa1v\x02"))])
    rig.start_here(topic)
    (letter,) = rig.await_dead_letters(1)
    assert letter.code == "E_SCHEMA"
    assert "$.v" in letter.error


def delete_records(broker: Broker, topic: Topic, partition: int, before: int) -> None:
    part = KafkaPartition(topic.name, partition, before)
    admin = broker.admin()
    (future,) = admin.delete_records([part]).values()
    future.result()


def reset(rig: Rig, number: int, next_offset: int) -> None:
    """As an operator: read the epoch, and decide on it; again if somebody claimed meanwhile."""

    def done() -> bool:
        state = rig.partitions()[number]
        return rig.store(
            lambda store: store.reset_partition(
                state.group_id,
                state.cluster_id,
                state.topic,
                state.topic_id,
                number,
                epoch=state.epoch,
                next_offset=next_offset,
            )
        )

    eventually(done, what=f"partition {number} reset")
