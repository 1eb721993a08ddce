"""What a topic's log holds: the bounds of its partitions, and where a time lies in them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from fanfold_consumer.replay.plan import LogRange
from fanfold_producer.errors import BrokerUnavailable, KafkaConfigError
from fanfold_producer.kafka import KafkaConfig, client_error

# Its constructors have no type information.
_Spec: Any = OffsetSpec


def read_log_ranges(
    kafka: KafkaConfig,
    topic: str,
    partitions: Iterable[int],
    *,
    at_ms: int | None = None,
    timeout_s: float = 10.0,
) -> dict[int, LogRange]:
    """{partition: its bounds}, as a member may read them: up to the first open transaction.

    Raises:
        BrokerUnavailable, BrokerRefused, KafkaConfigError: as for every look at the cluster.
    """
    wanted = sorted(partitions)
    low = _offsets(kafka, topic, wanted, _Spec.earliest(), timeout_s)
    high = _offsets(kafka, topic, wanted, _Spec.latest(), timeout_s)
    at = _offsets(kafka, topic, wanted, _Spec.for_timestamp(at_ms), timeout_s) if at_ms is not None else {}
    return {p: LogRange(low[p], max(low[p], high[p]), _found(at.get(p))) for p in wanted}


def read_log_ends(kafka: KafkaConfig, topics: dict[str, int], *, timeout_s: float = 10.0) -> dict[tuple[str, int], int]:
    """{(topic, partition): log end offset} of topics, {name: partitions}, as Kafka's own tools show it."""
    request = {
        TopicPartition(topic, partition): _Spec.latest()
        for topic, count in topics.items()
        for partition in range(count)
    }
    ends = _list_offsets(kafka, request, IsolationLevel.READ_UNCOMMITTED, timeout_s)
    return {(part.topic, part.partition): offset for part, offset in ends.items()}


def _offsets(kafka: KafkaConfig, topic: str, partitions: list[int], spec: Any, timeout_s: float) -> dict[int, int]:
    request = {TopicPartition(topic, partition): spec for partition in partitions}
    # READ_COMMITTED: the end is where a member would stop, before tasks of a transaction that may yet be
    # aborted.
    found = _list_offsets(kafka, request, IsolationLevel.READ_COMMITTED, timeout_s)
    return {part.partition: offset for part, offset in found.items()}


def _found(offset: int | None) -> int | None:
    # A time after the last record is answered with -1.
    return None if offset is None or offset < 0 else offset


def _list_offsets(
    kafka: KafkaConfig, request: dict[TopicPartition, Any], isolation: IsolationLevel, timeout_s: float
) -> dict[TopicPartition, int]:
    if not request:
        return {}
    try:
        # Named, not chained: without a reference the client is gone before its futures resolve.
        admin = AdminClient(kafka.admin())
    except KafkaException as error:
        raise KafkaConfigError([error.args[0].str()]) from error
    try:
        futures = admin.list_offsets(request, isolation_level=isolation, request_timeout=timeout_s)
        return {part: future.result(timeout_s).offset for part, future in futures.items()}
    except FutureTimeout as error:
        raise BrokerUnavailable(
            f"cannot list offsets at {kafka.bootstrap_servers}: no answer within {timeout_s:g} s; repeat"
        ) from error
    except KafkaException as error:
        raise client_error("list offsets", kafka, error) from error
