"""Why a client cannot reach its brokers. It goes on trying whatever the reason is, so that requests only seem slow."""

from __future__ import annotations

from confluent_kafka import KafkaError

_ADVICE = {
    "_AUTHENTICATION": "check sasl.mechanism, sasl.username and sasl.password",
    "_SSL": (
        "check that ssl.ca.location names the authority that signed the broker's certificate, and that the certificate "
        "is for the host name that you connect to and has not expired"
    ),
    "_TRANSPORT": "check that the broker is up and reachable, and that security.protocol is what it expects there",
    "_RESOLVE": "check the host name",
}
REACHABLE = "check that the broker is up and reachable"
_REFUSALS = ("_AUTHENTICATION", "_SSL")


class Trouble:
    """The `error_cb` of a client: remembers what was last said about its connections."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        # What follows a refusal, that the connection ended and that all brokers are down, says less than it.
        if self._last is None or error.name() in _REFUSALS or self._last.name() not in _REFUSALS:
            self._last = error

    def advice(self) -> str:
        """What to do, and the reason if there is one: the end of an error message."""
        if self._last is None:
            return REACHABLE
        return f"{_ADVICE.get(self._last.name(), REACHABLE)} (the last that was heard of it: {self._last.str()})"
