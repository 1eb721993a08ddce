"""Records of fan-outs at the price of a replacement each, so that what publishes them takes little of a small machine
from what is measured, and the same from every contender."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from fanfold_producer.fan_out import build_fan_out
from fanfold_producer.kafka import KafkaConfig
from fanfold_producer.record import Record
from fanfold_schemas import new_fan_out_id

TEXT = "x" * 180
"""Makes arg and result about 200 bytes."""


def echoes(width: int) -> list[tuple[str, Any]]:
    """Sends of no-op tasks, whose fold is `total`."""
    return [("echo", {"n": n, "text": TEXT}) for n in range(width)]


class Mould:
    """Fan-outs of the same Sends, each in a thread of its own, as `Publisher` would write them."""

    def __init__(self, topic: str, sends: Sequence[tuple[str, Any]], fold: str | None = None) -> None:
        self._id = new_fan_out_id()
        built = build_fan_out(self._id, sends, topic=topic, fan_out_id=self._id, fold=fold)
        self._task_ids = built.task_ids
        self._records = built.records

    def cast(self) -> tuple[str, list[Record]]:
        """The id of a new fan-out, and its records."""
        fan_out_id = new_fan_out_id()
        old, new = self._id.encode(), fan_out_id.encode()
        return fan_out_id, [self._record(record, n, old, new) for n, record in enumerate(self._records)]

    def _record(self, record: Record, index: int, old: bytes, new: bytes) -> Record:
        # Another id for the task as well, of the same length: bytes that are replaced keep what says how many they are.
        task_id = new[:-6] + b"%06d" % index
        assert record.value is not None
        value = record.value.replace(self._task_ids[index].encode(), task_id).replace(old, new)
        return Record(record.topic, task_id, value)


class Plain:
    """A producer without a transaction, as fast as one is that waits for all acknowledgements."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._producer = Producer(kafka.producer(acks="all", enable_idempotence=True, linger_ms=5))

    def write(self, records: list[Record]) -> None:
        """Return when all are acknowledged. `flush` sends at once what lingers."""
        self.queue(records)
        self.flush()

    def queue(self, records: list[Record]) -> None:
        for record in records:
            self._producer.produce(record.topic, record.value, record.key)
        self._producer.poll(0)

    def flush(self) -> None:
        left = self._producer.flush(30.0)
        assert left == 0, f"{left} records were not acknowledged within 30 s"
