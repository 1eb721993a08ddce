"""Record headers: CloudEvents in Kafka's binary mode, W3C trace context, and what routing needs without decoding.

Sources: CloudEvents Kafka protocol binding 1.0.2 (attributes as `ce_*`, media type in `content-type`) and W3C Trace
Context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import ormsgpack

from fanfold_schemas.errors import SchemaError
from fanfold_schemas.task import Task

CONTENT_TYPE = "content-type"
MEDIA_TYPE = "application/vnd.fanfold.task+msgpack; version=1"
CE_ID = "ce_id"
CE_SOURCE = "ce_source"
CE_TYPE = "ce_type"
CE_SPECVERSION = "ce_specversion"
CE_TYPE_TASK = "fanfold.task.v1"
CE_TYPE_FOLD = "fanfold.fold.v1"
TRACEPARENT = "traceparent"
THREAD_ID = "fanfold-thread-id"
FAN_OUT_ID = "fanfold-fan-out-id"
NODE = "fanfold-node"
RUN = "fanfold-run"

Headers = list[tuple[str, bytes]]


def task_headers(task: Task, *, source: str = "fanfold", extra: Mapping[str, str] | None = None) -> Headers:
    """The headers of a task's record, `extra` (a traceparent, say) last."""
    headers = [
        (CE_SPECVERSION, b"1.0"),
        (CE_ID, task.task_id.encode()),
        (CE_SOURCE, source.encode()),
        (CE_TYPE, CE_TYPE_FOLD.encode() if task.is_fold else CE_TYPE_TASK.encode()),
        (CONTENT_TYPE, MEDIA_TYPE.encode()),
        (THREAD_ID, task.thread_id.encode()),
        (FAN_OUT_ID, task.fan_out.id.encode()),
        (NODE, task.node.encode()),
        (RUN, b"%d" % task.run),
    ]
    if extra:
        headers.extend((name, value.encode()) for name, value in extra.items())
    return headers


def header_text(headers: Iterable[tuple[str, bytes | None]] | None, name: str) -> str | None:
    """The last value of a header as text, or None if it is absent or no UTF-8."""
    found: str | None = None
    for key, value in headers or ():
        if key == name and value is not None:
            try:
                found = value.decode()
            except UnicodeDecodeError:
                found = None
    return found


def pack_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
    """Headers as one value to keep in a table: a msgpack array of [name, value], in order, to the byte."""
    return ormsgpack.packb([[name, value] for name, value in headers or ()])


def unpack_headers(data: bytes | None) -> list[tuple[str, bytes | None]]:
    """The headers that `pack_headers` kept.

    Raises:
        SchemaError: `E_FRAME`: somebody else put something there that is no list of [name, value].
    """
    if not data:
        return []
    try:
        headers = msgspec.convert(ormsgpack.unpackb(data), list[tuple[str, Any]])
    except (ormsgpack.MsgpackDecodeError, msgspec.ValidationError) as error:
        raise SchemaError("E_FRAME", "$", f"stored headers that are no list of [name, value]: {error}") from None
    return [(name, _header_value(value)) for name, value in headers]


def _header_value(value: object) -> bytes | None:
    if isinstance(value, str):  # as other languages' encoders may have written it
        return value.encode()
    if value is None or isinstance(value, bytes):
        return value
    raise SchemaError("E_FRAME", "$", f"a stored header of {type(value).__name__}, not of bytes")
