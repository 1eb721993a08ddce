"""What a failed transaction names as its reason: what was refused, not what was thrown away because of it."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from fanfold_producer.transaction import _Attempt

_PURGED, _REFUSED = KafkaError(KafkaError._PURGE_QUEUE), KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
_OTHER = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([_PURGED, None, _REFUSED, _PURGED], "MSG_SIZE_TOO_LARGE"),
        ([_REFUSED, _PURGED], "MSG_SIZE_TOO_LARGE"),
        ([_REFUSED, _OTHER], "MSG_SIZE_TOO_LARGE"),
        ([_PURGED], "_PURGE_QUEUE"),
    ],
)
def test_the_first_refusal_is_the_reason_whenever_it_is_reported(reports: list[KafkaError | None], reason: str) -> None:
    attempt = _Attempt([], 0.0)
    for error in reports:
        attempt._delivered(error, None)
    assert attempt.first_error is not None
    assert attempt.first_error.name() == reason
