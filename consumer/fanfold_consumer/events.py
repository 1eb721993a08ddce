"""Every log event, in one list: `noun.past_verb`. Values travel in fields; payloads and handlers' errors never do."""

from __future__ import annotations

import logging
import re
import sys
import time
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

SAME_AFTER_S = 30.0
GISTS_MAX = 1000
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")

EVENTS = {
    "fleet.started": "this member joined its group",
    "fleet.stopped": "this member left; how much it ran and committed",
    "fleet.drain_started": "SIGTERM: no new work, finishing what runs",
    "fleet.drain_exceeded": "the drain bound passed with work still running; it is done again elsewhere",
    "partition.claimed": "a partition is ours under an epoch, from an offset",
    "partition.released": "a partition was handed over after its finished work was committed",
    "partition.fenced": "somebody else claimed a partition that we held; our work on it was dropped",
    "partition.rewound": "Postgres is behind what it acknowledged; the partition is claimed and read again",
    "partition.lost": "Kafka took a partition away without asking (session expired)",
    "partition.stopped": "the log does not have the next offset, or it cannot be read; an operator must decide",
    "partition.refused": "Kafka does not let us read a partition; it is read again once Kafka does",
    "partition.claim_delayed": "a claim could not be made yet; it is tried again",
    "topic.recreated": "a topic of this name has another id than the one progress was kept for; it starts anew",
    "topic.unavailable": "a topic could not be described",
    "store.unavailable": "Postgres or the claim store did not answer; the same call is made again, for ever",
    "store.recovered": "it answers again",
    "broker.unavailable": "a Kafka client error that passes by itself",
    "task.retried": "a handler failed and is tried again; a long wait is spent in the outbox",
    "task.stopped": "nobody needs these tasks any more (`why`); queued ones are not begun, running ones cancelled",
    "task.failed": "a handler failed for good; its record is parked and its fan-out counts it as failed",
    "process.unavailable": "the system starts no process for a handler; it is asked again, and the task waits",
    "handler.abandoned": "a handler ignores that it was cancelled; it runs on, and another worker has its place",
    "record.parked": "a record became a dead letter",
    "commit.split": "Postgres refused a batch; it is committed in halves to find the result it cannot take",
    "fan_out.completed": "the last result of a fan-out was committed",
    "fan_out.expired": "its deadline passed; `folds`: completed with the results it has, else it failed",
    "outbox.publish_failed": "an outbox record was not acknowledged; it is tried again when its lease ends",
    "dead_letter_topic.missing": "dead letters stay in the table only, because their topic cannot be had",
    "offsets.given_up": "an operator gave up offsets that were never finished; what was there is not done",
    "offsets.mirror_failed": "Kafka did not take the copy of the offsets; Postgres has the truth",
    "health.started": "the health and metrics endpoint listens",
    "library.warned": "what the Kafka client or the connection pool say; the same at most once in half a minute",
}


_settings: tuple[bool, str] | None = None


def configure_logging(*, json: bool, level: str = "info") -> None:
    """Write events to stderr: JSON for machines, or one line each for people."""
    global _settings
    _settings = json, level
    renderer: Any = structlog.processors.JSONRenderer()
    if not json:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _Libraries) for handler in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))


log: Any = structlog.get_logger("fanfold")


def log_settings() -> tuple[bool, str] | None:
    """What `configure_logging` was called with, for a process that is to log in the same way."""
    return _settings


class _Stderr:
    """Whatever stderr is at the time. That nobody reads events any more (a broken pipe) is no reason to stop working:
    they are told from callbacks of the Kafka client, too, and by the part that commits."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


class _Libraries(logging.Handler):
    """What libraries log becomes an event: lines of their own would make a log of JSON unreadable for machines.

    A client whose broker is away says so many times a second; what differs only in numbers is said once in a while.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        gist = f"{record.name} {_NUMBER.sub('', text)}"
        now = time.monotonic()
        if now - self._said_at.get(gist, -SAME_AFTER_S) < SAME_AFTER_S:
            return
        if len(self._said_at) >= GISTS_MAX:
            self._said_at.clear()
        self._said_at[gist] = now
        log.warning("library.warned", library=record.name, text=text)
