"""What the contenders that read a topic have in common: how they are told what to read, and what they say.

They say `{"assigned": n}` at each assignment and `{"done": n}`, all so far, whenever more is durable.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from fanfold_producer.kafka import KafkaConfig

DATABASE_URL = os.environ.get("DATABASE_URL", "")


def options(*numbers: str) -> argparse.Namespace:
    """`--topic`, `--group`, and whole-number options of these names."""
    parser = argparse.ArgumentParser()
    for name in ("topic", "group"):
        parser.add_argument(f"--{name}", required=True)
    for name in numbers:
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


class Reading:
    """A consumer that belongs to the group, and a flag that SIGTERM ends."""

    def __init__(self, topic: str, group: str) -> None:
        self.topic = topic
        self.running = True
        self.done = 0
        signal.signal(signal.SIGTERM, self._end)
        # The client settings that the fleet has, too. With librdkafka's own a consumer whose queue was full for a
        # moment does not fetch for a second, which would cost whoever processes in batches a good part of its rate.
        settings = KafkaConfig.from_env().consumer(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_wait_max_ms=50,
            fetch_queue_backoff_ms=10,
        )
        self.consumer = Consumer(settings)
        self.consumer.subscribe([topic], on_assign=self._on_assign)

    def records(self, count: int, timeout_s: float) -> list[Message]:
        """Up to `count`, as soon as they are there; fewer after `timeout_s`."""
        found = self.consumer.consume(count, timeout_s)
        for message in found:
            error = message.error()
            if error is not None:
                raise RuntimeError(f"cannot read {self.topic}: {error}")
        return found

    def finished(self, count: int) -> None:
        """So many more are durable."""
        self.done += count
        say(done=self.done)

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        say(assigned=len(partitions))

    def _end(self, *_: object) -> None:
        self.running = False


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)
