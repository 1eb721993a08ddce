"""Records that no handler can be given: parked with their bytes, once, and in nobody's way."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fanfold_consumer.dead_letters import HEADERS_LOST
from fanfold_consumer.work import readable_headers
from fanfold_producer import Record
from fanfold_schemas import dead_letter_topic, derive_task_id, new_fan_out_id, pack_headers
from tests.support.kafka import Topic
from tests.support.raw_headers import send_with_header
from tests.support.rig import Rig

CONNECT = "__connect.errors."


def letters_topic(topic: Topic) -> Topic:
    return Topic(dead_letter_topic(topic.name), 1, topic.broker)


def test_a_record_without_a_value_is_parked_in_the_table_alone(rig: Rig, topic: Topic) -> None:
    rig.write([Record(topic.name, b"tombstone", None, [("a", b"b")])], partition=1)
    handle = rig.publish(topic, [("square", 3)])
    rig.start_here(topic)

    (letter,) = rig.await_dead_letters(1)
    assert (letter.key, letter.value, letter.offset) == (b"tombstone", None, 0)
    assert letter.headers == pack_headers([("a", b"b")])
    assert handle.result(20) == [9]
    rig.assert_sound()


@pytest.mark.needs_real_kafka(
    "reading the dead-letter topic back crashes librdkafka (rd_kafka_metadata_update_op) on the embedded one"
)
def test_undecodable_bytes_are_parked_with_key_headers_and_the_reason_once(rig: Rig, topic: Topic) -> None:
    headers = [("a", b"\x00\xff"), ("a", None), ("traceparent", b"")]
    poison = Record(topic.name, b"\xfekey", b"\x00no msgpack\xff", headers)
    rig.write([poison, Record(topic.name, None, b"")], partition=1)
    handle = rig.publish(topic, [("square", 3)])
    member = rig.start_here(topic)
    assert handle.result(20) == [9]

    first, second = rig.await_dead_letters(2)
    assert (first.topic, first.partition, first.offset) == (topic.name, 1, 0)
    assert (first.key, first.value, first.headers) == (poison.key, poison.value, pack_headers(headers))
    assert (first.code, first.task_id, first.fan_out_id) == ("E_FRAME", None, None)
    assert (second.key, second.value, second.offset) == (None, b"", 1)

    parked = letters_topic(topic).records(2)[0]
    assert (parked.key(), parked.value()) == (poison.key, poison.value)
    found: list[Any] = list(parked.headers() or [])
    assert found[:3] == headers
    assert dict(found[3:]) == {
        f"{CONNECT}topic": topic.name.encode(),
        f"{CONNECT}partition": b"1",
        f"{CONNECT}offset": b"0",
        f"{CONNECT}connector.name": rig.group.encode(),
        f"{CONNECT}stage": b"VALUE_CONVERTER",
        f"{CONNECT}exception.class.name": b"E_FRAME",
        f"{CONNECT}exception.message": first.error.encode(),
    }
    member.stop()
    assert rig.partitions()[1].next_offset == topic.end_offsets()[1]

    rig.start_here(topic)
    assert rig.publish(topic, [("square", 4)]).result(20) == [16]
    assert len(rig.dead_letters()) == 2
    assert letters_topic(topic).end_offsets() == {0: 2}


def test_a_task_that_contradicts_a_stored_result_is_parked_and_changes_nothing(rig: Rig, topic: Topic) -> None:
    fan_out_id = new_fan_out_id()
    handle = rig.publish(topic, [("square", 2), ("square", 3)], fan_out_id=fan_out_id, fold="sum")
    rig.start_here(topic)
    assert handle.result(20) == 13

    # Another arg is seen before its handler runs; that the fan-out has another size only when its result is committed.
    rig.publish(topic, [("square", 2), ("square", 4)], fan_out_id=fan_out_id, fold="sum")
    rig.publish(topic, [("square", 2), ("square", 3), ("square", 5)], fan_out_id=fan_out_id, fold="sum")

    letters = rig.await_dead_letters(2)
    assert {(letter.code, letter.task_id) for letter in letters} == {
        ("E_CONFLICT", derive_task_id(fan_out_id, 1)),
        ("E_CONFLICT", derive_task_id(fan_out_id, 2)),
    }
    assert derive_task_id(fan_out_id, 2) in rig.notes.counts()
    assert rig.values(fan_out_id) == {0: 4, 1: 9}
    state = rig.fan_out(fan_out_id)
    assert state is not None
    assert (state.failed, state.state) == (0, "done")
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_of_two_contradicting_tasks_in_one_commit_the_first_stands_and_the_second_is_parked(
    rig: Rig, topic: Topic
) -> None:
    fan_out_id = new_fan_out_id()
    first = rig.build(topic, [("square", 2), ("square", 3)], fan_out_id=fan_out_id, fold="sum")
    second = rig.build(topic, [("square", 2), ("square", 5)], fan_out_id=fan_out_id, fold="sum")
    rig.write([*first.records, *second.records], partition=0)
    rig.start_here(topic)

    assert rig.handle(first).result(20) == 13
    (letter,) = rig.await_dead_letters(1)
    assert (letter.code, letter.offset) == ("E_CONFLICT", 3)
    assert letters_topic(topic).records(1)[0].value() == second.records[1].value
    rig.assert_sound()


def test_one_percent_of_poison_under_load_is_parked_and_all_the_rest_is_done(rig: Rig, topic: Topic) -> None:
    built = rig.build(topic, [("square", n) for n in range(2000)], fold="sum")
    poison = [Record(topic.name, b"p%d" % n, b"\xc1poison-%d" % n) for n in range(20)]
    records = [*built.records, *poison]
    random.Random(7).shuffle(records)
    rig.start_here(topic)
    rig.write(records)

    assert rig.handle(built).result(20) == sum(n * n for n in range(2000))
    letters = rig.await_dead_letters(20)
    assert sorted(letter.value or b"" for letter in letters) == sorted(record.value or b"" for record in poison)
    copies = letters_topic(topic).records(20)
    assert sorted(copy.value() or b"" for copy in copies) == sorted(record.value or b"" for record in poison)
    assert letters_topic(topic).end_offsets() == {0: 20}
    assert set(rig.notes.counts().values()) == {1}
    rig.assert_sound()


@pytest.mark.needs_real_kafka("the embedded broker refuses such a header")
def test_a_header_whose_name_is_no_text_holds_up_nobody(rig: Rig, topic: Topic) -> None:
    (task,) = rig.build(topic, [("square", 4)]).records
    assert task.value is not None
    send_with_header(topic, b"\xc1 no msgpack", b"\xff\xfe")
    send_with_header(topic, task.value, b"\xff\xfe")
    rig.start_here(topic)
    rig.await_results(1)

    (letter,) = rig.await_dead_letters(1)
    assert (letter.code, letter.value, letter.headers) == ("E_FRAME", b"\xc1 no msgpack", None)
    assert letter.error.startswith(HEADERS_LOST)
    copy = dict(letters_topic(topic).records(1)[0].headers() or [])
    assert copy[f"{CONNECT}exception.message"] == letter.error.encode()


@pytest.mark.needs_real_kafka("the embedded broker refuses such a header")
def test_headers_that_cannot_be_read_may_be_asked_for_again(topic: Topic) -> None:
    send_with_header(topic, b"x", b"\xff")
    (message,) = topic.records(1)
    assert [readable_headers(message) for _ in range(3)] == [None, None, None]
