"""Publishing to a real broker: all or none, harmless to repeat, bounded, and honest about failures."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.cimpl import NewTopic

from fanfold_producer import (
    BrokerUnavailable,
    KafkaConfig,
    Publisher,
    PublishError,
    Record,
    Sender,
    TopicMissing,
    cluster_and_topics,
    create_topics,
)
from fanfold_producer.transaction import TransactionalSender
from fanfold_schemas import SchemaError, Send, decode_task
from tests.support.kafka import Broker, Topic, delete_topic, unique_name

_NOBODY = KafkaConfig("127.0.0.1:1")


@pytest.fixture
def kafka(broker: Broker) -> KafkaConfig:
    return broker.config


@pytest.fixture
def publisher(kafka: KafkaConfig, topic: Topic) -> Iterator[Publisher]:
    with Publisher(kafka, topic=topic.name) as publisher:
        yield publisher


def _records(topic: Topic, count: int) -> list[Record]:
    return [Record(topic.name, b"%d" % n, b"value", [("h", b"x")]) for n in range(count)]


def _written(topic: Topic, count: int) -> list[str]:
    """The task_ids on the topic, which holds `count` committed records at least."""
    return sorted(decode_task(message.value()).task_id for message in topic.records(count))


def _nothing_more(publisher: Publisher, topic: Topic, before: list[str]) -> None:
    """Every partition is read past a fan-out published now, so that whatever came before it has been seen."""
    last = publisher.fan_out("t", [("marker", n) for n in range(64)])
    assert _written(topic, len(before) + 64) == sorted([*before, *last.task_ids])


def test_a_fan_out_is_on_the_topic_when_the_call_returns(publisher: Publisher, topic: Topic) -> None:
    handle = publisher.fan_out("t", [("a", n) for n in range(100)], fold="sum", base={"main": 3})
    tasks = {task.index: task for task in (decode_task(m.value()) for m in topic.records(100))}
    assert [tasks[n].task_id for n in range(100)] == list(handle.task_ids)
    assert [tasks[n].arg for n in range(100)] == list(range(100))
    assert {(t.fan_out.id, t.fan_out.fold, t.thread_id) for t in tasks.values()} == {(handle.fan_out_id, "sum", "t")}
    assert (handle.size, handle.thread_id) == (100, "t")


def test_tasks_of_one_thread_spread_over_all_partitions(publisher: Publisher, topic: Topic) -> None:
    publisher.fan_out("t", [("a", n) for n in range(100)])
    assert len({message.partition() for message in topic.records(100)}) == topic.partitions


@pytest.mark.parametrize("atomic", [True, False])
def test_a_loop_publishes_with_the_same_answers_and_keeps_turning(
    kafka: KafkaConfig, topic: Topic, atomic: bool
) -> None:
    async def scenario() -> tuple[int, tuple[str, ...]]:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        turning = asyncio.create_task(turn())
        async with Publisher(kafka, topic=topic.name, atomic=atomic) as publisher:
            handle = await publisher.afan_out("t", (("a", n) for n in range(3000)))
        turning.cancel()
        return turns, handle.task_ids

    turns, task_ids = asyncio.run(scenario())
    assert turns > 10
    assert _written(topic, 3000) == sorted(task_ids)


def test_langgraphs_sends_are_accepted(publisher: Publisher, topic: Topic) -> None:
    from langgraph.types import Send as LangGraphSend

    publisher.fan_out("t", [LangGraphSend("a", {"x": 1})])
    (message,) = topic.records(1)
    assert (decode_task(message.value()).node, decode_task(message.value()).arg) == ("a", {"x": 1})


def test_the_same_id_published_again_is_the_same_tasks(publisher: Publisher, topic: Topic) -> None:
    first = publisher.fan_out("t", [("a", 1), ("b", 2)], fan_out_id="mine")
    second = publisher.fan_out("t", [("a", 1), ("b", 2)], fan_out_id="mine")
    assert first.task_ids == second.task_ids
    messages = topic.records(4)
    assert len({message.value() for message in messages}) == 2
    assert len({str(message.headers()) for message in messages}) == 2


def test_two_fan_outs_without_an_id_are_two(publisher: Publisher) -> None:
    assert publisher.fan_out("t", [("a", 1)]).fan_out_id != publisher.fan_out("t", [("a", 1)]).fan_out_id


def test_a_bad_send_among_good_ones_publishes_nothing(publisher: Publisher, topic: Topic) -> None:
    with pytest.raises(SchemaError, match=r"sends\[50\]"):
        publisher.fan_out("t", [("a", n if n != 50 else object()) for n in range(100)])
    _nothing_more(publisher, topic, [])


@pytest.mark.needs_real_kafka("the embedded broker takes records of any size and shows aborted ones to everybody")
def test_a_record_that_the_broker_refuses_leaves_nothing_of_its_fan_out_visible(
    broker: Broker, kafka: KafkaConfig
) -> None:
    name = unique_name("small")
    small = NewTopic(name, 4, 1, config={"max.message.bytes": "20000"})
    admin = broker.admin()
    admin.create_topics([small], operation_timeout=15)[name].result()
    topic = Topic(name, 4, broker)
    try:
        # The queue holds 20, so 180 records at least are with the broker before the one that it refuses.
        with Publisher(kafka, topic=name, queue_records_max=20) as publisher:
            before = publisher.fan_out("t", [("a", n) for n in range(10)])
            with pytest.raises(PublishError, match="none of 201 records") as caught:
                publisher.fan_out("t", [*(("a", n) for n in range(200)), ("a", "x" * 30_000)])
            assert "MSG_SIZE_TOO_LARGE" in str(caught.value)
            assert (caught.value.failed, caught.value.total) == (201, 201)
            _nothing_more(publisher, topic, list(before.task_ids))
        # They are on the topic, and aborted: readers of committed records step over them.
        assert sum(topic.end_offsets().values()) >= 10 + 64 + 180
    finally:
        delete_topic(broker, name)


def test_a_transaction_goes_on_working_after_one_that_failed(kafka: KafkaConfig, topic: Topic) -> None:
    with TransactionalSender(kafka, transactional_id=f"test-{uuid.uuid4()}") as sender:
        with pytest.raises(PublishError, match="none of 2 records"):
            sender.send([Record(topic.name, b"k", b"v"), Record(topic.name, b"k", b"v", partition=99)])
        sender.send(_records(topic, 3))
    assert {message.key() for message in topic.records(3)} == {b"0", b"1", b"2"}


def test_a_publisher_that_was_shut_out_by_another_comes_back(kafka: KafkaConfig, topic: Topic) -> None:
    name = f"test-{uuid.uuid4()}"
    with TransactionalSender(kafka, transactional_id=name) as first:
        first.send(_records(topic, 2))
        with TransactionalSender(kafka, transactional_id=name) as second:
            second.send(_records(topic, 2))
        first.send(_records(topic, 2))
    assert len(topic.records(6)) == 6


def test_fan_outs_of_many_callers_at_once_are_all_published(publisher: Publisher, topic: Topic) -> None:
    def call(number: int) -> tuple[str, ...]:
        return publisher.fan_out(f"t{number}", [("a", n) for n in range(5)]).task_ids

    async def calls() -> list[tuple[str, ...]]:
        handles = await asyncio.gather(*(publisher.afan_out(f"u{n}", [("a", n), ("b", n)]) for n in range(10)))
        return [handle.task_ids for handle in handles]

    with ThreadPoolExecutor(8) as pool:
        by_workers = list(pool.map(call, range(10)))
    task_ids = [task_id for ids in (*by_workers, *asyncio.run(calls())) for task_id in ids]
    assert _written(topic, 70) == sorted(task_ids)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_queue_that_is_much_smaller_than_the_fan_out_makes_the_caller_wait(
    kafka: KafkaConfig, topic: Topic, atomic: bool
) -> None:
    with Publisher(kafka, topic=topic.name, atomic=atomic, queue_records_max=10) as publisher:
        handle = publisher.fan_out("t", [("a", n) for n in range(1000)])
    assert _written(topic, 1000) == sorted(handle.task_ids)


def test_a_full_queue_does_not_block_the_loop(kafka: KafkaConfig, topic: Topic) -> None:
    with Sender(kafka, queue_records_max=5) as sender:

        async def scenario() -> None:
            await asyncio.gather(*(sender.asend(_records(topic, 50)) for _ in range(4)))

        asyncio.run(asyncio.wait_for(scenario(), 30))
    assert len(topic.records(200)) == 200


def test_a_record_larger_than_the_whole_queue_fails_instead_of_waiting(kafka: KafkaConfig, topic: Topic) -> None:
    large = Record(topic.name, b"k", b"x" * 5000)
    with Sender(kafka, queue_bytes_max=1024) as sender, pytest.raises(PublishError, match="whole queue"):
        sender.send([large], timeout=10)


def test_delivery_errors_say_how_many_failed_and_the_others_are_written(kafka: KafkaConfig, topic: Topic) -> None:
    lost = Record(topic.name, b"k", b"v", partition=99)
    with Sender(kafka) as sender:
        with pytest.raises(PublishError, match="1 of 4 records") as caught:
            sender.send([*_records(topic, 3), lost])
        assert (caught.value.failed, caught.value.total) == (1, 4)
        with pytest.raises(PublishError, match="1 of 1 records"):
            asyncio.run(sender.asend([lost]))
    assert len(topic.records(3)) == 3


@pytest.mark.needs_real_kafka("the embedded broker creates topics that it is asked about")
def test_publishing_to_a_topic_that_is_not_there_says_to_create_it(kafka: KafkaConfig) -> None:
    soon = {**kafka.properties, "producer.topic.metadata.propagation.max.ms": "500"}
    with Publisher(KafkaConfig(kafka.bootstrap_servers, soon), topic=unique_name("missing")) as publisher:
        with pytest.raises(PublishError, match="create it"):
            publisher.fan_out("t", [("a", 1)])
        with pytest.raises(PublishError, match="create it"):
            publisher.fan_out("t", [("a", 1), ("a", 2)])


def test_without_a_broker_the_caller_hears_in_time_and_may_try_again() -> None:
    publisher = Publisher(_NOBODY)
    for sends in ([("a", 1)], [("a", 1), ("a", 2)], [("a", 1)]):
        with pytest.raises(PublishError, match=r"127\.0\.0\.1:1"):
            publisher.fan_out("t", sends, timeout=0.3)
    publisher.close(0.1)


def test_a_record_that_times_out_in_the_queue_breaks_only_its_own_producer() -> None:
    sender = Sender(_NOBODY, delivery_timeout_s=0.2)
    for _ in range(2):
        with pytest.raises(PublishError, match="_MSG_TIMED_OUT"):
            sender.send([Record("tasks", b"k", b"v")], timeout=20)
    assert sender.close(0.1) == 0


def test_closing_gives_up_within_its_bound_and_tells_who_waits() -> None:
    sender = Sender(_NOBODY)
    with ThreadPoolExecutor(1) as pool:
        queued = threading.Event()

        def send() -> None:
            queued.set()
            sender.send([Record("tasks", b"k", b"v")] * 3, timeout=60)

        waiting = pool.submit(send)
        queued.wait()
        sender.close(0.3)
        with pytest.raises(PublishError):
            waiting.result(20)
    with pytest.raises(PublishError, match="closed"):
        sender.send([Record("tasks", b"k", b"v")])
    assert sender.close() == 0


def test_a_closed_publisher_says_so(kafka: KafkaConfig) -> None:
    publisher = Publisher(kafka)
    publisher.close()
    publisher.close()
    for sends in ([Send("a")], [Send("a"), Send("b")]):
        with pytest.raises(RuntimeError, match="closed"):
            publisher.fan_out("t", sends)


def test_nothing_to_send_is_sent_at_once(kafka: KafkaConfig) -> None:
    with Sender(kafka) as sender:
        sender.send([])
        asyncio.run(sender.asend([]))


def test_topics_are_described_with_cluster_and_topic_ids(broker: Broker, kafka: KafkaConfig, topic: Topic) -> None:
    cluster_id, topics = cluster_and_topics(kafka, [topic.name])
    assert cluster_id
    topic_id, partitions = topics[topic.name]
    assert partitions == topic.partitions
    assert cluster_and_topics(kafka, [topic.name]) == (cluster_id, topics)
    topic.recreate()
    assert cluster_and_topics(kafka, [topic.name])[1][topic.name][0] != topic_id


def test_all_missing_topics_are_named_with_how_to_create_them(kafka: KafkaConfig, topic: Topic) -> None:
    missing = [unique_name("missing") for _ in range(2)]
    with pytest.raises(TopicMissing, match="--create-topic") as caught:
        cluster_and_topics(kafka, [topic.name, *missing])
    assert caught.value.topics == tuple(sorted(missing))


def test_topics_are_created_once_and_can_be_described_at_once(broker: Broker, kafka: KafkaConfig) -> None:
    name = unique_name("created")
    try:
        assert create_topics(kafka, {name: 3}) == [name]
        assert create_topics(kafka, {name: 5}) == []
        assert cluster_and_topics(kafka, [name])[1][name][1] == 3
    finally:
        delete_topic(broker, name)


def test_a_broker_that_is_away_is_told_from_a_missing_topic() -> None:
    with pytest.raises(BrokerUnavailable, match="repeat"):
        cluster_and_topics(_NOBODY, ["tasks"], timeout=0.5)
