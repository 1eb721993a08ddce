"""The types of Python's own that msgpack has none for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fanfold_consumer.langgraph.codec import Codec, only
from fanfold_consumer.langgraph.refused import Unfit

_NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_SAME_HASH_MAX = 64


def _hashable(keys: Collection[Any]) -> Collection[Any]:
    """Keys whose hashes differ. Of 20,000 numbers chosen to have one hash, a set would take seconds to build."""
    if len(keys) > _SAME_HASH_MAX and len({hash(key) for key in keys}) < len(keys) // _SAME_HASH_MAX:
        raise Unfit("members that have the same hash")
    return keys


def _take_dict(value: dict[Any, Any]) -> list[Any]:
    return [part for item in value.items() for part in item]


def _make_dict(parts: Sequence[Any]) -> dict[Any, Any]:
    made = dict(zip(_hashable(parts[::2]), parts[1::2], strict=True))
    if len(made) * 2 != len(parts):
        raise Unfit("a key that comes twice")
    return made


def _make_set(parts: Sequence[Any]) -> set[Any]:
    made = set(_hashable(parts))
    if len(made) != len(parts):
        raise Unfit("a member that comes twice")
    return made


def _take_int(value: int) -> list[Any]:
    # Bytes, because to read a decimal number takes time in proportion to the square of its length.
    return [value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)]


def _take_timezone(value: timezone) -> list[Any]:
    offset = value.utcoffset(None)
    return [offset] if _is_plain_offset(value) else [offset, value.tzname(None)]


def _take_zone_info(value: ZoneInfo) -> list[Any]:
    if value.key is None:
        raise Unfit("a time zone that was read from a file has no key")
    return [value.key]


def _take_moment(value: datetime | time) -> list[Any]:
    """ISO 8601, which can name an offset from UTC; any other zone, and the second time around 2 a.m., as parts."""
    zone = value.tzinfo
    if not value.fold and (zone is None or _is_plain_offset(zone)):
        return [value.isoformat()]
    return [value.replace(tzinfo=None).isoformat(), zone, value.fold]


def _is_plain_offset(zone: tzinfo) -> bool:
    return type(zone) is timezone and zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _make_moment(kind: type[datetime] | type[time], parts: Sequence[Any]) -> datetime | time:
    if len(parts) == 1:
        return kind.fromisoformat(*parts)
    text, zone, fold = parts
    return kind.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _take_timedelta(value: timedelta) -> list[Any]:
    return [value.days, value.seconds, value.microseconds]


def _make_timedelta(parts: Sequence[Any]) -> timedelta:
    days, seconds, microseconds = parts
    return timedelta(days, seconds, microseconds)


BUILTIN_CODECS = (
    # A list whose first part is a text that could be taken for a tag.
    Codec(list, "list", list, list),
    Codec(dict, "dict", _take_dict, _make_dict),
    Codec(tuple, "tuple", list, tuple),
    Codec(set, "set", list, _make_set, unordered=True),
    Codec(frozenset, "frozenset", list, lambda parts: frozenset(_make_set(parts)), unordered=True),
    # Text with a NUL, or with half a character as `surrogateescape` leaves it.
    Codec(
        str,
        "str",
        lambda value: [value.encode("utf-8", "surrogatepass")],
        lambda parts: only(bytes, parts).decode("utf-8", "surrogatepass"),
    ),
    Codec(int, "int", _take_int, lambda parts: int.from_bytes(only(bytes, parts), "big", signed=True)),
    Codec(float, "float", lambda value: [repr(value)], lambda parts: _NOT_FINITE[only(str, parts)]),
    Codec(bytearray, "bytearray", lambda value: [bytes(value)], lambda parts: bytearray(only(bytes, parts))),
    Codec(datetime, "datetime", _take_moment, lambda parts: _make_moment(datetime, parts)),
    Codec(date, "date", lambda value: [value.isoformat()], lambda parts: date.fromisoformat(only(str, parts))),
    Codec(time, "time", _take_moment, lambda parts: _make_moment(time, parts)),
    Codec(timedelta, "timedelta", _take_timedelta, _make_timedelta),
    Codec(timezone, "timezone", _take_timezone, lambda parts: timezone(*parts)),
    Codec(ZoneInfo, "ZoneInfo", _take_zone_info, lambda parts: ZoneInfo(only(str, parts))),
    Codec(UUID, "UUID", lambda value: [value.bytes], lambda parts: UUID(bytes=only(bytes, parts))),
    Codec(type(Path()), "Path", lambda value: [str(value)], lambda parts: Path(only(str, parts))),
    Codec(Decimal, "Decimal", lambda value: [str(value)], lambda parts: Decimal(only(str, parts))),
)
"""Lists, maps, texts and numbers are among them for what is not plain about some: see `Types.dump`."""
