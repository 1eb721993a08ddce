"""One librdkafka producer: its settings, its bounded queue, and the worker that hears its news."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fanfold_producer.errors import KafkaConfigError
from fanfold_producer.kafka import KafkaConfig
from fanfold_producer.record import Record
from fanfold_producer.trouble import REACHABLE, Trouble

QUEUE_RECORDS_MAX = 10_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
LINGER_MS = 1.0
DELIVERY_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 10.0

Delivered = Callable[[KafkaError | None, Message | None], None]

_POLL_S = 0.1
# The broker's own default for a batch: librdkafka's is 5 % less, and a record of RECORD_BYTES_MAX must fit.
_MESSAGE_BYTES_MAX = 1_048_588
_log = logging.getLogger("fanfold.kafka")

_REPEAT = "{advice}, then publish the same again: twice is harmless"
_CREATE = "the topic does not exist; create it, then publish again"
_HINTS = {
    "_UNKNOWN_TOPIC": _CREATE,
    "UNKNOWN_TOPIC_OR_PART": _CREATE,
    "_UNKNOWN_PARTITION": "there is no such topic, or it has fewer partitions; create it, or name no partition",
    "MSG_SIZE_TOO_LARGE": "pass large arguments by reference, or raise message.max.bytes there and here",
    "_MSG_TIMED_OUT": _REPEAT,
    "_TIMED_OUT": _REPEAT,
    "_TRANSPORT": _REPEAT,
    "TOPIC_AUTHORIZATION_FAILED": "grant this principal WRITE on the topic, then publish again",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": (
        "grant this principal WRITE on the transactional id prefix `fanfold-`, or publish with atomic=False"
    ),
}


def failure_text(error: KafkaError, advice: str = REACHABLE) -> str:
    """What befell a record, and what to do about it; `advice` where the broker does not answer."""
    hint = _HINTS.get(error.name())
    return f"{error.str()} ({error.name()})" + (f": {hint.replace('{advice}', advice)}" if hint else "")


def producer_settings(
    config: KafkaConfig,
    *,
    linger_ms: float,
    queue_records_max: int,
    queue_bytes_max: int,
    delivery_timeout_s: float,
    required: Mapping[str, Any],
) -> dict[str, Any]:
    """Settings of a producer of ours: the user's before the defaults, the required ones before both."""
    defaults: dict[str, Any] = {
        "linger.ms": linger_ms,
        "queue.buffering.max.messages": queue_records_max,
        "queue.buffering.max.kbytes": max(1, queue_bytes_max // 1024),
        "message.max.bytes": _MESSAGE_BYTES_MAX,
        # How long a topic nobody has heard of may still appear.
        "topic.metadata.propagation.max.ms": 5000,
        "log_level": 5,
    }
    chosen = config.producer()
    if not {"message.timeout.ms", "delivery.timeout.ms"} & chosen.keys():
        defaults["message.timeout.ms"] = int(delivery_timeout_s * 1000)
    return {**defaults, **chosen, "acks": "all", **required}


def new_producer(settings: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> Producer:
    """A producer, or `KafkaConfigError` with what librdkafka does not take."""
    try:
        return Producer({**settings, "error_cb": on_error}, logger=_log)
    except KafkaException as error:
        raise KafkaConfigError([error.args[0].str()]) from error


def produce(producer: Producer, record: Record, delivered: Delivered) -> None:
    """Queue a record. Raises `BufferError` when there is no room and `KafkaException` when it is refused."""
    producer.produce(
        record.topic,
        record.value,
        record.key,
        partition=-1 if record.partition is None else record.partition,
        headers=list(record.headers),
        on_delivery=delivered,
    )


def kafka_error(failure: BaseException) -> KafkaError:
    """librdkafka's error behind what confluent-kafka raised.

    A fatal error is raised out of whatever happens to serve callbacks. If more callbacks follow in the same call,
    the interpreter finds that exception still set behind them and raises SystemError, with ours as its cause.
    """
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, KafkaException):
            error: KafkaError = seen.args[0]
            return error
        seen = seen.__cause__
    raise failure


class Client:
    """A producer whose delivery reports are served by a worker of its own.

    Attributes:
        broken: why it can no longer be used, else None. What is still queued in it fails sooner or later.
        trouble: what it heard of its connections.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.broken: str | None = None
        self.trouble = Trouble()
        self._rooms: list[Future[None]] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._producer = new_producer(settings, self._on_error)
        # A daemon: a program that forgot to close must still be able to end.
        self._worker = threading.Thread(target=self._poll, name="fanfold-sender", daemon=True)
        self._worker.start()

    def offer(self, records: Sequence[Record], at: int, end: int, delivered: Delivered) -> int:
        """Queue records[at:end] while there is room. Returns the first that was not queued."""

        def heard(error: KafkaError | None, message: Message | None) -> None:
            # A broker that lost its memory of an idempotent producer lets every record time out from then on.
            if error is not None and (error.fatal() or error.name() == "_MSG_TIMED_OUT"):
                self.broken = failure_text(error)
            delivered(error, message)

        while at < end:
            try:
                produce(self._producer, records[at], heard)
            except BufferError as error:
                if len(self._producer):
                    return at
                heard(KafkaError(KafkaError._QUEUE_FULL, f"larger than the whole queue: {error}"), None)
            except KafkaException as error:
                heard(error.args[0], None)
            at += 1
        return at

    def room(self) -> Future[None]:
        """Done when there is news of some record, so that room may have been made."""
        room = pending_future()
        with self._lock:
            self._rooms.append(room)
        return room

    def retire(self) -> None:
        """Give up what is queued, without waiting; those who wait for it hear so."""
        self._stopping = True
        self._producer.purge(blocking=False)

    def close(self, timeout: float) -> int:
        """Write what is queued, at most `timeout` seconds. Returns how many records were given up."""
        deadline = time.monotonic() + timeout
        try:
            self._producer.flush(max(0.0, timeout))
        except (KafkaException, SystemError) as failure:
            self._break(failure)
        # The worker may be in the middle of the last reports.
        while len(self._producer) and not self.broken and time.monotonic() < deadline:
            self._serve(0.01)
        left = len(self._producer)
        self.retire()
        self._worker.join(timeout=1.0)
        return left

    def _serve(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except (KafkaException, SystemError) as failure:
            # A worker that ended here would leave its callers waiting; so they hear of it instead.
            self._break(failure)

    def _break(self, failure: BaseException) -> None:
        self.broken = failure_text(kafka_error(failure))
        self._producer.purge(blocking=False)

    def _on_error(self, error: KafkaError) -> None:
        self.trouble(error)
        if error.fatal():
            self.broken = failure_text(error)

    def _poll(self) -> None:
        while not (self._stopping and len(self._producer) == 0):
            self._serve(_POLL_S)
            with self._lock:
                rooms, self._rooms = self._rooms, []
            for room in rooms:
                room.set_result(None)


def pending_future() -> Future[None]:
    """A future that a waiter who gives up cannot cancel: setting its result would raise then."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future
