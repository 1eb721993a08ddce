"""Every record of a topic once more, out of order: what redelivery and retrying producers may do to a fleet."""

from __future__ import annotations

import random
import threading
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from fanfold_producer.kafka import KafkaConfig
from tests.support.kafka import Topic

_COPY = "test-copy"
_BATCH_RECORDS = 200


class Duplicator:
    """Copies records as they come, each once, shuffled among those that came with it.

    Attributes:
        copied: how many.
    """

    def __init__(self, kafka: KafkaConfig, topic: Topic, *, seed: int = 1) -> None:
        self.copied = 0
        self._topic = topic
        self._random = random.Random(seed)
        settings = {"bootstrap.servers": kafka.bootstrap_servers, **kafka.properties}
        self._settings = {
            name: value for name, value in settings.items() if "." in name and name.split(".")[0] != "consumer"
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duplicator")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        consumer = Consumer({**self._settings, "group.id": f"duplicator-{uuid.uuid4()}", "enable.auto.commit": False})
        producer = Producer(self._settings)
        consumer.assign([TopicPartition(self._topic.name, n, OFFSET_BEGINNING) for n in range(self._topic.partitions)])
        try:
            while not self._stop.is_set():
                batch = [m for m in consumer.consume(_BATCH_RECORDS, 0.05) if m.error() is None and not _is_copy(m)]
                self._random.shuffle(batch)
                for message in batch:
                    headers = [*(message.headers() or []), (_COPY, b"1")]
                    producer.produce(self._topic.name, message.value(), message.key(), headers=headers)
                self.copied += len(batch)
                producer.poll(0)
            producer.flush(10)
        finally:
            consumer.close()


def _is_copy(message: Message) -> bool:
    return any(header[0] == _COPY for header in message.headers() or [])
