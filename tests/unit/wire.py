"""Records to break: a good one, and ways to write it otherwise."""

from __future__ import annotations

from typing import Any

import ormsgpack
import pytest

from fanfold_schemas import FanOut, SchemaError, Task, decode_task, encode_task

TASK = Task("task-1", "thread-1", FanOut("fan-out-1", 3), 0, "work", {"x": 1})


def fields(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = ormsgpack.unpackb(encode_task(TASK))
    return {**whole, **changes}


def record_with(**changes: Any) -> bytes:
    """A record like TASK's, but for these fields."""
    return ormsgpack.packb(fields(**changes))


def record_with_raw_arg(raw: bytes) -> bytes:
    """A record like TASK's whose arg is these very bytes."""
    given = fields()
    del given["arg"]
    head = ormsgpack.packb(given)
    assert head[0] == 0x80 + len(given)
    return bytes([head[0] + 1]) + head[1:] + ormsgpack.packb("arg") + raw


def refusal(record: bytes | None) -> tuple[str, str]:
    with pytest.raises(SchemaError) as caught:
        decode_task(record)
    return caught.value.code, caught.value.path


def nested(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = [value]
    return value
