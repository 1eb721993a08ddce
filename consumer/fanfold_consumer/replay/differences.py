"""Where two results differ first. Pure."""

from __future__ import annotations

import hashlib
import reprlib
from typing import Any

from fanfold_schemas import SchemaError, decode_payload, payload_check

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxdict = 4


def payload_difference(stored: bytes, now: bytes) -> str | None:
    """The first difference of two stored results, as text of bounded length; None: they are the same value.

    Two encoders may order a map as they like. Of a value behind a claim check only its hash is compared.
    """
    if stored == now or _sha256(stored) == _sha256(now):
        return None
    try:
        if payload_check(stored) is not None or payload_check(now) is not None:
            return "$: another value (claim checks of other hashes)"
        return value_difference(decode_payload(stored), decode_payload(now))
    except SchemaError as error:
        return f"$: the stored result cannot be read: {error}"


def value_difference(stored: Any, now: Any, path: str = "$") -> str | None:
    """The path of the first difference and what is there; None: there is none. A whole number is no float here."""
    if type(stored) is not type(now):
        return f"{path}: {_SHORT.repr(stored)} is stored, now {_SHORT.repr(now)}"
    if isinstance(stored, dict):
        for key in sorted({*stored, *now}):
            inner = f"{path}.{key:.60}"
            if key not in now or key not in stored:
                return f"{inner}: {'only stored' if key in stored else 'only now'}"
            if (found := value_difference(stored[key], now[key], inner)) is not None:
                return found
        return None
    if isinstance(stored, list):
        for at, (old, new) in enumerate(zip(stored, now, strict=False)):
            if (found := value_difference(old, new, f"{path}[{at}]")) is not None:
                return found
        return None if len(stored) == len(now) else f"{path}: {len(stored)} items are stored, now {len(now)}"
    return None if stored == now else f"{path}: {_SHORT.repr(stored)} is stored, now {_SHORT.repr(now)}"


def _sha256(payload: bytes) -> str:
    check = payload_check(payload)
    return hashlib.sha256(payload).hexdigest() if check is None else check.sha256
