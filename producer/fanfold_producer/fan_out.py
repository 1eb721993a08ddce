"""From Sends to records. Pure: no clock, no chance, no broker; the same arguments give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from fanfold_producer.record import Record
from fanfold_schemas import (
    FanOut,
    SchemaError,
    Send,
    Task,
    check_id,
    check_topic,
    derive_task_id,
    encode_payload,
    encode_task,
    task_headers,
    to_send,
)
from fanfold_schemas.clock import check_clock
from fanfold_schemas.limits import DEPTH_MAX, FAN_OUT_SIZE_MAX

WRITTEN_BYTES_MAX = 1_048_588 - 160
"""Key, value and headers of a record: the broker's default for a batch, less what a batch of one adds to it."""

_is_traceparent = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z").match


@dataclass(frozen=True, slots=True)
class BuiltFanOut:
    """A fan-out ready to be written: one record a task, in index order."""

    fan_out: FanOut
    thread_id: str
    task_ids: tuple[str, ...]
    records: list[Record]


def build_fan_out(
    thread_id: str,
    sends: Iterable[object],
    *,
    topic: str,
    fan_out_id: str,
    fold: str | None = None,
    base: Mapping[str, int] | None = None,
    quorum: int | None = None,
    deadline_ms: int | None = None,
    traceparent: str | None = None,
    source: str = "fanfold",
) -> BuiltFanOut:
    """Check and encode a fan-out as a whole. Its tasks are keyed by task_id.

    Args:
        sends: 1 to 100,000 of `Send`, `langgraph.types.Send` or `(node, arg)`; no more than one too many is
            taken from an iterator.
        deadline_ms: unix time in milliseconds.

    Raises:
        SchemaError: what breaks the wire contract, at a path like `$.sends[17].arg.items[3]`; nothing was built.
        TypeError: an item of `sends` is no Send.
        ValueError: `topic` is no topic name.
    """
    check_topic(topic)
    check_id(thread_id, "$.thread_id")
    check_id(fan_out_id, "$.fan_out_id")
    if fold is not None:
        check_id(fold, "$.fold")
    clock = check_clock(base or {}, "$.base")
    if traceparent is not None and not _is_traceparent(traceparent):
        raise SchemaError("E_SCHEMA", "$.traceparent", "no W3C traceparent: 00-<32 hex>-<16 hex>-<2 hex>")
    checked = [to_send(send, f"$.sends[{index}]") for index, send in enumerate(_bounded(sends))]
    task_ids = _task_ids(fan_out_id, checked)
    fan_out = FanOut(fan_out_id, _size(checked), fold, _quorum(quorum, len(checked)), _deadline(deadline_ms))
    extra = {"traceparent": traceparent} if traceparent else None
    records = []
    for index, (send, task_id) in enumerate(zip(checked, task_ids, strict=True)):
        task = Task(task_id, thread_id, fan_out, index, send.node, send.arg, clock)
        record = Record(topic, task_id.encode(), _encode(task), tuple(task_headers(task, source=source, extra=extra)))
        _check_written(record, index)
        records.append(record)
    return BuiltFanOut(fan_out, thread_id, task_ids, records)


def deadline_to_ms(deadline: datetime | timedelta | None, now: datetime, *, repeatable: bool) -> int | None:
    """Unix milliseconds of a deadline, whatever way it was given.

    Args:
        repeatable: the caller chose the fan-out's id, so the same may be published again.

    Raises:
        SchemaError: no time zone, a wait of nothing or less, or a wait where only a moment can be repeated.
    """
    if deadline is None:
        return None
    if isinstance(deadline, timedelta):
        if repeatable:
            raise SchemaError(
                "E_SCHEMA",
                "$.deadline",
                "a timedelta means another moment at each repetition, and tasks that contradict their fan-out are "
                "refused; with a fan_out_id of your own, pass a datetime",
            )
        if deadline <= timedelta(0):
            raise SchemaError("E_LIMIT", "$.deadline", f"{deadline} is no time from now")
        deadline = now + deadline
    if deadline.tzinfo is None:
        raise SchemaError("E_SCHEMA", "$.deadline", "a datetime without a time zone; give it one, as in tz=UTC")
    return int(deadline.timestamp() * 1000)


def _bounded(sends: Iterable[object]) -> list[object]:
    if isinstance(sends, str | bytes | Mapping):
        raise TypeError(f"$.sends: expected an iterable of Sends, got {type(sends).__name__}")
    return list(islice(sends, FAN_OUT_SIZE_MAX + 1))


def _size(sends: list[Send]) -> int:
    if not sends:
        raise SchemaError("E_LIMIT", "$.sends", "no Send: a fan-out has 1 to 100,000, so that it can complete")
    if len(sends) > FAN_OUT_SIZE_MAX:
        raise SchemaError("E_LIMIT", "$.sends", f"more than {FAN_OUT_SIZE_MAX:,}; split them into several fan-outs")
    return len(sends)


def _task_ids(fan_out_id: str, sends: list[Send]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    for index, send in enumerate(sends):
        task_id = derive_task_id(fan_out_id, index) if send.task_id is None else send.task_id
        first = seen.setdefault(task_id, index)
        if first != index:
            raise SchemaError(
                "E_SCHEMA", f"$.sends[{index}].task_id", f"{task_id!r} is the id of $.sends[{first}] already"
            )
    return tuple(seen)


def _quorum(quorum: object, size: int) -> int | None:
    if quorum is None:
        return None
    if not isinstance(quorum, int) or isinstance(quorum, bool):
        raise SchemaError("E_SCHEMA", "$.quorum", f"expected an integer, got {type(quorum).__name__}")
    if not 1 <= quorum <= size:
        raise SchemaError("E_LIMIT", "$.quorum", f"quorum {quorum} of a fan-out of {size}; 1 to {size} can be met")
    return quorum


def _deadline(deadline_ms: int | None) -> int | None:
    if deadline_ms is not None and deadline_ms < 1:
        raise SchemaError("E_LIMIT", "$.deadline", "before 1970")
    return deadline_ms


def _encode(task: Task) -> bytes:
    try:
        return encode_task(task)
    except SchemaError as error:
        # All but the arg was checked before, so whatever cannot be encoded is in there.
        path = f"$.sends[{task.index}].arg{_culprit(task.arg)}"
        raise SchemaError(error.code, path, error.detail) from None


def _culprit(arg: Any) -> str:
    """The path below an arg to the innermost part that cannot be encoded; empty: it is the arg as a whole."""
    path = ""
    for _ in range(DEPTH_MAX):
        parts: Iterable[tuple[str, Any]]
        if isinstance(arg, Mapping):
            parts = [(f".{key}"[:60], part) for key, part in arg.items()]
        elif isinstance(arg, list | tuple):
            parts = [(f"[{at}]", part) for at, part in enumerate(arg)]
        else:
            break
        bad = next(((step, part) for step, part in parts if not _encodable(part)), None)
        if bad is None:
            break
        path, arg = path + bad[0], bad[1]
    return path


def _encodable(value: Any) -> bool:
    try:
        encode_payload(value)
    except SchemaError:
        return False
    return True


def _check_written(record: Record, index: int) -> None:
    written = len(record.key or b"") + len(record.value or b"")
    written += sum(len(name) + len(value or b"") + 4 for name, value in record.headers)
    if written > WRITTEN_BYTES_MAX:
        raise SchemaError(
            "E_LIMIT",
            f"$.sends[{index}]",
            f"a record of {written} bytes with key and headers, at most {WRITTEN_BYTES_MAX}; "
            "pass large arguments by reference",
        )
