"""Write records and know that they are there."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType

from confluent_kafka import KafkaError, Message

from fanfold_producer.client import (
    CLOSE_TIMEOUT_S,
    DELIVERY_TIMEOUT_S,
    LINGER_MS,
    QUEUE_BYTES_MAX,
    QUEUE_RECORDS_MAX,
    Client,
    failure_text,
    pending_future,
    producer_settings,
)
from fanfold_producer.errors import PublishError
from fanfold_producer.kafka import KafkaConfig
from fanfold_producer.record import Record

# A slice of a large batch, after which the event loop gets a turn.
_SLICE_RECORDS = 1000
_log = logging.getLogger("fanfold.kafka")


class Sender:
    """Writes batches of records and returns when all of them are acknowledged by all in-sync replicas.

    Each record is written at least once, and exactly once while the producer lives (it is idempotent). Safe
    to use from many workers and event loops at once; each call waits for its own records only.

    Args:
        config: where Kafka is. Its producer settings come before the arguments below.
        linger_ms: how long a record waits for company, in milliseconds; 0: not at all.
        queue_records_max: records that may wait for the broker, over all callers; beyond it callers wait.
        queue_bytes_max: the same in bytes.
        delivery_timeout_s: a record without an acknowledgement so many seconds after it was queued has failed.

    Raises:
        KafkaConfigError: librdkafka does not take the settings.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        linger_ms: float = LINGER_MS,
        queue_records_max: int = QUEUE_RECORDS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self._servers = config.bootstrap_servers
        self._settings = producer_settings(
            config,
            linger_ms=linger_ms,
            queue_records_max=queue_records_max,
            queue_bytes_max=queue_bytes_max,
            delivery_timeout_s=delivery_timeout_s,
            required={"enable.idempotence": True},
        )
        self._lock = threading.Lock()
        self._closed = False
        self._client = Client(self._settings)

    def send(self, records: Sequence[Record], timeout: float = 60.0) -> None:
        """Write the records and block until all are acknowledged, at most `timeout` seconds.

        Waits while the queue is full. Do not call it on an event loop; `asend` is for that.

        Raises:
            PublishError: some were not acknowledged: how many, the first error, and what to do. The others
                are written. After a timeout the rest may still arrive; writing all again is harmless.
        """
        batch = _Batch(len(records), self._servers)
        deadline = time.monotonic() + timeout
        for step in self._steps(records, batch):
            try:
                step.result(max(0.0, deadline - time.monotonic()))
            except FutureTimeout:
                raise batch.too_late(timeout, self._client.trouble.advice()) from None
        batch.check(self._client.trouble.advice())

    async def asend(self, records: Sequence[Record], timeout: float = 60.0) -> None:  # noqa: ASYNC109
        """`send` for an event loop, which is never blocked. A cancelled call may still write its records."""
        batch = _Batch(len(records), self._servers)
        deadline = time.monotonic() + timeout
        for step in self._steps(records, batch):
            if step.done():
                await asyncio.sleep(0)
                continue
            try:
                await asyncio.wait_for(asyncio.wrap_future(step), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise batch.too_late(timeout, self._client.trouble.advice()) from None
        batch.check(self._client.trouble.advice())

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> int:
        """Write what is queued, at most `timeout` seconds, and stop. Returns how many records were given up.

        Those who wait for the ones given up get `PublishError`. Closing again does nothing.
        """
        with self._lock:
            if self._closed:
                return 0
            self._closed = True
        return self._client.close(timeout)

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _steps(self, records: Sequence[Record], batch: _Batch) -> Iterator[Future[None]]:
        """Queue the records. Yields what has to be waited for before going on: how to wait is the caller's
        business, so that blocking and asynchronous callers share everything else."""
        client = self._client_in_service(len(records))
        at = 0
        while at < len(records):
            end = min(len(records), at + _SLICE_RECORDS)
            at = client.offer(records, at, end, batch.delivered)
            if at == end:
                if end < len(records):
                    yield _TURN
                continue
            # Ask for the news before trying again: room made in between would never be reported.
            room = client.room()
            before, at = at, client.offer(records, at, end, batch.delivered)
            if at == before:
                yield room
        yield batch.done

    def _client_in_service(self, total: int) -> Client:
        with self._lock:
            if self._closed:
                raise PublishError("this sender is closed; make a new one", failed=total, total=total)
            if self._client.broken:
                # It can only be left behind. What is still queued in it fails, and is published again by those
                # who wait for it; their ids make that harmless.
                _log.warning("producer.replaced: %s", self._client.broken)
                self._client.retire()
                self._client = Client(self._settings)
            return self._client


class _Batch:
    """What is known of the records of one call."""

    def __init__(self, total: int, servers: str) -> None:
        self.done = pending_future()
        self._total = total
        self._servers = servers
        self._acknowledged = 0
        self._failed = 0
        self._first_error: KafkaError | None = None
        # Reports come from the client's worker; a record refused at once is reported by the caller's own.
        self._lock = threading.Lock()
        if total == 0:
            self.done.set_result(None)

    def delivered(self, error: KafkaError | None, _message: Message | None) -> None:
        with self._lock:
            if error is None:
                self._acknowledged += 1
            else:
                self._failed += 1
                self._first_error = self._first_error or error
            finished = self._acknowledged + self._failed == self._total
        if finished:
            self.done.set_result(None)

    def check(self, advice: str) -> None:
        if self._first_error is not None:
            raise PublishError(
                f"{self._failed} of {self._total} records were not acknowledged by {self._servers}; "
                f"the first: {failure_text(self._first_error, advice)}",
                failed=self._failed,
                total=self._total,
            )

    def too_late(self, timeout: float, advice: str) -> PublishError:
        missing = self._total - self._acknowledged
        return PublishError(
            f"{missing} of {self._total} records were not acknowledged by {self._servers} within {timeout:g} s; "
            f"they may still arrive. To do: {advice}, then publish all of them again: "
            "the ids are the same, so twice is harmless.",
            failed=missing,
            total=self._total,
        )


_TURN = pending_future()
_TURN.set_result(None)

__all__ = ["Record", "Sender"]
