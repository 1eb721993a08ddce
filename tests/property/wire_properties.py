"""What holds for any bytes at all, whoever made them up: the properties that the fuzzer tries to break."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import ormsgpack

from fanfold_schemas import (
    SchemaError,
    arg_hash,
    decode_payload,
    decode_task,
    encode_payload,
    encode_task,
    pack_headers,
    unpack_headers,
)
from fanfold_schemas.limits import DEPTH_MAX, INT64_MAX, INT64_MIN, NODES_MAX, RECORD_BYTES_MAX, STRING_BYTES_MAX
from fanfold_schemas.scan import scan
from fanfold_schemas.unpack import unpack
from tests.property.corpus import BAD_RECORDS, FOUND, ODD_RECORDS
from tests.support.tree import ROOT
from tests.unit.wire import record_with_raw_arg

# Small values of every type: a change to one of them is often another value.
_VALUES: list[Any] = [
    [1, -1, 200, 70_000, 2**40, -(2**40)],
    [None, True, False, 0.5, -1.5],
    {"a": [1, {"b": [2, {"c": b"bytes"}]}], "d": "text"},
    [[], {}, "", b"", [[[]]], {"": {}}],
    {"name": "x" * 40, "more": "y" * 300, "list": list(range(20))},
]
_BEFORE_THE_ARG = record_with_raw_arg(b"")


def as_arg(data: bytes) -> bytes:
    """A good record, if these bytes are a value: made up bytes are seldom a whole record by themselves."""
    return _BEFORE_THE_ARG + data


def check(data: bytes) -> None:
    """All properties, for these bytes and for a record with them as its arg. Whatever this raises is a finding."""
    for record in (data, as_arg(data)):
        check_task(record)
        check_two_ways(record)
    check_payload(data)
    check_headers(data)
    check_against_oracle(data)


def outcome(work: Callable[[Any], Any], data: Any) -> Any:
    """What comes of it: a value, or our refusal. Any other error goes on, and is a finding."""
    try:
        return work(data)
    except SchemaError as error:
        return error


def check_task(data: bytes) -> None:
    """A record is a task or a refusal; a task can be written again, and is the same task then."""
    task = outcome(decode_task, data)
    if isinstance(task, SchemaError):
        assert str(task).isprintable(), repr(str(task))
        return
    written = outcome(encode_task, task)
    if isinstance(written, SchemaError):
        # Short floats grow when they are written again; nothing else does.
        assert written.code == "E_LIMIT"
        assert len(data) > RECORD_BYTES_MAX // 2
        return
    again = decode_task(written)
    assert again == task
    assert ormsgpack.packb(again.arg) == ormsgpack.packb(task.arg)  # 1, 1.0 and true are equal, too
    assert arg_hash(again) == arg_hash(task)
    assert encode_task(again) == written


def check_payload(data: bytes) -> None:
    """A stored result is a value or a refusal; what can be stored comes back."""
    value = outcome(decode_payload, data)
    if isinstance(value, SchemaError):
        return
    stored = outcome(encode_payload, value)
    if not isinstance(stored, SchemaError):
        assert ormsgpack.packb(decode_payload(stored)) == ormsgpack.packb(value)


def check_headers(data: bytes) -> None:
    """Stored headers are headers or a refusal."""
    headers = outcome(unpack_headers, data)
    if not isinstance(headers, SchemaError):
        assert unpack_headers(pack_headers(headers)) == headers


def check_two_ways(data: bytes) -> None:
    """The quick look and the strict pass come to the same verdict."""
    quick, refused = outcome(unpack, data), outcome(scan, data)
    if isinstance(refused, SchemaError):
        assert isinstance(quick, SchemaError), f"quick: accepted, strict: {refused}"
        assert (quick.code, quick.path) == (refused.code, refused.path)
        return
    try:
        strict = ormsgpack.unpackb(data)
    except ormsgpack.MsgpackDecodeError:  # text that is no UTF-8, which the pass does not look at
        assert isinstance(quick, SchemaError)
        return
    assert not isinstance(quick, SchemaError), f"strict: accepted, quick: {quick}"
    assert ormsgpack.packb(quick) == ormsgpack.packb(strict)


def check_against_oracle(data: bytes) -> None:
    """Another decoder reads the same value; what a plain walk over that value allows is not refused."""
    value = outcome(unpack, data)
    try:
        other = msgspec.msgpack.decode(data)
        minimal = ormsgpack.packb(other) == data  # so no key was there twice
    except (ValueError, TypeError, RecursionError):  # no msgpack, or keys and values that ours does not take
        assert isinstance(value, SchemaError), "accepted, and another decoder does not take it"
        return
    if isinstance(value, SchemaError):
        assert not minimal or not may_travel(other), f"refused for nothing: {value}"
    else:
        assert may_travel(value)
        assert ormsgpack.packb(other) == ormsgpack.packb(value)


def may_travel(value: Any) -> bool:
    """The contract for a value, said once more and in the plainest way."""
    return _depth(value) <= DEPTH_MAX and _nodes(value) <= NODES_MAX and _is_clean(value)


def _depth(value: Any) -> int:
    # An empty list or map is no level of its own.
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values())) if value else 0
    if isinstance(value, list):
        return 1 + max(map(_depth, value)) if value else 0
    return 0


def _nodes(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + _nodes(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(map(_nodes, value))
    return 1


def _is_clean(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_clean(key) and _is_clean(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_clean, value))
    if isinstance(value, str):
        return "\0" not in value and len(value.encode()) <= STRING_BYTES_MAX
    if isinstance(value, bytes):
        return len(value) <= STRING_BYTES_MAX
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool) or (isinstance(value, int) and INT64_MIN <= value <= INT64_MAX)


def seeds(bytes_max: int = 4096) -> list[bytes]:
    """Inputs to begin with: golden bytes, what was found before, and the corpus but for its bombs."""
    files = [*sorted((ROOT / "tests/golden").glob("*.bin")), *sorted(FOUND.glob("*.bin"))]
    made = [path.read_bytes() for path in files]
    made += [bad.make() or b"" for bad in BAD_RECORDS]
    made += [odd.make() for odd in ODD_RECORDS]
    made += [ormsgpack.packb(value) for value in (*_VALUES, *(odd.arg() for odd in ODD_RECORDS))]
    made += [as_arg(ormsgpack.packb(value)) for value in _VALUES]
    return [data for data in made if len(data) <= bytes_max]
