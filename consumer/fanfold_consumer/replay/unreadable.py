"""Batches that cannot be read: where one begins, and the first offset after it. The client does not say how long such a
batch is, so its end is found by trying."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_producer.errors import BrokerUnavailable, KafkaConfigError
from fanfold_producer.kafka import KafkaConfig

BATCHES_MAX = 100
LOOK_S = 10.0
_POLL_S = 0.1
UNREADABLE = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED})
"""Errors about a batch: damaged, not to be decompressed, or of a format that this client does not know."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A batch that cannot be read, by the offset it begins at."""

    offset: int
    why: str


class Prober:
    """Looks what can be read where, belonging to no group. Blocks: call it from a worker thread.

    Raises:
        BrokerUnavailable: nothing was heard for `LOOK_S` seconds.
        ReplayRefused: the log does not have an offset, or it is not to be found out what can be read.
    """

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._settings = kafka.consumer(
            # librdkafka wants a name; nobody joins a group by it and nothing is committed under it.
            group_id=f"fanfold-resolve-{uuid.uuid4().hex}",
            enable_auto_commit=False,
            auto_offset_reset="error",
            isolation_level="read_committed",
            enable_partition_eof=True,
            fetch_wait_max_ms=50,
            check_crcs=True,
        )

    def look(self, partition: int, offset: int) -> Damage | None:
        """What is wrong with the batch that has this offset; None: it can be read, or the log ends here."""
        # A client for each look: one that met a wrong checksum takes the bytes behind it for a batch, and goes on at an
        # offset that it made of them (librdkafka 2.16).
        try:
            consumer = Consumer(self._settings)
        except KafkaException as error:
            raise KafkaConfigError([error.args[0].str()]) from error
        try:
            consumer.assign([TopicPartition(self._topic, partition, offset)])
            return self._wait(consumer, partition, offset)
        finally:
            consumer.close()

    def _wait(self, consumer: Consumer, partition: int, offset: int) -> Damage | None:
        deadline = time.monotonic() + LOOK_S
        last = "no answer"
        while time.monotonic() < deadline:
            message = consumer.poll(_POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                return None
            if error.code() in UNREADABLE and message.partition() == partition:
                at = message.offset()
                return Damage(offset if at is None else at, error.str())
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise ReplayRefused(f"{self._topic}-{partition} does not have offset {offset}: {error.str()}")
            last = error.str()
        raise BrokerUnavailable(
            f"cannot read {self._topic}-{partition} from offset {offset} at {self._kafka.bootstrap_servers}: {last}; "
            "check the broker, then repeat"
        )

    def first_readable(self, partition: int, offset: int, end: int) -> int:
        """The first offset from `offset` up to `end` that can be read, behind all batches in a row that cannot."""
        for _ in range(BATCHES_MAX):
            damage = self.look(partition, offset)
            if damage is None:
                return offset
            offset = self._after(partition, damage, max(offset, damage.offset), end)
        raise ReplayRefused(
            f"{self._topic}-{partition}: {BATCHES_MAX} batches in a row cannot be read, up to offset {offset}; "
            "name where to go on with --to-offset, or give up what is there with --to-latest"
        )

    def _after(self, partition: int, damage: Damage, inside: int, end: int) -> int:
        """The first offset behind a batch, some offset of which is `inside`."""
        step, outside = 1, end
        while inside + step < end:
            if not self._in(partition, inside + step, damage):
                outside = inside + step
                break
            inside, step = inside + step, step * 2
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if self._in(partition, middle, damage):
                inside = middle
            else:
                outside = middle
        return outside

    def _in(self, partition: int, offset: int, damage: Damage) -> bool:
        found = self.look(partition, offset)
        return found is not None and found.offset == damage.offset
