"""The strict pass over msgpack bytes: whether they are one value within the contract, before anything is built of them.

The decoder proper (ormsgpack) is fast and safe but forgiving: it takes trailing bytes, duplicate keys, NaN and NUL, and
a megabyte of empty lists costs it seventy. What is refused here costs no memory, and little time: a container is held
against the limits when it announces its size, so a bomb goes off at its first header.

msgpack in three sentences: the leading byte of a value says its type. For small values it also says how many bytes or
values follow; for others a big-endian length of 1, 2 or 4 bytes does. Numbers have a fixed size.
"""

from __future__ import annotations

import re
from struct import Struct
from struct import error as StructError
from typing import NoReturn

from fanfold_schemas.errors import Code, SchemaError
from fanfold_schemas.limits import DEPTH_MAX, NODES_MAX, STRING_BYTES_MAX

# Frames of the containers that are open: values (of a map: pairs) still to come, keys seen, the key we are at.
_Stack = list[tuple[int, set[bytes] | None, bytes | None]]

_FLOAT32, _FLOAT64, _UINT64, _UNUSED = 0xCA, 0xCB, 0xCF, 0xC1
_BYTES, _TEXT, _LIST, _MAP = 0xC4, 0xD9, 0xDC, 0xDE
_8, _16, _32 = ((Struct(layout).unpack_from, Struct(layout).size) for layout in (">B", ">H", ">I"))
# leading byte -> how to read the length that follows, and the bytes of it; the forms of a type lie side by side
_LENGTHS = {_BYTES: _8, _BYTES + 1: _16, _BYTES + 2: _32, _TEXT: _8, _TEXT + 1: _16, _TEXT + 2: _32}
_LENGTHS |= {_LIST: _16, _LIST + 1: _32, _MAP: _16, _MAP + 1: _32}

_NUL = "a NUL character, which Postgres cannot store in text"
_is_name = re.compile(rb"[A-Za-z_][A-Za-z0-9_-]{0,39}\Z").match


def _sizes() -> bytes:
    """By leading byte, the whole size of values that need no further look; 0 for all others."""
    sizes = dict.fromkeys([*range(0x80), 0x80, 0x90, 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)], 1)
    sizes |= {0xA0 + length: 1 + length for length in range(32)}
    sizes |= {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    return bytes(sizes.get(lead, 0) for lead in range(256))


_SIZES = _sizes()
# Short texts need a look only in bytes that have a zero somewhere.
_SIZES_BUT_TEXT = bytes(0 if 0xA0 <= lead <= 0xBF else size for lead, size in enumerate(_SIZES))


def scan(data: bytes, *, nodes_max: int = NODES_MAX, string_bytes_max: int = STRING_BYTES_MAX) -> None:
    """Check that `data` is exactly one msgpack value within the limits, but for texts being UTF-8.

    Raises:
        SchemaError: `E_FRAME` (truncated, trailing bytes, a key that is no text or comes twice), `E_LIMIT`, `E_VALUE`
            or `E_EXT`.
    """
    try:
        end = _walk(data, nodes_max, string_bytes_max)
    except (IndexError, StructError):
        raise SchemaError("E_FRAME", "$", f"truncated: {len(data)} bytes end inside a value") from None
    if end != len(data):
        what = "bytes are missing from" if end > len(data) else "trailing bytes after"
        raise SchemaError("E_FRAME", "$", f"{abs(len(data) - end)} {what} the value")


def _walk(data: bytes, nodes_max: int, string_bytes_max: int) -> int:
    """Walk one value and return where it ends: beyond the end of `data`, perhaps.

    One loop, because a call for each of 100,000 values would take longer than all the rest.
    """
    sizes = _SIZES_BUT_TEXT if b"\0" in data else _SIZES
    end = len(data)
    stack: _Stack = []
    at = 0
    nodes = left = 1
    keys: set[bytes] | None = None
    key: bytes | None = None
    while True:
        while left:
            left -= 1
            if keys is not None:
                lead = data[at]
                at += 1
                if 0xA0 <= lead <= 0xBF:
                    length = lead & 0x1F
                elif _TEXT <= lead < _LIST:
                    unpack, width = _LENGTHS[lead]
                    (length,) = unpack(data, at)
                    at += width
                    if length > string_bytes_max:
                        _refuse("E_LIMIT", stack, None, f"a key of {length} bytes, at most {string_bytes_max}")
                else:
                    _refuse("E_FRAME", stack, None, "a map key that is no text")
                # Compared without its length: the same text in a longer form is the same key.
                key = data[at : at + length]
                at += length
                if key in keys:
                    _refuse("E_FRAME", stack, None, f"duplicate key {_shown(key)}")
                if 0 in key:
                    _refuse("E_VALUE", stack, None, "a key with a NUL character")
                keys.add(key)

            lead = data[at]
            if size := sizes[lead]:
                at += size
                continue
            at += 1
            if lead <= 0x9F:
                count = lead & 0x0F
                is_map = lead <= 0x8F
            elif lead <= 0xBF:
                length = lead & 0x1F
                if 0 in data[at : at + length]:
                    _refuse("E_VALUE", stack, key, _NUL)
                at += length
                continue
            elif field := _LENGTHS.get(lead):
                unpack, width = field
                (count,) = unpack(data, at)
                at += width
                if lead < _LIST:
                    if count > string_bytes_max:
                        _refuse("E_LIMIT", stack, key, f"a string of {count} bytes, at most {string_bytes_max}")
                    if lead >= _TEXT and 0 in data[at : at + count]:
                        _refuse("E_VALUE", stack, key, _NUL)
                    at += count
                    continue
                if count > end - at:
                    raise SchemaError("E_FRAME", "$", f"truncated: {count} values announced, {end - at} bytes left")
                is_map = lead >= _MAP
            elif lead in (_FLOAT32, _FLOAT64):
                # All bits of the exponent are set: infinity or NaN.
                if data[at] & 0x7F == 0x7F and data[at + 1] >= (0x80 if lead == _FLOAT32 else 0xF0):
                    _refuse("E_VALUE", stack, key, "NaN or infinity, which JSON has no number for")
                at += 4 if lead == _FLOAT32 else 8
                continue
            elif lead == _UINT64:
                if data[at] >= 0x80:
                    _refuse("E_VALUE", stack, key, "an integer beyond int64")
                at += 8
                continue
            elif lead == _UNUSED:
                _refuse("E_FRAME", stack, key, "byte 0xc1, which msgpack never uses")
            else:
                _refuse("E_EXT", stack, key, "an extension type; only plain msgpack values may travel")

            if len(stack) >= DEPTH_MAX:
                _refuse("E_LIMIT", stack, key, f"nested deeper than {DEPTH_MAX}")
            stack.append((left, keys, key))
            left = count
            if is_map:
                nodes += 2 * count
                keys = set()
            else:
                nodes += count
                keys = key = None
            if nodes > nodes_max:
                raise SchemaError("E_LIMIT", "$", f"more than {nodes_max} values")
        if not stack:
            return at
        left, keys, key = stack.pop()


def _refuse(code: Code, stack: _Stack, key: bytes | None, detail: str) -> NoReturn:
    raise SchemaError(code, _path(stack, key), detail)


def _path(stack: _Stack, key: bytes | None) -> str:
    """Where we are, as `$.arg.inner`. Positions in lists are left out."""
    names = [name for _, _, name in stack if name is not None]
    return "$" + "".join(_shown(name, ".") for name in ([*names, key] if key is not None else names))


def _shown(key: bytes, before: str = "") -> str:
    """A key as a message may show it. What does not look like a field's name may be data, or an attack on terminals."""
    return before + key.decode() if _is_name(key) else "[...]"
