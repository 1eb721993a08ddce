"""Bounded reading of a topic, belonging to no group and leaving no trace on the broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_consumer.replay.plan import LogRange
from fanfold_consumer.work import header_list
from fanfold_producer.errors import BrokerRefused, BrokerUnavailable, KafkaConfigError
from fanfold_producer.kafka import KafkaConfig, client_error

RECORDS_MAX = 500
BATCH_BYTES_MAX = 16 * 1024 * 1024
STALL_S = 30.0
MEASURE_S = 3.0
_POLL_S = 0.1
_PIECE = 50


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it is in the log, to the byte. `timestamp_ms`: unix time, as its producer or the broker says."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int = 0


class LogReader:
    """Reads half-open ranges of partitions. A context manager. Blocks: call it from a worker thread.

    Offsets in the log have gaps (compaction, the markers of transactions), so a range ends by the position in
    the log, or because the partition does; never by counting records.
    """

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._ends: dict[int, int] = {}
        self._unfinished: set[int] = set()
        self._positions: dict[int, int] = {}
        settings = kafka.consumer(
            # librdkafka wants a name; nobody joins a group by it and nothing is committed under it.
            group_id=f"fanfold-replay-{uuid.uuid4().hex}",
            enable_auto_commit=False,
            auto_offset_reset="error",
            isolation_level="read_committed",
            # A damaged record would be passed over in silence.
            check_crcs=True,
            enable_partition_eof=True,
            fetch_wait_max_ms=50,
            queued_max_messages_kbytes=BATCH_BYTES_MAX // 1024,
        )
        try:
            self._consumer = Consumer(settings)
        except KafkaException as error:
            raise KafkaConfigError([error.args[0].str()]) from error

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def positions(self) -> dict[int, int]:
        """{partition: next offset to read}, of the partitions that are not read to their end yet."""
        return {partition: self._positions[partition] for partition in sorted(self._unfinished)}

    @property
    def offsets_left(self) -> int:
        return sum(self._ends[partition] - self._positions[partition] for partition in self._unfinished)

    def measure_ends(self, logs: Mapping[int, LogRange]) -> dict[int, LogRange]:
        """The same ranges with their true ends, as of now.

        Brokers exist that report the end of the log too low by up to a batch; reading on from there until the
        partition ends finds it. Where records keep coming, that never happens: then the end is where reading
        was after `MEASURE_S`.
        """
        waiting = self._assign({p: log.high for p, log in logs.items() if log.high > log.low})
        deadline = time.monotonic() + MEASURE_S
        while waiting and time.monotonic() < deadline:
            for message in self._consumer.consume(RECORDS_MAX, _POLL_S):
                if self._is_end(message):
                    waiting.discard(_partition(message))
        positions = self._read_positions()
        return {p: LogRange(log.low, max(log.high, positions.get(p, 0)), log.at_time) for p, log in logs.items()}

    def start(self, ranges: Mapping[int, tuple[int, int]]) -> None:
        """Begin to read {partition: (first offset, offset to stop before)}."""
        ranges = {partition: (low, high) for partition, (low, high) in ranges.items() if low < high}
        self._ends = {partition: high for partition, (_, high) in ranges.items()}
        self._positions = {partition: low for partition, (low, _) in ranges.items()}
        self._unfinished = self._assign(self._positions)

    def read(self) -> list[LogRecord]:
        """The next records, at most `RECORDS_MAX`, some `BATCH_BYTES_MAX`; none: all ranges are read.

        Raises:
            BrokerUnavailable: nothing came for `STALL_S` seconds.
            BrokerRefused: the broker does not let us read.
            ReplayRefused: the log lost the beginning of a range meanwhile.
        """
        records: list[LogRecord] = []
        size = 0
        deadline = time.monotonic() + STALL_S
        while self._unfinished and len(records) < RECORDS_MAX and size < BATCH_BYTES_MAX:
            messages = self._consumer.consume(min(_PIECE, RECORDS_MAX - len(records)), _POLL_S)
            if not messages and records:
                break
            ended = {_partition(message) for message in messages if self._is_end(message)}
            taken = [record for record in map(self._record, messages) if record is not None]
            self._advance(ended)
            records.extend(taken)
            size += sum(len(record.value or b"") for record in taken)
            if messages:
                deadline = time.monotonic() + STALL_S
            elif time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"nothing could be read from {self._topic} at {self._kafka.bootstrap_servers} "
                    f"for {STALL_S:g} s (next offsets {self.positions}); check the broker, then repeat"
                )
        return records

    def _assign(self, offsets: Mapping[int, int]) -> set[int]:
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in offsets.items()])
        return set(offsets)

    def _record(self, message: Message) -> LogRecord | None:
        partition, offset = _partition(message), message.offset()
        if message.error() is not None or offset is None or partition not in self._unfinished:
            return None
        if offset >= self._ends[partition]:
            return None
        return LogRecord(
            partition, offset, _bytes(message.key()), message.value(), header_list(message), message.timestamp()[1]
        )

    def _advance(self, ended: set[int]) -> None:
        for partition, position in self._read_positions().items():
            if partition in self._unfinished:
                self._positions[partition] = min(position, self._ends[partition])
        finished = {p for p in self._unfinished if p in ended or self._positions[p] >= self._ends[p]}
        self._unfinished -= finished
        if finished:
            self._consumer.pause([TopicPartition(self._topic, partition) for partition in finished])

    def _read_positions(self) -> dict[int, int]:
        positions = self._consumer.position(self._consumer.assignment())
        # Negative: nothing was delivered from there yet.
        return {part.partition: part.offset for part in positions if part.offset >= 0}

    def _is_end(self, message: Message) -> bool:
        """Whether this says that a partition has no more records. Raises on an error that does not pass."""
        error = message.error()
        if error is None:
            return False
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise ReplayRefused(
                f"{self._topic}-{message.partition()} no longer has offset {message.offset()}: "
                "retention or a deletion removed the beginning of the range meanwhile; "
                "repeat the replay, it starts where the log does now"
            )
        cause = client_error(f"read {self._topic}", self._kafka, KafkaException(error))
        if isinstance(cause, BrokerRefused):
            raise cause
        return False


def _partition(message: Message) -> int:
    partition = message.partition()
    return -1 if partition is None else partition


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
