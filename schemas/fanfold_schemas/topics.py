"""Names of topics: `<domain>.<entity>.v<N>`, with `-dlt` for the dead letters of one."""

from __future__ import annotations

import re

DEFAULT_TOPIC = "fanfold.tasks.v1"
DEAD_LETTER_SUFFIX = "-dlt"
TOPIC_CHARS_MAX = 249
_is_topic = re.compile(r"^[A-Za-z0-9._-]+\Z").match


def check_topic(name: str) -> str:
    """Return `name` if Kafka takes it and its dead-letter topic as names; else raise `ValueError`."""
    chars_max = TOPIC_CHARS_MAX - len(DEAD_LETTER_SUFFIX)
    if not _is_topic(name) or len(name) > chars_max or name in (".", ".."):
        raise ValueError(
            f"{name[:60]!r} is no topic name: 1 to {chars_max} characters of [A-Za-z0-9._-] "
            f"({len(DEAD_LETTER_SUFFIX)} are kept for {DEAD_LETTER_SUFFIX!r})"
        )
    return name


def dead_letter_topic(topic: str) -> str:
    return topic + DEAD_LETTER_SUFFIX
