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
    lookup = _Lookup(kafka, [topic], timeout_s)

    def offsets(spec: Any) -> dict[int, int]:
        # READ_COMMITTED: the end is where a member stops, before tasks of a transaction that may be aborted.
        request = {TopicPartition(topic, partition): spec for partition in wanted}
        found = lookup.offsets(request, IsolationLevel.READ_COMMITTED)
        return {part.partition: offset for part, offset in found.items()}

    low, high = offsets(_Spec.earliest()), offsets(_Spec.latest())
    at = offsets(_Spec.for_timestamp(at_ms)) if at_ms is not None else {}
    return {p: LogRange(low[p], max(low[p], high[p]), _found(at.get(p))) for p in wanted}


def read_log_ends(kafka: KafkaConfig, topics: dict[str, int], *, timeout_s: float = 10.0) -> dict[tuple[str, int], int]:
    """{(topic, partition): log end offset} of topics, {name: partitions}, as Kafka's own tools show it."""
    request = {
        TopicPartition(topic, partition): _Spec.latest()
        for topic, count in topics.items()
        for partition in range(count)
    }
    ends = _Lookup(kafka, topics, timeout_s).offsets(request, IsolationLevel.READ_UNCOMMITTED)
    return {(part.topic, part.partition): offset for part, offset in ends.items()}


def _found(offset: int | None) -> int | None:
    # A time after the last record is answered with -1.
    return None if offset is None or offset < 0 else offset


class _Lookup:
    """Asks for offsets of some topics, by one client that knows their leaders."""

    def __init__(self, kafka: KafkaConfig, topics: Iterable[str], timeout_s: float) -> None:
        self._kafka = kafka
        self._timeout_s = timeout_s
        try:
            self._admin = AdminClient(kafka.admin())
        except KafkaException as error:
            raise KafkaConfigError([error.args[0].str()]) from error
        try:
            # A client that has to find the leaders while it is asked for offsets misses the answer now and then,
            # and looks again only after three seconds (librdkafka 2.16: one call in seventy).
            for topic in topics:
                self._admin.list_topics(topic, timeout=timeout_s)
        except KafkaException as error:
            raise client_error("list offsets", kafka, error) from error

    def offsets(self, request: dict[TopicPartition, Any], isolation: IsolationLevel) -> dict[TopicPartition, int]:
        if not request:
            return {}
        try:
            futures = self._admin.list_offsets(request, isolation_level=isolation, request_timeout=self._timeout_s)
            return {part: future.result(self._timeout_s).offset for part, future in futures.items()}
        except FutureTimeout as error:
            raise BrokerUnavailable(
                f"cannot list offsets at {self._kafka.bootstrap_servers}: no answer within "
                f"{self._timeout_s:g} s; check that the broker is up and reachable, then repeat"
            ) from error
        except KafkaException as error:
            raise client_error("list offsets", self._kafka, error) from error
