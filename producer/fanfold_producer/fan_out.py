"""From Sends to records. `build_fan_out` is pure: no clock, no chance; the same arguments give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

import msgspec

from fanfold_producer.claim_store import ClaimStore
from fanfold_producer.record import Record
from fanfold_schemas import (
    ClaimCheck,
    FanOut,
    SchemaError,
    Send,
    Task,
    check_id,
    check_topic,
    claim_check_for,
    decode_value,
    derive_task_id,
    encode_payload,
    new_fan_out_id,
    pack_value,
    task_headers,
    to_send,
)
from fanfold_schemas.clock import check_clock
from fanfold_schemas.codec import SiblingEncoder
from fanfold_schemas.limits import DEPTH_MAX, FAN_OUT_SIZE_MAX

OnDeadline = Literal["fail", "fold"]
"""What a deadline does to a fan-out that is not complete: fail it, or fold the results it has."""

WRITTEN_BYTES_MAX = 1_048_588 - 160
"""Key, value and headers of a record: the broker's default for a batch, less what a batch of one adds to it."""

_is_traceparent = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z").match


@dataclass(frozen=True, slots=True)
class BuiltFanOut:
    """A fan-out ready to be written: one record a task, in index order.

    Attributes:
        large_args: what must be in the claim store before the first record is written.
    """

    fan_out: FanOut
    thread_id: str
    task_ids: tuple[str, ...]
    records: list[Record]
    large_args: dict[ClaimCheck, Any]


def build_fan_out(
    thread_id: str,
    sends: Iterable[object],
    *,
    topic: str,
    fan_out_id: str,
    fold: str | None = None,
    base: Mapping[str, int] | None = None,
    quorum: int | None = None,
    max_failures: int | None = None,
    deadline_ms: int | None = None,
    on_deadline: OnDeadline = "fail",
    traceparent: str | None = None,
    source: str = "fanfold",
    claim_check_bytes_min: int | None = None,
) -> BuiltFanOut:
    """Check and encode a fan-out as a whole. Its tasks are keyed by task_id.

    Args:
        sends: 1 to 100,000 of `Send`, `langgraph.types.Send` or `(node, arg)`; no more than one too many is
            taken from an iterator.
        deadline_ms: unix time in milliseconds.
        claim_check_bytes_min: args of more encoded bytes, and those that do not fit into a record, go behind a claim
            check; None: there is no claim store, and what does not fit is refused.

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
    checked = check_sends(sends)
    task_ids = _task_ids(fan_out_id, checked)
    fan_out = FanOut(
        fan_out_id,
        _size(checked),
        fold,
        _quorum(quorum, len(checked)),
        _deadline(deadline_ms),
        _max_failures(max_failures),
        _on_deadline(on_deadline, deadline_ms),
    )
    extra = {"traceparent": traceparent} if traceparent else None
    records = []
    large = _LargeArgs(claim_check_bytes_min)
    encoder = SiblingEncoder()
    for index, (send, task_id) in enumerate(zip(checked, task_ids, strict=True)):
        task = Task(task_id, thread_id, fan_out, index, send.node, send.arg, clock)
        headers = tuple(task_headers(task, source=source, extra=extra))
        records.append(_record(topic, task, headers, large, encoder))
    return BuiltFanOut(fan_out, thread_id, task_ids, records, large.args)


def build_now(
    thread_id: str,
    sends: Iterable[object],
    *,
    topic: str,
    fan_out_id: str | None,
    fold: str | None,
    base: Mapping[str, int] | None,
    quorum: int | None,
    max_failures: int | None,
    deadline: datetime | timedelta | None,
    on_deadline: OnDeadline,
    traceparent: str | None,
    source: str,
    claim_store: ClaimStore | None,
) -> BuiltFanOut:
    """`build_fan_out` of what callers say: with an id of its own if they name none, and deadlines that begin now."""
    return build_fan_out(
        thread_id,
        sends,
        topic=topic,
        fan_out_id=new_fan_out_id() if fan_out_id is None else fan_out_id,
        fold=fold,
        base=base,
        quorum=quorum,
        max_failures=max_failures,
        deadline_ms=deadline_to_ms(deadline, datetime.now(UTC), repeatable=fan_out_id is not None),
        on_deadline=on_deadline,
        traceparent=traceparent,
        source=source,
        claim_check_bytes_min=None if claim_store is None else claim_store.bytes_min,
    )


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


def check_sends(sends: Iterable[object]) -> list[Send]:
    """What callers pass, as `Send`s; no more than one too many. Raises as `build_fan_out` does."""
    if isinstance(sends, str | bytes | Mapping):
        raise TypeError(f"$.sends: expected an iterable of Sends, got {type(sends).__name__}")
    return [to_send(send, f"$.sends[{index}]") for index, send in enumerate(islice(sends, FAN_OUT_SIZE_MAX + 1))]


def pack_arg(arg: Any, index: int) -> bytes:
    """The arg of the Send at that index as msgpack. Raises as `build_fan_out` does."""
    try:
        return pack_value(arg)
    except SchemaError as error:
        raise _in_arg(error, arg, index, pack_value) from None


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


def _max_failures(max_failures: object) -> int | None:
    if max_failures is None:
        return None
    if not isinstance(max_failures, int) or isinstance(max_failures, bool):
        raise SchemaError("E_SCHEMA", "$.max_failures", f"expected an integer, got {type(max_failures).__name__}")
    if not 0 <= max_failures <= FAN_OUT_SIZE_MAX:
        raise SchemaError(
            "E_LIMIT", "$.max_failures", f"{max_failures} failures; 0 to {FAN_OUT_SIZE_MAX:,} can be told"
        )
    return max_failures


def _on_deadline(on_deadline: object, deadline_ms: int | None) -> Literal["fold"] | None:
    if on_deadline not in ("fail", "fold"):
        raise SchemaError("E_SCHEMA", "$.on_deadline", f"{on_deadline!r:.40}; choose fail or fold")
    if on_deadline == "fail":
        return None
    if deadline_ms is None:
        raise SchemaError("E_SCHEMA", "$.on_deadline", "there is no deadline at which to fold; pass one")
    return "fold"


class _LargeArgs:
    """The args of one fan-out that go behind claim checks; one that many tasks share is encoded and put once."""

    def __init__(self, bytes_min: int | None) -> None:
        self.bytes_min = bytes_min
        self.args: dict[ClaimCheck, Any] = {}
        self._known: dict[int, ClaimCheck] = {}

    def check(self, task: Task) -> ClaimCheck:
        """The claim check of a task's arg. Raises `SchemaError` if not even a claim store takes it."""
        known = self._known.get(id(task.arg))
        if known is None:
            known = self._known[id(task.arg)] = _checked(task)
            self.args[known] = task.arg
        return known

    def wants(self, task: Task) -> bool:
        if self.bytes_min is None:
            return False
        return id(task.arg) in self._known or len(pack_arg(task.arg, task.index)) > self.bytes_min


def _record(
    topic: str, task: Task, headers: tuple[tuple[str, bytes], ...], large: _LargeArgs, encoder: SiblingEncoder
) -> Record:
    if not large.wants(task):
        try:
            return _fitting(Record(topic, task.task_id.encode(), _encode(task, encoder), headers), task.index)
        except SchemaError as error:
            if error.code != "E_LIMIT":
                raise
            if large.bytes_min is None:
                raise _with_hint(error, task) from None
    task = msgspec.structs.replace(task, arg=None, arg_check=large.check(task))
    return _fitting(Record(topic, task.task_id.encode(), _encode(task, encoder), headers), task.index)


def _encode(task: Task, encoder: SiblingEncoder) -> bytes:
    try:
        return encoder.encode(task)
    except SchemaError as error:
        # All but the arg was checked before, so whatever cannot be encoded is in there.
        raise _in_arg(error, task.arg, task.index, encode_payload) from None


def _checked(task: Task) -> ClaimCheck:
    data = pack_arg(task.arg, task.index)
    try:
        decode_value(data)
    except SchemaError as error:
        raise _in_arg(error, task.arg, task.index, lambda part: decode_value(pack_value(part))) from None
    return claim_check_for(data)


def _in_arg(error: SchemaError, arg: Any, index: int, encode: Callable[[Any], object]) -> SchemaError:
    return SchemaError(error.code, f"$.sends[{index}].arg{_culprit(arg, encode)}", error.detail)


def _with_hint(error: SchemaError, task: Task) -> SchemaError:
    """What does not fit into a record, with the way it could travel, if that is one."""
    try:
        _checked(task)
    except SchemaError:
        return error
    hint = "a claim store takes it: pass claim_store=ClaimStore.open(...), on the command line --claim-store"
    return SchemaError(error.code, error.path, f"{error.detail}; {hint}")


def _culprit(arg: Any, encode: Callable[[Any], object]) -> str:
    """The path below an arg to the innermost part that `encode` refuses; empty: it is the arg as a whole."""
    path = ""
    for _ in range(DEPTH_MAX):
        parts: Iterable[tuple[str, Any]]
        if isinstance(arg, Mapping):
            parts = [(f".{key}"[:60], part) for key, part in arg.items()]
        elif isinstance(arg, list | tuple):
            parts = [(f"[{at}]", part) for at, part in enumerate(arg)]
        else:
            break
        bad = next(((step, part) for step, part in parts if not _takes(encode, part)), None)
        if bad is None:
            break
        path, arg = path + bad[0], bad[1]
    return path


def _takes(encode: Callable[[Any], object], value: Any) -> bool:
    try:
        encode(value)
    except SchemaError:
        return False
    return True


def _fitting(record: Record, index: int) -> Record:
    written = len(record.key or b"") + len(record.value or b"")
    written += sum(len(name) + len(value or b"") + 4 for name, value in record.headers)
    if written > WRITTEN_BYTES_MAX:
        raise SchemaError(
            "E_LIMIT",
            f"$.sends[{index}]",
            f"a record of {written} bytes with key and headers, at most {WRITTEN_BYTES_MAX}",
        )
    return record
