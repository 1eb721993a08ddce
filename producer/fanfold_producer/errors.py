"""What publishing may end in instead of a handle. The class says what the caller does next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ProducerError(Exception):
    """Base of all errors of the producer."""


class KafkaConfigError(ProducerError, ValueError):
    """The Kafka settings cannot work. Do: mend what `problems` lists; it lists all of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the Kafka settings cannot work:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = tuple(problems)


class BrokerUnavailable(ProducerError):
    """No broker answered in time. Do: make the same call again; nothing here is harmed by a repetition."""


class BrokerRefused(ProducerError):
    """The broker answered no (authorization, an invalid name). Do: not repeat it; the message says why."""


class TopicMissing(ProducerError):
    """A topic does not exist. Do: create it; the message has the command."""

    def __init__(self, message: str, topics: Sequence[str]) -> None:
        super().__init__(message)
        self.topics = tuple(topics)


class PublishError(ProducerError):
    """Some records were not acknowledged. Do: publish the same again; the ids make twice harmless.

    Attributes:
        failed: how many were not acknowledged; of a transaction, all of them.
        total: how many were to be published.
    """

    def __init__(self, message: str, *, failed: int, total: int) -> None:
        super().__init__(message)
        self.failed = failed
        self.total = total


class DatabaseNeeded(ProducerError):
    """Progress and results are in Postgres and no database was named. Do: pass `database_url`."""


class ClaimStoreRefused(ProducerError, ValueError):
    """The claim store cannot be opened as it is named. Do: mend what the message says."""


class ClaimStoreNeeded(ProducerError):
    """A value is behind a claim check and no claim store was named. Do: name the one it was put into."""


class ClaimStoreUnavailable(ProducerError):
    """The claim store did not answer. Do: make the same call again; puts and gets are safe to repeat."""


class ClaimCheckBroken(ProducerError):
    """What lies behind a claim check is missing or not what was put there. Do: publish or rerun what made it."""


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Stands for the value of a task that failed for good."""

    index: int
    task_id: str
    error: str


class FanOutFailed(ProducerError):
    """More tasks failed than its `max_failures`, or any, and no fold was there to judge it. Do: read `failures`; in the
    second case, or pass `return_failures=True`."""

    def __init__(self, message: str, failures: Sequence[TaskFailure]) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


class FanOutExpired(ProducerError):
    """Its deadline passed before it was complete. Do: publish the work under another fan_out_id, with more time."""


class FanOutStale(ProducerError):
    """The thread moved past what the fan-out was derived from. Do: derive it anew from the thread's present clock."""


class FanOutCancelled(ProducerError):
    """Somebody cancelled it. Do: nothing, or publish the work under another fan_out_id."""


class FoldFailed(ProducerError):
    """The tasks are finished but the fold failed for good. Do: mend it, and redrive its dead letter."""


class FanOutUnknown(ProducerError, LookupError):
    """The database knows no such fan-out, or not yet: its first result opens it. Do: ask again later."""
