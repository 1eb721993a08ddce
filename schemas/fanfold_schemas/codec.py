"""Bytes to records and back, strictly. Nothing is ever reconstructed by type name from bytes."""

from __future__ import annotations

import hashlib
import reprlib
from typing import Any

import msgspec
import ormsgpack

from fanfold_schemas.claim_check import ClaimCheck, payload_check
from fanfold_schemas.clock import check_clock
from fanfold_schemas.errors import Code, SchemaError
from fanfold_schemas.ids import are_ids
from fanfold_schemas.limits import (
    CLAIM_CHECK_BYTES_MAX,
    CLAIM_CHECK_NODES_MAX,
    RECORD_BYTES_MAX,
    RESULT_BYTES_MAX,
)
from fanfold_schemas.scan import scan
from fanfold_schemas.task import STRICT_TASK, WIRE_VERSION, Task
from fanfold_schemas.unpack import is_harmless, unpack

# A set is not among them because it has no order, and a fold must not depend on one.
_TAKEN = "it takes maps with text keys, lists, text, bytes, numbers up to int64, dataclasses and models"


def encode_task(task: Task) -> bytes:
    """The record value of a task.

    Raises:
        SchemaError: the task breaks the contract; what could be encoded can also be decoded, by construction.
    """
    value = _packed(task, _fan_out_fields(task))
    decode_task(value)
    return value


class SiblingEncoder:
    """`encode_task` for the tasks of one fan-out, one after another, at half the price.

    What they share is checked with the first of them, by decoding it. Of the others, only what is their own is looked
    at, unless there is a byte in it that could be more than it seems.
    """

    def __init__(self) -> None:
        self._first: Task | None = None
        self._fan_out: dict[str, Any] = {}

    def encode(self, task: Task) -> bytes:
        """The record value of a task. Raises as `encode_task` does."""
        first = self._first
        if first is None or task.fan_out is not first.fan_out or task.base is not first.base:
            value = encode_task(task)
            self._first, self._fan_out = task, _fan_out_fields(task)
            return value
        value = _packed(task, self._fan_out)
        plain = (
            len(value) <= RECORD_BYTES_MAX
            and is_harmless(value)
            and task.arg_check is None
            and 0 <= task.index < task.fan_out.size
            and (task.run, task.attempt, task.v) == (first.run, first.attempt, first.v)
            and are_ids((task.task_id, task.thread_id, task.node))
        )
        if not plain:
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
    fields = unpack(value)
    if not isinstance(fields, dict):
        raise SchemaError("E_FRAME", "$", f"expected a map, got {type(fields).__name__}")
    if fields.get("v") != WIRE_VERSION:
        raise SchemaError("E_SCHEMA", "$.v", _other_version(fields.get("v")))
    try:
        task = msgspec.convert(fields, Task)
    except msgspec.ValidationError:
        raise _refusal(fields) from None
    fan_out = task.fan_out
    ids = (task.task_id, task.thread_id, task.node, fan_out.id)
    if not are_ids(ids if fan_out.fold is None else (*ids, fan_out.fold)):
        raise _refusal(fields)
    _check_task(task)
    return task


def with_run(value: bytes, run: int) -> bytes:
    """The record value of the same task in another run. Fields of a newer writer stay, with all that is in them.

    Raises:
        SchemaError: it is no task, or with the new run it is too large to be a record.
    """
    return _with_fields(value, run=run, attempt=1)


def with_attempt(value: bytes, attempt: int) -> bytes:
    """The record value of the same task in the same run as another attempt; as `with_run` otherwise."""
    return _with_fields(value, attempt=attempt)


def encode_payload(value: Any) -> bytes:
    """A handler's result as bytes: msgpack values only, to any depth the reader takes.

    Dataclasses, msgspec structs and pydantic models become maps; the reader's type annotation brings them back.

    Raises:
        SchemaError: it cannot be stored; `path` says where.
    """
    data = pack_value(value)
    check_payload(data)
    return data


def check_payload(data: bytes) -> None:
    """Refuse what `pack_value` made if it cannot be stored as a result; raises as `encode_payload` does.

    As an encoder made it, it is whole, and no map has a key twice.
    """
    if len(data) > RESULT_BYTES_MAX:
        raise SchemaError("E_LIMIT", "$", f"a result of {len(data)} bytes, at most {RESULT_BYTES_MAX}")
    if not is_harmless(data):
        scan(data, nodes_max=RESULT_BYTES_MAX)  # no more values than bytes: as many as the handler made


def decode_payload(data: bytes) -> Any:
    """The value of a stored result. It was checked when it was encoded, so this only unpacks.

    Raises:
        SchemaError: it is no value: a claim check (see `payload_check`; the value is elsewhere), or no msgpack.
    """
    value = read_payload(data)
    if isinstance(value, ClaimCheck):
        raise SchemaError("E_EXT", "$", "a claim check, whose value is in the claim store: fetch it from there")
    return value


def read_payload(data: bytes) -> Any:
    """The value of a stored result, or the claim check that stands for it.

    Raises:
        SchemaError: it is no msgpack.
    """
    check = payload_check(data)
    if check is not None:
        return check
    try:
        return ormsgpack.unpackb(data)
    except ormsgpack.MsgpackDecodeError as error:
        raise SchemaError("E_FRAME", "$", f"a stored result that is no msgpack: {error}") from None


def pack_value(value: Any) -> bytes:
    """Any value as msgpack, unchecked but for what msgpack itself cannot hold.

    Raises:
        SchemaError: it cannot be encoded (`E_VALUE`), or is nested too deep (`E_LIMIT`).
    """
    try:
        return ormsgpack.packb(value, default=_plain, option=ormsgpack.OPT_SERIALIZE_PYDANTIC)
    except (ormsgpack.MsgpackEncodeError, TypeError, ValueError, RecursionError) as error:
        code: Code = "E_LIMIT" if "Recursion limit" in str(error) else "E_VALUE"
        raise SchemaError(code, "$", f"cannot be encoded as msgpack: {error}; {_TAKEN}") from None


def decode_value(data: bytes) -> Any:
    """The value behind a claim check, as strictly as a record, but for its size, number of values and long strings.

    It may take seconds: call it from a worker thread.

    Raises:
        SchemaError: the bytes are no value; `path` says where.
    """
    if not 1 <= len(data) <= CLAIM_CHECK_BYTES_MAX:
        raise SchemaError("E_LIMIT", "$", f"a value of {len(data)} bytes, 1 to {CLAIM_CHECK_BYTES_MAX} can be")
    return unpack(data, nodes_max=CLAIM_CHECK_NODES_MAX, string_bytes_max=CLAIM_CHECK_BYTES_MAX)


def arg_hash(task: Task) -> int:
    """A 64-bit fingerprint of what a task asks for, by which the same task_id with another arg is told.

    Map keys are sorted first: two encoders that order them differently still ask for the same thing. Of an arg behind
    a claim check the hash is all that is known, so there another order is another arg.
    """
    asked = [task.node, task.arg] if task.arg_check is None else [task.node, None, task.arg_check.sha256]
    canonical = ormsgpack.packb(asked, option=ormsgpack.OPT_SORT_KEYS)
    return int.from_bytes(hashlib.blake2b(canonical, digest_size=8).digest(), "big", signed=True)


def _with_fields(value: bytes, **fields: int) -> bytes:
    decode_task(value)
    value = pack_value({**unpack(value), **fields})
    decode_task(value)
    return value


def _other_version(version: object) -> str:
    if isinstance(version, int) and version > WIRE_VERSION:
        return (
            f"version {version}, this reader knows {WIRE_VERSION}: upgrade the consumers before the producers, then "
            "send the record again"
        )
    return f"version {reprlib.repr(version):.40}, a record of this format has {WIRE_VERSION}"


def _packed(task: Task, fan_out: dict[str, Any]) -> bytes:
    fields = msgspec.structs.asdict(task)
    fields["fan_out"] = fan_out
    if task.arg_check is None:
        del fields["arg_check"]
    elif task.arg is None:
        del fields["arg"]
    return pack_value(fields)


def _fan_out_fields(task: Task) -> dict[str, Any]:
    fields = msgspec.structs.asdict(task.fan_out)
    return {name: value for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    raise TypeError  # the encoder puts a message of its own in place of any of ours


def _refusal(fields: dict[str, Any]) -> SchemaError:
    """What is wrong with the fields of a task, some of which are of a wrong type or beyond their limits."""
    try:
        msgspec.convert(fields, STRICT_TASK)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at ")
        # "Expected `int`, got `str`" is about a type; "Expected `int` <= 100000" is about a limit.
        code: Code = "E_LIMIT" if detail.startswith("Expected") and ", got" not in detail else "E_SCHEMA"
        return SchemaError(code, path.strip("`") or "$", detail)
    raise AssertionError("a task that its strict form takes was refused")


def _check_task(task: Task) -> None:
    check_clock(task.base, "$.base")
    if task.arg is not None and task.arg_check is not None:
        raise SchemaError("E_SCHEMA", "$.arg_check", "both an arg and a claim check for it; a task has one of them")
    fan_out = task.fan_out
    if task.index >= fan_out.size:
        raise SchemaError("E_SCHEMA", "$.index", f"index {task.index} of a fan-out of {fan_out.size}")
    if fan_out.quorum is not None and fan_out.quorum > fan_out.size:
        raise SchemaError("E_SCHEMA", "$.fan_out.quorum", f"quorum {fan_out.quorum} of a fan-out of {fan_out.size}")
    if task.is_fold and task.node != fan_out.fold:
        raise SchemaError(
            "E_SCHEMA", "$.node", f"a fold task for {task.node!r} of a fan-out folded by {fan_out.fold!r}"
        )
