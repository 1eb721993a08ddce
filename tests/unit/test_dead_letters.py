"""Parking a record: what the table keeps, and what dead-letter tools read on the topic."""

from __future__ import annotations

import pytest

from fanfold_consumer.assignment import Partition
from fanfold_consumer.dead_letters import ERROR_CHARS_MAX, Parking
from fanfold_consumer.work import Completion
from fanfold_schemas import unpack_headers
from fanfold_sql import Finished
from tests.unit.fleet_records import TOPIC, a_delivery, a_partition, a_task


def _parking(*topics: str) -> Parking:
    parking = Parking("indexers")
    parking.publish_for(frozenset(topics))
    return parking


def _letter_headers(completion: Completion) -> dict[str, bytes | None]:
    (record,) = completion.outbox
    return dict(unpack_headers(record.headers))


def test_the_table_keeps_the_record_to_the_byte() -> None:
    headers = [("a", b"\xff\x00"), ("a", b""), ("b", None)]
    delivery = a_delivery(b"\xc1 no msgpack", key=b"\x00k", headers=headers)
    letter = _parking().park(delivery, "E_FRAME", "no msgpack").dead_letter
    assert letter is not None
    assert (letter.progress_id, letter.offset) == (7, 1032)
    assert (letter.key, letter.value) == (b"\x00k", b"\xc1 no msgpack")
    assert unpack_headers(letter.headers) == headers
    assert (letter.code, letter.error, letter.task) == ("E_FRAME", "no msgpack", None)


def test_a_record_without_key_and_headers_is_parked_as_such() -> None:
    completion = _parking(TOPIC).park(a_delivery(b"", key=None), "E_FRAME", "an empty record")
    letter, (copy,) = completion.dead_letter, completion.outbox
    assert letter is not None
    assert (letter.key, letter.value, unpack_headers(letter.headers)) == (None, b"", [])
    assert (copy.key, copy.value) == (None, b"")


def test_a_tombstone_stays_in_the_table() -> None:
    completion = _parking(TOPIC).park(a_delivery(None), "E_FRAME", "a record without a value")
    assert completion.dead_letter is not None
    assert completion.dead_letter.value is None
    assert completion.outbox == (), "a row without a value would be taken for a fold"


def test_the_copy_goes_to_the_dead_letter_topic_with_its_own_key_value_and_headers_first() -> None:
    delivery = a_delivery(b"v", key=b"k", headers=[("traceparent", b"00-x"), ("b", None)])
    (copy,) = _parking(TOPIC).park(delivery, "E_FRAME", "no msgpack").outbox
    assert (copy.topic, copy.key, copy.value) == (f"{TOPIC}-dlt", b"k", b"v")
    assert unpack_headers(copy.headers)[:2] == [("traceparent", b"00-x"), ("b", None)]


def test_the_copy_says_in_connects_headers_where_it_was_and_why() -> None:
    headers = _letter_headers(_parking(TOPIC).park(a_delivery(), "E_FRAME", "nö"))
    assert headers == {
        "__connect.errors.topic": TOPIC.encode(),
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"1032",
        "__connect.errors.connector.name": b"indexers",
        "__connect.errors.stage": b"VALUE_CONVERTER",
        "__connect.errors.exception.class.name": b"E_FRAME",
        "__connect.errors.exception.message": "nö".encode(),
    }


def test_a_task_that_was_decoded_failed_at_a_later_stage() -> None:
    headers = _letter_headers(_parking(TOPIC).park(a_delivery(), "E_HANDLER", "x", task=a_task()))
    assert headers["__connect.errors.stage"] == b"TASK_PUT"


def test_without_a_dead_letter_topic_the_table_alone_keeps_it() -> None:
    for parking in (Parking("indexers"), _parking("another.v1")):
        completion = parking.park(a_delivery(), "E_FRAME", "no msgpack")
        assert completion.outbox == ()
        assert completion.dead_letter is not None


def test_a_task_that_failed_counts_as_failed_in_its_fan_out() -> None:
    task = a_task()
    completion = _parking().park(a_delivery(), "E_HANDLER", "x", task=task, arg_hash=99)
    assert completion.result == Finished(task, None, 99, TOPIC)
    assert completion.result.failed
    assert completion.dead_letter is not None
    assert completion.dead_letter.task is task


def test_a_record_that_poses_as_another_task_does_not_count() -> None:
    completion = _parking().park(a_delivery(), "E_CONFLICT", "x", task=a_task(), counts=False)
    assert completion.result is None
    assert completion.dead_letter is not None
    assert completion.dead_letter.task == a_task()


def test_bytes_that_are_no_task_belong_to_no_fan_out() -> None:
    assert _parking().park(a_delivery(), "E_FRAME", "x").result is None


def test_an_error_is_cut_to_what_the_table_takes() -> None:
    completion = _parking(TOPIC).park(a_delivery(), "E_HANDLER", "x" * 10_000)
    letter = completion.dead_letter
    assert letter is not None
    assert letter.error == "x" * ERROR_CHARS_MAX
    assert _letter_headers(completion)["__connect.errors.exception.message"] == b"x" * ERROR_CHARS_MAX


@pytest.mark.parametrize(("error", "kept"), [("a\0b", "a\\0b"), ("caf\udce9", "caf\\udce9"), ("\ud83d!", "\\ud83d!")])
def test_an_error_that_postgres_or_utf8_cannot_hold_is_written_out(error: str, kept: str) -> None:
    completion = _parking(TOPIC).park(a_delivery(), "E_HANDLER", error, task=a_task())
    letter = completion.dead_letter
    assert letter is not None
    assert letter.error == kept
    assert _letter_headers(completion)["__connect.errors.exception.message"] == kept.encode()


def test_a_letter_is_of_the_claim_its_record_came_under() -> None:
    partition: Partition = a_partition(number=11, progress_id=23)
    completion = _parking(TOPIC).park(a_delivery(offset=5, partition=partition), "E_FRAME", "x")
    letter = completion.dead_letter
    assert letter is not None
    assert (letter.progress_id, letter.offset) == (23, 5)
    assert _letter_headers(completion)["__connect.errors.partition"] == b"11"
    assert completion.delivery.partition is partition


@pytest.mark.parametrize("size", [1024 * 1024, 5_000_000])
def test_a_record_that_the_topic_cannot_take_with_its_new_headers_stays_in_the_table(size: int) -> None:
    completion = _parking(TOPIC).park(a_delivery(b"x" * size), "E_FRAME", "x" * ERROR_CHARS_MAX)
    assert completion.outbox == ()
    assert completion.dead_letter is not None
    assert completion.dead_letter.value == b"x" * size


def test_its_size_counts_the_letter_and_the_copy() -> None:
    delivery = a_delivery(b"x" * 100)
    assert _parking().park(delivery, "E_FRAME", "x").payload_bytes == 100
    assert _parking(TOPIC).park(delivery, "E_FRAME", "x").payload_bytes == 200
