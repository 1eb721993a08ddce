"""Where a replay starts, as operators of Kafka write it (KIP-122, `kafka-consumer-groups.sh --reset-offsets`)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

PARTITIONS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class ToEarliest:
    """The first offset that the log still has."""


@dataclass(frozen=True, slots=True)
class ToLatest:
    """The end of the log: what is there now is skipped."""


@dataclass(frozen=True, slots=True)
class ToCurrent:
    """Where the group stands. Useful with `--export`, as a backup before another replay."""


@dataclass(frozen=True, slots=True)
class ToOffset:
    offset: int


@dataclass(frozen=True, slots=True)
class ShiftBy:
    """So many offsets forward, or backward if negative, from where the group stands."""

    offsets: int


@dataclass(frozen=True, slots=True)
class ToTime:
    """The first record at or after a time, in unix milliseconds."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class FromFile:
    """{partition: offset}; partitions that are not named stay where they are."""

    offsets: Mapping[int, int]


Target = ToEarliest | ToLatest | ToCurrent | ToOffset | ShiftBy | ToTime | FromFile

_is_duration = re.compile(
    r"^P(?=.)(?:(?P<weeks>\d{1,6})W)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?=.)(?:(?P<hours>\d{1,8})H)?(?:(?P<minutes>\d{1,8})M)?"
    r"(?:(?P<seconds>\d{1,10}(?:\.\d{1,9})?)S)?)?\Z"
).match


def parse_duration(text: str) -> timedelta:
    """An ISO 8601 duration of weeks, days, hours, minutes and seconds, as in `P1DT2H30M`.

    Raises:
        ValueError: it is none; months and years have no fixed length and are none either.
    """
    found = _is_duration(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no duration like PT30M, P7D or P1DT2H (ISO 8601; no months or years)")
    return timedelta(**{unit: float(number) for unit, number in found.groupdict().items() if number})


def parse_datetime(text: str) -> int:
    """An ISO 8601 date and time in unix milliseconds; without a zone it is UTC, as in Kafka's own tools."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is no date and time like 2030-01-31T12:00:00.000 (UTC) or 2030-01-31T12:00+02:00"
        ) from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)


def parse_partitions(text: str) -> frozenset[int]:
    """Partition numbers and inclusive ranges of them: `0,3-5` is 0, 3, 4 and 5."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part.strip()[:40]!r} is no partition or range of partitions like 0 or 3-5")
        low, high = int(first), int(last or first)
        if low > high or high >= PARTITIONS_MAX:
            raise ValueError(f"{part.strip()[:40]!r} is no ascending range below {PARTITIONS_MAX}")
        found.update(range(low, high + 1))
    return frozenset(found)


def parse_offsets(text: str, *, topic: str, group: str | None = None) -> dict[int, int]:
    """{partition: offset} of a CSV file of `topic,partition,offset` lines, as `--export` writes them.

    Lines of Kafka's own exports are taken too: with quotes, and with the group in front. Lines of other
    topics and groups are an error: a file for something else is likelier than lines to be skipped.

    Raises:
        ValueError: with every line that cannot be taken.
    """
    offsets: dict[int, int] = {}
    problems: list[str] = []
    for number, fields in enumerate(csv.reader(io.StringIO(text), skipinitialspace=True), 1):
        if not any(field.strip() for field in fields):
            continue
        try:
            partition, offset = _offset_line([field.strip() for field in fields], topic, group)
            if offsets.setdefault(partition, offset) != offset:
                raise ValueError(f"partition {partition} was given offset {offsets[partition]} before")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if not offsets and not problems:
        problems.append("it has no lines")
    if problems:
        raise ValueError("\n  ".join([f"expected lines of `topic,partition,offset` for {topic}:", *problems[:20]]))
    return offsets


def _offset_line(fields: list[str], topic: str, group: str | None) -> tuple[int, int]:
    if len(fields) == 4:
        if group is not None and fields[0] != group:
            raise ValueError(f"it is for group {fields[0][:40]!r}, not {group!r}")
        fields = fields[1:]
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields, not 3")
    if fields[0] != topic:
        raise ValueError(f"it is for topic {fields[0][:40]!r}")
    if not fields[1].isdecimal() or not fields[2].isdecimal():
        raise ValueError(f"{fields[1][:20]!r}, {fields[2][:20]!r} are no partition and offset")
    return int(fields[1]), int(fields[2])


def format_offsets(topic: str, offsets: Iterable[tuple[int, int]]) -> str:
    """The CSV that `parse_offsets` and `kafka-consumer-groups.sh --from-file` take, one line a partition."""
    return "".join(f'"{topic}",{partition},{offset}\n' for partition, offset in offsets)
