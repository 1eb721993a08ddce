"""What there is of a topic, before any of it is read."""

from __future__ import annotations

from collections.abc import Sequence

from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_consumer.replay.log_offsets import read_log_ranges
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.plan import LogRange
from fanfold_producer.errors import TopicMissing
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics


def look_up(kafka: KafkaConfig, topic: str) -> tuple[str, str, int]:
    """(cluster id, topic id, number of partitions)."""
    try:
        cluster_id, topics = cluster_and_topics(kafka, [topic])
    except TopicMissing as error:
        raise ReplayRefused(
            f"there is no topic {topic} at {kafka.bootstrap_servers}: nothing to read; check the name and the broker"
        ) from error
    return cluster_id, *topics[topic]


def existing_partitions(topic: str, partitions: frozenset[int] | None, count: int) -> list[int]:
    """Those that were asked for, or all. Raises `ReplayRefused` if there is one that the topic does not have."""
    if partitions is None:
        return list(range(count))
    beyond = sorted(p for p in partitions if p >= count)
    if beyond:
        raise ReplayRefused(f"{topic} has the partitions 0 to {count - 1}, not {', '.join(map(str, beyond[:10]))}")
    return sorted(partitions)


def measure_log(
    kafka: KafkaConfig, topic: str, partitions: Sequence[int], at_ms: int | None = None
) -> dict[int, LogRange]:
    """{partition: its bounds}, ends as they truly are (see `LogReader.measure_ends`)."""
    logs = read_log_ranges(kafka, topic, partitions, at_ms=at_ms)
    with LogReader(kafka, topic) as reader:
        return reader.measure_ends(logs)
