"""Fan-outs of a nemesis' own, published past the links, and what became of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from fanfold_producer import Record
from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from tests.fault.chaos.nemeses.act import await_true
from tests.fault.chaos.nemesis_handlers import ECHO
from tests.fault.chaos.world import NEMESIS_PREFIX, World
from tests.support.wait import eventually

_FLUSH_S = 60.0
_FOLDED_S = 60.0
_READ_S = 60.0

Coordinates = tuple[str, int, int]
"""Topic, partition and offset of a record."""


class OwnWork:
    """Threads and fan-outs named `nemesis-<label>-<nemesis>-<unique>`.

    The label says what is to become of them in the end: `done` and `failed` are folded; of `aborted` there is never any
    trace; `lost` were on a log that was deleted, and may be anything.
    """

    def __init__(self, world: World, nemesis: str) -> None:
        self._world = world
        self._nemesis = nemesis

    def build(
        self, topic: str, sends: Sequence[tuple[str, object]] | int, *, label: str = "done", fold: str = "count"
    ) -> BuiltFanOut:
        """With a number for `sends`: so many that only echo."""
        if isinstance(sends, int):
            sends = [(ECHO, n) for n in range(sends)]
        name = f"{NEMESIS_PREFIX}{label}-{self._nemesis}-{uuid.uuid4().hex[:12]}"
        return build_fan_out(name, sends, topic=topic, fan_out_id=name, fold=fold)

    def publish(
        self, topic: str, sends: Sequence[tuple[str, object]] | int, *, label: str = "done", fold: str = "count"
    ) -> str:
        """Publish a fan-out; returns its id."""
        built = self.build(topic, sends, label=label, fold=fold)
        self.write(built.records)
        return built.fan_out.id

    def write(self, records: Sequence[Record], **settings: str | bool) -> list[Coordinates]:
        """Write records as they are; where they lie, in the order of the records.

        Args:
            settings: of the producer, librdkafka names with `_` for `.`.
        """
        dotted = {name.replace("_", "."): value for name, value in settings.items()}
        bootstrap = self._world.stack.kafka.direct_bootstrap
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0, **dotted})
        found: dict[int, Coordinates] = {}
        failures: list[KafkaException] = []
        for number, record in enumerate(records):
            _produce(producer, record, number, found, failures)
        producer.flush(_FLUSH_S)
        if failures or len(found) < len(records):
            raise RuntimeError(f"{len(found)} of {len(records)} records were written; {failures[:1]}")
        return [found[number] for number in range(len(records))]

    def await_folded(self, fan_out_id: str, timeout_s: float = _FOLDED_S) -> bool:
        return await_true(lambda: self.folded(fan_out_id), timeout_s)

    def folded(self, fan_out_id: str) -> bool:
        query = "select folded_at is not null from fanfold.fan_out where fan_out_id = %s"
        return self._world.stack.postgres.rows(query, (fan_out_id,)) == [(True,)]

    def results(self, fan_out_id: str) -> int:
        """How many of its tasks have a result."""
        query = "select count(*) from fanfold.result where fan_out_id = %s and index >= 0"
        rows: list[tuple[int]] = await_true(lambda: self._world.stack.postgres.rows(query, (fan_out_id,)))
        return rows[0][0]

    def await_dead_letter(self, at: Coordinates, timeout_s: float = _FOLDED_S) -> str | None:
        """The code under which the record there was parked, once it is."""
        query = "select code from fanfold.dead_letter where (topic, partition, record_offset) = (%s, %s, %s)"

        def code() -> str | None:
            found = self._world.stack.postgres.rows(query, at)
            return found[0][0] if found else None

        return await_true(code, timeout_s)

    def read_last(self, topic: str, count: int) -> list[Record]:
        """The last committed records of a topic's log, some of each partition: to be written again as they are."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._world.stack.kafka.direct_bootstrap,
                "group.id": f"{NEMESIS_PREFIX}{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        try:
            partitions = self._world.stack.kafka.partitions(topic)
            each = max(1, count // max(1, partitions))
            starts, ended = [], set[int]()
            for number in range(partitions):
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_READ_S)
                starts.append(TopicPartition(topic, number, max(low, high - each)))
            consumer.assign(starts)
            messages: list[Message] = []

            def all_read() -> bool:
                for message in consumer.consume(1000, 0.2):
                    if message.error() is None:
                        messages.append(message)
                    else:
                        ended.add(message.partition() or 0)
                return len(ended) >= partitions

            eventually(all_read, _READ_S, what=f"the end of {topic}")
        finally:
            consumer.close()
        return [_record(message) for message in messages]


def _produce(
    producer: Producer, record: Record, number: int, found: dict[int, Coordinates], failures: list[KafkaException]
) -> None:
    def delivered(error: object, message: Message) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if error is not None or topic is None or partition is None or offset is None:
            failures.append(KafkaException(error))
        else:
            found[number] = topic, partition, offset

    producer.produce(
        record.topic,
        record.value,
        record.key,
        -1 if record.partition is None else record.partition,
        headers=list(record.headers),
        on_delivery=delivered,
    )


def _record(message: Message) -> Record:
    topic = message.topic()
    assert topic is not None
    headers: Any = message.headers() or ()
    return Record(topic, message.key(), message.value(), tuple(headers))
