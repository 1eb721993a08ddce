"""How a failed attempt goes on: not at all, or after which wait; and the next attempt as a record, if that is long."""

from __future__ import annotations

import math
import random

from fanfold_consumer.registry import Retry
from fanfold_consumer.time_limit import OutOfTime
from fanfold_consumer.work import Delivery, header_list
from fanfold_producer.fan_out import WRITTEN_BYTES_MAX
from fanfold_schemas import SchemaError, pack_headers, with_attempt
from fanfold_schemas.limits import RUN_MAX
from fanfold_sql import OutboxRecord

DELAY_MS_MAX = 2**31 - 1
"""The outbox counts a delay in 32 bits: almost 25 days, 22 and their jitter included."""
RETRY_AFTER_S_MAX = 22 * 86_400
RETRY_AFTER_JITTER = 0.1
DOUBLINGS_MAX = 60
"""Of a backoff; it reached its limit long before, and beyond a thousand the number itself would overflow."""


class RetryAfter(Exception):
    """Raised by a handler that was told when to come again, by a rate limit say.

    The next attempt is made then, never earlier and up to 10 % later, so that a thousand tasks do not come back at
    once. It counts as an attempt: the handler's `retries` bound how often it can be said. `retry_on` does not matter.

    Args:
        seconds: 0 to 22 days.
        why: for the dead letter, if this was the last attempt.

    Raises:
        ValueError: `seconds` is no such number.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        if not _is_wait(seconds):
            raise ValueError(f"RetryAfter({seconds!r:.40}): give seconds, from 0 to {RETRY_AFTER_S_MAX} (22 days)")
        super().__init__(seconds, why)
        self.seconds = seconds
        self.why = why

    def __str__(self) -> str:
        return f"again after {self.seconds:g} s" + (f": {self.why}" if self.why else "")


class HandlerFailed(Exception):
    """A task that failed for good. `code` is that of its dead letter."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class TriedLater(Exception):
    """The next attempt is a record of its own."""

    def __init__(self, record: OutboxRecord) -> None:
        super().__init__()
        self.record = record


class RaisedInProcess(Exception):
    """What a handler raised in a process of its own. Its class is known there only.

    Attributes:
        kind: the name of its class.
        again: whether it is among what the handler's `retry_on` names.
    """

    def __init__(self, kind: str, text: str, again: bool) -> None:
        super().__init__(text)
        self.kind = kind
        self.again = again


def describe(error: BaseException) -> str:
    """What went wrong, as a dead letter tells it."""
    try:
        said = str(error)
    except BaseException:
        said = "(its message cannot be shown)"
    return said if isinstance(error, OutOfTime | RaisedInProcess) else f"{type(error).__name__}: {said}"


def wait_before_next_s(policy: Retry, attempt: int, failure: Exception) -> float | None:
    """How long to wait before the attempt after this one, the first being 1; None: there is none."""
    if attempt > min(policy.retries, RUN_MAX - 1):
        return None
    if isinstance(failure, RetryAfter):
        return failure.seconds * (1 + RETRY_AFTER_JITTER * random.random())
    if not (failure.again if isinstance(failure, RaisedInProcess) else isinstance(failure, policy.on)):
        return None
    limit_s: float = min(
        policy.backoff_max_s, policy.backoff_s * 2 ** min(attempt - 1, DOUBLINGS_MAX), DELAY_MS_MAX / 1000
    )
    return limit_s * random.random()


def _is_wait(seconds: object) -> bool:
    return isinstance(seconds, int | float) and 0 <= seconds <= RETRY_AFTER_S_MAX


def next_attempt_record(delivery: Delivery, attempt: int, wait_s: float) -> OutboxRecord | None:
    """The delivery's record as that attempt of the same run, due after the wait; all else in it stays as it was.

    None: it would outgrow what the broker takes, and be tried for ever.
    """
    message = delivery.message
    headers = header_list(message)
    key, value = message.key(), message.value()
    assert value is not None  # it was decoded
    try:
        value = with_attempt(value, attempt)
    except SchemaError:
        return None
    packed = pack_headers(headers)
    if len(key or b"") + len(value) + len(packed) + 8 * len(headers) > WRITTEN_BYTES_MAX:
        return None
    delay_ms = min(DELAY_MS_MAX, math.ceil(wait_s * 1000))
    return OutboxRecord(delivery.partition.topic, key, value, packed, delay_ms=delay_ms)
