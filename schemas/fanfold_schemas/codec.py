"""Bytes to records and back, strictly. Nothing is ever reconstructed by type name from bytes."""

from __future__ import annotations

import hashlib
from math import isfinite
from typing import Any

import msgspec
import ormsgpack

from fanfold_schemas.clock import check_clock
from fanfold_schemas.errors import Code, SchemaError
from fanfold_schemas.limits import (
    DEPTH_MAX,
    INT64_MAX,
    INT64_MIN,
    NODES_MAX,
    RECORD_BYTES_MAX,
    RESULT_BYTES_MAX,
    STRING_BYTES_MAX,
)
from fanfold_schemas.scan import scan
from fanfold_schemas.task import WIRE_VERSION, Task

# A set is not among them because it has no order, and a fold must not depend on one.
_TAKEN = "it takes maps with text keys, lists, text, bytes, numbers up to int64, dataclasses and models"


def encode_task(task: Task) -> bytes:
    """The record value of a task.

    Raises:
        SchemaError: the task breaks the contract; what could be encoded can also be decoded, by construction.
    """
    value = _pack(msgspec.structs.asdict(task) | {"fan_out": _fan_out_fields(task)})
    decode_task(value)
    return value


def decode_task(value: bytes | None) -> Task:
    """The task in a record value. Fields that a newer writer added are ignored.

    Raises:
        SchemaError: with the code, the path and the limit; the record belongs to the dead letters.
    """
    if not value:
        raise SchemaError("E_FRAME", "$", "an empty record" if value is not None else "a record without a value")
    if len(value) > RECORD_BYTES_MAX:
        raise SchemaError("E_LIMIT", "$", f"a record of {len(value)} bytes, at most {RECORD_BYTES_MAX}")
    fields = _unpack(value)
    if not isinstance(fields, dict):
        raise SchemaError("E_FRAME", "$", f"expected a map, got {type(fields).__name__}")
    if fields.get("v") != WIRE_VERSION:
        raise SchemaError("E_SCHEMA", "$.v", f"version {fields.get('v')!r:.20}, this reader knows {WIRE_VERSION}")
    try:
        task = msgspec.convert(fields, Task)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at ")
        # "Expected `int`, got `str`" is about a type; "Expected `int` <= 100000" is about a limit.
        code: Code = "E_LIMIT" if detail.startswith("Expected") and ", got" not in detail else "E_SCHEMA"
        raise SchemaError(code, path.strip("`") or "$", detail) from None
    _check_task(task)
    return task


def encode_payload(value: Any) -> bytes:
    """A handler's result as bytes: msgpack values only, to any depth the reader takes.

    Dataclasses, msgspec structs and pydantic models become maps; the reader's type annotation brings them back.

    Raises:
        SchemaError: it cannot be stored; `path` says where.
    """
    data = _pack(value)
    if len(data) > RESULT_BYTES_MAX:
        raise SchemaError("E_LIMIT", "$", f"a result of {len(data)} bytes, at most {RESULT_BYTES_MAX}")
    try:
        value = ormsgpack.unpackb(data)
    except ormsgpack.MsgpackDecodeError as error:
        # Written but not readable: an extension type.
        raise SchemaError("E_EXT", "$", f"only plain msgpack values can be stored: {error}") from None
    _check_values(value)
    return data


def decode_payload(data: bytes) -> Any:
    """The value of a stored result. It was checked when it was encoded, so this only unpacks."""
    try:
        return ormsgpack.unpackb(data)
    except ormsgpack.MsgpackDecodeError as error:
        raise SchemaError("E_FRAME", "$", f"a stored result that is no msgpack: {error}") from None


def arg_hash(task: Task) -> int:
    """A 64-bit fingerprint of what a task asks for, by which the same task_id with another arg is told.

    Map keys are sorted first: two encoders that order them differently still ask for the same thing.
    """
    canonical = ormsgpack.packb([task.node, task.arg], option=ormsgpack.OPT_SORT_KEYS)
    return int.from_bytes(hashlib.blake2b(canonical, digest_size=8).digest(), "big", signed=True)


def _fan_out_fields(task: Task) -> dict[str, Any]:
    fields = msgspec.structs.asdict(task.fan_out)
    return {name: value for name, value in fields.items() if value is not None}


def _pack(value: Any) -> bytes:
    try:
        return ormsgpack.packb(value, default=_plain, option=ormsgpack.OPT_SERIALIZE_PYDANTIC)
    except (ormsgpack.MsgpackEncodeError, TypeError, ValueError, RecursionError) as error:
        raise SchemaError("E_VALUE", "$", f"cannot be encoded as msgpack: {error}; {_TAKEN}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    raise TypeError  # the encoder puts a message of its own in place of any of ours


def _unpack(data: bytes) -> Any:
    if len(data) > NODES_MAX:
        # Only a record of more bytes than NODES_MAX can have more values than that; it is counted before it is built.
        scan(data)
    try:
        value = ormsgpack.unpackb(data)
    except ormsgpack.MsgpackDecodeError as error:
        scan(data)  # says what is wrong in our own terms, where it can
        raise SchemaError("E_FRAME", "$", f"no msgpack: {error}") from None
    _check_values(value)
    try:
        minimal = ormsgpack.packb(value) == data
    except ormsgpack.MsgpackEncodeError:
        minimal = False
    if not minimal:
        # Bytes that encode back to themselves have no trailing bytes and no duplicate keys: nearly every record.
        # The others, from writers that do not use the shortest forms, are walked to make sure of the same.
        scan(data)
    return value


def _check_values(root: Any) -> None:
    """Refuse what Postgres or another language could not take. Iterative, because depth is one of the limits."""
    stack: list[tuple[Any, int, str]] = [(root, 0, "$")]
    while stack:
        value, depth, path = stack.pop()
        kind = type(value)
        if kind is str:
            if len(value) * 4 > STRING_BYTES_MAX and len(value.encode()) > STRING_BYTES_MAX:
                raise SchemaError("E_LIMIT", path, f"a string over {STRING_BYTES_MAX} bytes")
            if "\0" in value:
                raise SchemaError("E_VALUE", path, "a NUL character, which Postgres cannot store in text")
        elif kind is dict or kind is list:
            if depth >= DEPTH_MAX:
                raise SchemaError("E_LIMIT", path, f"nested deeper than {DEPTH_MAX}")
            if kind is dict:
                for key, item in value.items():
                    if "\0" in key:
                        raise SchemaError("E_VALUE", path, "a key with a NUL character")
                    stack.append((item, depth + 1, f"{path}.{key}" if len(path) < 120 else path))
            else:
                stack.extend((item, depth + 1, path) for item in value)
        elif kind is float:
            if not isfinite(value):
                raise SchemaError("E_VALUE", path, f"{value} is no number JSON or a fold could use")
        elif kind is int:
            if not INT64_MIN <= value <= INT64_MAX:
                raise SchemaError("E_VALUE", path, "an integer beyond int64")
        elif kind is bytes and len(value) > STRING_BYTES_MAX:
            raise SchemaError("E_LIMIT", path, f"{len(value)} bytes, at most {STRING_BYTES_MAX}")


def _check_task(task: Task) -> None:
    check_clock(task.base, "$.base")
    fan_out = task.fan_out
    if task.index >= fan_out.size:
        raise SchemaError("E_SCHEMA", "$.index", f"index {task.index} of a fan-out of {fan_out.size}")
    if fan_out.quorum is not None and fan_out.quorum > fan_out.size:
        raise SchemaError("E_SCHEMA", "$.fan_out.quorum", f"quorum {fan_out.quorum} of a fan-out of {fan_out.size}")
    if task.is_fold and task.node != fan_out.fold:
        raise SchemaError(
            "E_SCHEMA", "$.node", f"a fold task for {task.node!r} of a fan-out folded by {fan_out.fold!r}"
        )
