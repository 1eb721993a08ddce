"""Write records all or none: one Kafka transaction a call, one call at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fanfold_producer.client import (
    CLOSE_TIMEOUT_S,
    DELIVERY_TIMEOUT_S,
    LINGER_MS,
    QUEUE_BYTES_MAX,
    QUEUE_RECORDS_MAX,
    failure_text,
    kafka_error,
    new_producer,
    produce,
    producer_settings,
)
from fanfold_producer.errors import PublishError
from fanfold_producer.kafka import KafkaConfig
from fanfold_producer.record import Record
from fanfold_producer.trouble import Trouble

TRANSACTION_TIMEOUT_MS = 30_000
"""After so long the broker gives up on a publisher that died in the middle. Until then, readers of committed
records wait before that place; so it is short, and a transaction has to be done by then."""

_ABORT_TIMEOUT_S = 10.0
_POLL_EVERY_RECORDS = 500
_CONSEQUENCES = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")
_log = logging.getLogger("fanfold.kafka")


class TransactionalSender:
    """Writes each batch of records in a transaction of its own: readers of committed records see all or none.

    That is the broker's doing. Measured: the embedded broker takes part in transactions, fencing included, but
    shows aborted records to readers of committed ones too, so there it is no more than a series of writes.

    Safe to use from many workers and event loops at once; batches are written one after another. The producer
    is made, and registered with the broker, by the first call.

    Args:
        config: where Kafka is; its producer settings come before the defaults.
        transactional_id: nobody else's: a second producer with the same one shuts this one out.
        queue_records_max: records that may wait for the broker; a larger batch is handed over bit by bit.
        queue_bytes_max: the same in bytes.

    Raises:
        KafkaConfigError: from the first `send`: librdkafka does not take the settings.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        transactional_id: str,
        queue_records_max: int = QUEUE_RECORDS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._servers = config.bootstrap_servers
        self._settings = {
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            **producer_settings(
                config,
                linger_ms=LINGER_MS,
                queue_records_max=queue_records_max,
                queue_bytes_max=queue_bytes_max,
                delivery_timeout_s=min(DELIVERY_TIMEOUT_S, TRANSACTION_TIMEOUT_MS / 1000),
                required={"enable.idempotence": True, "transactional.id": transactional_id},
            ),
        }
        self._producer: Producer | None = None
        self._trouble = Trouble()
        self._closed = False
        # One worker is both the queue and the lock: a producer can have one transaction at a time.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fanfold-transaction")

    def send(self, records: Sequence[Record], timeout: float = 60.0) -> None:
        """Write the records in one transaction and block until it is committed, `timeout` seconds or a bit more.

        Raises:
            PublishError: nothing of it is visible, unless the message says that this is unknown; what failed
                first, and what to do. Writing the same records again is harmless in either case.
        """
        self._submit(records, timeout).result()

    async def asend(self, records: Sequence[Record], timeout: float = 60.0) -> None:  # noqa: ASYNC109
        """`send` for an event loop. Cancelled before its turn it writes nothing; after that, all or none."""
        await asyncio.wrap_future(self._submit(records, timeout))

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> int:
        """Finish the transaction that is under way and stop; those that wait for their turn fail.

        Returns how many records were given up: always 0, as every caller has been answered.
        """
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._producer = None
        return 0

    def __enter__(self) -> TransactionalSender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, records: Sequence[Record], timeout: float) -> Future[None]:
        if not self._closed:
            try:
                return self._worker.submit(self._run, records, time.monotonic() + timeout)
            except RuntimeError:  # closed in between
                pass
        raise PublishError("this publisher is closed; make a new one", failed=len(records), total=len(records))

    def _run(self, records: Sequence[Record], deadline: float) -> None:
        for last_attempt in (False, True):
            attempt = _Attempt(records, deadline)
            try:
                attempt.run(self._ready(deadline))
                return
            except (KafkaException, SystemError) as failure:
                error = kafka_error(failure)
            clean = self._clean_up(attempt)
            if error.name() in _CONSEQUENCES and attempt.first_error is not None:
                # What was refused may be reported after what was only thrown away because of it.
                error = attempt.first_error
            # A producer that the broker has shut out (idle for days, a broker that forgot it) is replaced, once.
            if attempt.committing or clean or last_attempt or not error.fatal():
                raise self._publish_error(attempt, error)
            _log.warning("producer.replaced: %s", failure_text(error))

    def _ready(self, deadline: float) -> Producer:
        if self._producer is None:
            self._trouble = Trouble()
            producer = new_producer(self._settings, self._trouble)
            # Under the same transactional id, this also ends what a predecessor of ours left open.
            try:
                producer.init_transactions(_left(deadline))
            except KafkaException:
                producer.poll(0)  # what it heard of its connections is told here and nowhere else
                raise
            self._producer = producer
        return self._producer

    def _clean_up(self, attempt: _Attempt) -> bool:
        """Abort what was begun and let go of the producer. False: it could not abort.

        Measured: after an abort that needs a new producer epoch, librdkafka may purge the records of the next
        transaction. Failures are rare and a new producer costs tens of milliseconds.
        """
        producer, self._producer = self._producer, None
        if producer is None or not attempt.begun:
            return False
        try:
            # Refused while a commit is under way: then its end is unknown, and only a new producer settles it.
            producer.abort_transaction(_ABORT_TIMEOUT_S)
        except (KafkaException, SystemError) as failure:
            _log.warning("transaction.abort_failed: %s", failure_text(kafka_error(failure)))
            return False
        attempt.committing = False
        return True

    def _publish_error(self, attempt: _Attempt, error: KafkaError) -> PublishError:
        total = len(attempt.records)
        reason = failure_text(error, self._trouble.advice())
        if attempt.committing:
            message = (
                f"it is unknown whether {total} records were published: {self._servers} did not confirm the "
                f"transaction's end. {reason}. Publish the same again: twice is harmless."
            )
        else:
            message = (
                f"none of {total} records was published at {self._servers}: their transaction was aborted. "
                f"The reason: {reason}"
            )
            if error.name() in ("_UNSUPPORTED_FEATURE", "UNSUPPORTED_VERSION"):
                message += ". This broker has no transactions: publish with atomic=False."
        return PublishError(message, failed=total, total=total)


class _Attempt:
    """One transaction from begin to commit. `begun` and `committing` say how far it came."""

    def __init__(self, records: Sequence[Record], deadline: float) -> None:
        self.records = records
        self.begun = False
        self.committing = False
        self._deadline = deadline
        self.first_error: KafkaError | None = None

    def run(self, producer: Producer) -> None:
        """Write and commit; raises `KafkaException` with the first error."""
        producer.begin_transaction()
        self.begun = True
        for at, record in enumerate(self.records):
            self._produce(producer, record)
            if at % _POLL_EVERY_RECORDS == 0:
                producer.poll(0)
            self._check()
        producer.flush(_left(self._deadline))
        self._check()
        if len(producer):
            raise _too_late(f"{len(producer)} records are not acknowledged in time")
        self.committing = True
        while True:
            try:
                producer.commit_transaction(_left(self._deadline))
                return
            except KafkaException as failure:
                error = failure.args[0]
                if error.txn_requires_abort() or not error.retriable() or time.monotonic() > self._deadline:
                    raise

    def _produce(self, producer: Producer, record: Record) -> None:
        while True:
            try:
                produce(producer, record, self._delivered)
                return
            except BufferError as error:
                if len(producer) == 0:
                    raise KafkaException(
                        KafkaError(KafkaError._QUEUE_FULL, f"a record larger than the whole queue: {error}")
                    ) from None
                producer.poll(min(0.1, _left(self._deadline)))
                self._check()
                if time.monotonic() > self._deadline:
                    raise _too_late("the queue stayed full") from None

    def _delivered(self, error: KafkaError | None, _message: Message | None) -> None:
        if error is not None and (self.first_error is None or self.first_error.name() in _CONSEQUENCES):
            self.first_error = error

    def _check(self) -> None:
        if self.first_error is not None:
            raise KafkaException(self.first_error)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _too_late(reason: str) -> KafkaException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, reason))
