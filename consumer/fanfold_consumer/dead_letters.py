"""Parking a record: its bytes go to the table, in the commit that moves progress past it, and then to the `-dlt` topic.

Headers on the topic are those of Kafka Connect's dead letter queue (KIP-298), which dead-letter tools already read.
"""

from __future__ import annotations

from fanfold_consumer.work import Completion, Delivery, readable_headers
from fanfold_producer.fan_out import WRITTEN_BYTES_MAX
from fanfold_schemas import Task, dead_letter_topic, pack_headers
from fanfold_sql import DeadLetter, Finished, OutboxRecord

ERROR_CHARS_MAX = 2000
CONNECT = "__connect.errors."
HEADERS_LOST = "its headers are not kept, because the name of one is no UTF-8"


class Parking:
    """Makes dead letters for one group. `topics`: those whose dead-letter topic takes records."""

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._topics: frozenset[str] = frozenset()

    def publish_for(self, topics: frozenset[str]) -> None:
        self._topics = topics

    def park(
        self,
        delivery: Delivery,
        code: str,
        error: str,
        *,
        task: Task | None = None,
        arg_hash: int = 0,
        counts: bool = True,
    ) -> Completion:
        """A completion that parks `delivery`.

        The table keeps it in any case; the topic, unless it is too large for it or has no value.

        Args:
            task: what it decoded to, if it did.
            counts: whether its fan-out counts it as failed. A conflicting record does not: the task it poses as has,
                or will have, a result of its own.
        """
        message, partition = delivery.message, delivery.partition
        headers = readable_headers(message)
        if headers is None:
            error = f"{HEADERS_LOST}. {error}"
        error = _storable(error)[:ERROR_CHARS_MAX]
        letter = DeadLetter(
            partition.progress_id,
            delivery.offset,
            message.key(),
            message.value(),
            None if headers is None else pack_headers(headers),
            code,
            error,
            task,
        )
        result = None
        if task is not None and counts:
            result = Finished(task, None, arg_hash, partition.topic)
        outbox: tuple[OutboxRecord, ...] = ()
        if partition.topic in self._topics:
            headers = [
                *(headers or ()),
                (f"{CONNECT}topic", partition.topic.encode()),
                (f"{CONNECT}partition", b"%d" % partition.number),
                (f"{CONNECT}offset", b"%d" % delivery.offset),
                (f"{CONNECT}connector.name", self._group_id.encode()),
                (f"{CONNECT}stage", b"VALUE_CONVERTER" if task is None else b"TASK_PUT"),
                (f"{CONNECT}exception.class.name", code.encode()),
                (f"{CONNECT}exception.message", error.encode()),
            ]
            packed = pack_headers(headers)
            size = len(message.key() or b"") + len(message.value() or b"") + len(packed)
            # With its new headers it may have outgrown what the broker takes, and would be tried for ever. Packed, a
            # header takes no less than on the wire but for the few bytes of its lengths. A record without a value (a
            # tombstone) is no record to the outbox: there, no value stands for a fold.
            if message.value() is not None and size + 8 * len(headers) <= WRITTEN_BYTES_MAX:
                outbox = (OutboxRecord(dead_letter_topic(partition.topic), message.key(), message.value(), packed),)
        return Completion(delivery, result, letter, outbox)


def _storable(text: str) -> str:
    """Without what Postgres or UTF-8 cannot hold: a handler's error may quote any file name or input."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
