"""Strict msgpack: bytes to plain values, or a refusal."""

from __future__ import annotations

import gc
import re
from typing import Any

import msgspec
import ormsgpack

from fanfold_schemas.errors import SchemaError
from fanfold_schemas.limits import DEPTH_MAX, NODES_MAX, STRING_BYTES_MAX
from fanfold_schemas.scan import scan

_QUICK_BYTES_MAX = 16 * 1024
"""Nearly every record is smaller. A larger one that is bad must not be built first, only to be refused."""

_CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_NO_CONTAINERS = bytes(set(range(256)) - set(_CONTAINERS))
# Leading bytes of what is fine whatever follows, which is nearly all of a usual record. The others: containers, because
# of their depth; floats and the largest integers, because of their values; zero; and what no record may hold.
_HARMLESS = bytes(set(range(256)) - set(_CONTAINERS) - {0x00, 0xC1, *range(0xC7, 0xCC), 0xCF, *range(0xD4, 0xD9)})
_beyond_int64 = re.compile(rb"\xcf[\x80-\xff]").search


def unpack(data: bytes, *, nodes_max: int = NODES_MAX, string_bytes_max: int = STRING_BYTES_MAX) -> Any:
    """The one value that the bytes are.

    Raises:
        SchemaError: they are not exactly one value within the limits; code and path as in `scan`.
    """
    if len(data) <= _QUICK_BYTES_MAX:
        try:
            value = ormsgpack.unpackb(data)
            if _is_plain(data, value):
                return value
        except (ormsgpack.MsgpackDecodeError, ormsgpack.MsgpackEncodeError):
            pass  # the strict pass says what is wrong, in our own terms
    scan(data, nodes_max=nodes_max, string_bytes_max=string_bytes_max)
    # Building 100,000 lists would set the garbage collector off a hundred times, to find nothing and to take two thirds
    # of the time; in a process of many objects more. Nobody else misses it: the call holds the GIL throughout.
    collects = gc.isenabled()
    gc.disable()
    try:
        return ormsgpack.unpackb(data)
    except ormsgpack.MsgpackDecodeError as error:
        raise SchemaError("E_FRAME", "$", f"no msgpack: {error}") from None
    finally:
        if collects:
            gc.enable()


def is_harmless(data: bytes) -> bool:
    """Whether no byte of an encoded value could be one that the strict pass has to look at; no: it may be all right."""
    if len(data) > _QUICK_BYTES_MAX:
        return False
    suspicious = data.translate(None, _HARMLESS)
    return len(suspicious) <= DEPTH_MAX and not suspicious.strip(_CONTAINERS)


def _is_plain(data: bytes, value: Any) -> bool:
    """Whether a few searches in C rule out all that the strict pass would refuse; no: it has to look.

    That pass takes 10 to 50 us for a usual record, these searches 1 or 2. They may be wrong one way only.
    """
    # Bytes that encode back to themselves have no trailing bytes, no duplicate keys and no extension types.
    if ormsgpack.packb(value) != data:
        return False
    if is_harmless(data):
        return True
    return (
        # Floats of the largest exponent are infinite or NaN.
        b"\xcb\x7f" not in data
        and b"\xcb\xff" not in data
        and b"\xca\x7f" not in data
        and b"\xca\xff" not in data
        and not _beyond_int64(data)
        and (len(data.translate(None, _NO_CONTAINERS)) <= DEPTH_MAX or _is_shallow(value))
        # A zero byte is mostly a number's. In JSON, bytes are base64 and a NUL in text is an escape.
        and (b"\0" not in data or b"\\u0000" not in msgspec.json.encode(value))
    )


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if item and (type(item) is dict or type(item) is list)
        ]
        if not level:
            return True
    return False
