"""A structural pass over msgpack bytes that builds nothing: framing, depth, counts, extension types, duplicate keys.

The decoder proper (ormsgpack) is fast and safe but forgiving: it accepts trailing bytes and duplicate keys, and a
megabyte of empty lists costs it seventy. So a record that could hide one of these is walked here first. msgpack spec:
one leading byte says the type and, for the longer forms, how many bytes of big-endian length follow.
"""

from __future__ import annotations

from fanfold_schemas.errors import SchemaError
from fanfold_schemas.limits import DEPTH_MAX, NODES_MAX, STRING_BYTES_MAX

_MAP, _ARRAY = 0, 1
# leading byte -> (container kind or None, bytes of length field, fixed bytes of body)
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED.update({0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8})
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_CONTAINERS = {0xDC: (_ARRAY, 2), 0xDD: (_ARRAY, 4), 0xDE: (_MAP, 2), 0xDF: (_MAP, 4)}


def scan(data: bytes) -> None:
    """Check that `data` is exactly one msgpack value within the limits.

    Raises:
        SchemaError: `E_FRAME` (truncated, trailing, duplicate or non-string key), `E_LIMIT` or `E_EXT`.
    """
    end = len(data)
    at = 0
    nodes = 0
    # One frame an open container: [kind, values still to come, seen keys or None, expecting a key].
    stack: list[list[object]] = []
    while True:
        if at >= end:
            raise SchemaError("E_FRAME", "$", f"truncated: {end} bytes end inside a value")
        nodes += 1
        if nodes > NODES_MAX:
            raise SchemaError("E_LIMIT", "$", f"more than {NODES_MAX} values")
        lead = data[at]
        start = at
        at += 1
        count = -1
        kind = _ARRAY
        is_string = False
        if lead <= 0x7F or lead >= 0xE0 or lead in _FIXED:
            at += _FIXED.get(lead, 0)
        elif lead <= 0x8F:
            kind, count = _MAP, lead & 0x0F
        elif lead <= 0x9F:
            kind, count = _ARRAY, lead & 0x0F
        elif lead <= 0xBF:
            is_string = True
            at += lead & 0x1F
        elif lead in _SIZED:
            width = _SIZED[lead]
            length = int.from_bytes(data[at : at + width], "big")
            if length > STRING_BYTES_MAX:
                raise SchemaError("E_LIMIT", "$", f"a string of {length} bytes, at most {STRING_BYTES_MAX}")
            is_string = lead >= 0xD9
            at += width + length
        elif lead in _CONTAINERS:
            kind, width = _CONTAINERS[lead]
            count = int.from_bytes(data[at : at + width], "big")
            at += width
        elif lead == 0xC1:
            raise SchemaError("E_FRAME", "$", "byte 0xc1, which msgpack never uses")
        else:
            raise SchemaError("E_EXT", "$", "an extension type; only plain msgpack values may travel")
        if at > end:
            raise SchemaError(
                "E_FRAME", "$", f"truncated: a value needs {at - end} bytes more than the {end} there are"
            )
        if stack and stack[-1][3]:
            _take_key(stack[-1], data[start:at], is_string)
        if count >= 0:
            if len(stack) >= DEPTH_MAX:
                raise SchemaError("E_LIMIT", "$", f"nested deeper than {DEPTH_MAX}")
            if count > end - at:
                raise SchemaError("E_FRAME", "$", f"truncated: {count} values announced, {end - at} bytes left")
            values = count * 2 if kind == _MAP else count
            stack.append([kind, values, set() if kind == _MAP else None, kind == _MAP and count > 0])
        elif stack:
            _step(stack[-1])
        while stack and stack[-1][1] == 0:
            stack.pop()
            if stack:
                _step(stack[-1])
        if not stack:
            break
    if at != end:
        raise SchemaError("E_FRAME", "$", f"{end - at} trailing bytes after the value")


def _take_key(frame: list[object], key: bytes, is_string: bool) -> None:
    if not is_string:
        raise SchemaError("E_FRAME", "$", "a map key that is no string")
    seen = frame[2]
    assert isinstance(seen, set)
    # Keys are compared without their length prefix: the same text in a longer form is the same key.
    text = _string_body(key)
    if text in seen:
        raise SchemaError("E_FRAME", "$", f"duplicate key {text[:40]!r}")
    seen.add(text)


def _string_body(encoded: bytes) -> bytes:
    lead = encoded[0]
    return encoded[1 + _SIZED.get(lead, 0) :]


def _step(frame: list[object]) -> None:
    left = frame[1]
    assert isinstance(left, int)
    frame[1] = left - 1
    frame[3] = frame[0] == _MAP and not frame[3]
