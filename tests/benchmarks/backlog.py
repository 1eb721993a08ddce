"""What every contender is given: the same records on a topic, or the rows that come of them."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

from fanfold_producer.fan_out import build_fan_out
from fanfold_producer.kafka import KafkaConfig
from fanfold_producer.record import Record
from fanfold_schemas import Send, derive_task_id, encode_payload, new_fan_out_id

NODE = "noop"
FAN_OUT_SIZE = 100
ARG_BYTES = 200
_TEXT_HEAD_BYTES = 2
_POLL_EVERY = 1000
_FLUSH_S = 120.0


def text_arg() -> str:
    """200 bytes of msgpack that do not compress: an embedding's or an encrypted value's, not a log line's."""
    return base64.b64encode(os.urandom(ARG_BYTES))[: ARG_BYTES - _TEXT_HEAD_BYTES].decode()


def build_backlog(tasks: int, fold: str | None = None) -> list[Record]:
    """Encoded records of fan-outs of 100, each of a thread of its own, as `Publisher.fan_out` writes them.

    Args:
        tasks: a multiple of 100.
        fold: what each fan-out is joined with; None: nothing, it is only counted down.
    """
    # The topic is not in a record's bytes; each contender has one of its own.
    return [
        record
        for _ in range(tasks // FAN_OUT_SIZE)
        for record in build_fan_out(
            str(uuid.uuid4()),
            [Send(NODE, text_arg()) for _ in range(FAN_OUT_SIZE)],
            topic="any",
            fan_out_id=new_fan_out_id(),
            fold=fold,
        ).records
    ]


def publish(kafka: KafkaConfig, topic: str, records: Sequence[Record]) -> None:
    """Write them with a plain producer, spread by key; returns when the broker has acknowledged every one.

    Raises:
        RuntimeError: some were not written.
    """
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    # Batches also for the embedded broker. It is sent single records so that its end offsets are right, which nobody
    # asks for here; and members that are stopped for as long as that takes would lose their partitions.
    producer = Producer(
        kafka.producer(
            enable_idempotence=True, linger_ms=5, batch_num_messages=10_000, queue_buffering_max_messages=1_000_000
        )
    )
    for number, record in enumerate(records):
        producer.produce(topic, record.value, record.key, headers=list(record.headers), on_delivery=delivered)
        if number % _POLL_EVERY == 0:
            producer.poll(0)
    unsent = producer.flush(_FLUSH_S)
    if unsent or failures:
        why = f": {failures[0].str()}" if failures else ""
        raise RuntimeError(f"{unsent + len(failures)} of {len(records)} records were not written to {topic}{why}")


@dataclass(frozen=True, slots=True)
class Row:
    """A result as `fanfold.result` keeps it; its other columns are the same for all."""

    thread_id: str
    task_id: str
    fan_out_id: str
    index: int
    arg_hash: int
    payload: bytes


def result_rows(tasks: int) -> Iterator[Row]:
    """The rows that a backlog of this size comes to."""
    for _ in range(tasks // FAN_OUT_SIZE):
        thread_id, fan_out_id = str(uuid.uuid4()), new_fan_out_id()
        for index in range(FAN_OUT_SIZE):
            # A fingerprint is as good as random.
            fingerprint = int.from_bytes(os.urandom(8), "big", signed=True)
            payload = encode_payload(text_arg())
            yield Row(thread_id, derive_task_id(fan_out_id, index), fan_out_id, index, fingerprint, payload)
