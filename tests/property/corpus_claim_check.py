"""Records whose claim checks try to be something else: a path, a URL, another object. Each is (name, value, code)."""

from __future__ import annotations

from typing import Any

import ormsgpack

from fanfold_schemas import FanOut, Task, encode_task
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX

_SHA256 = "0123456789abcdef" * 4
_TASK = Task("task-1", "thread-1", FanOut("fan-out-1", 1), 0, "work")


def _record(arg_check: Any, **fields: Any) -> bytes:
    whole: dict[str, Any] = ormsgpack.unpackb(encode_task(_TASK))
    del whole["arg"]
    return ormsgpack.packb({**whole, **fields, "arg_check": arg_check})


def _named(sha256: Any) -> bytes:
    return _record({"sha256": sha256, "bytes": 10})


def _sized(size: Any) -> bytes:
    return _record({"sha256": _SHA256, "bytes": size})


CLAIM_CHECK_RECORDS: list[tuple[str, bytes, str]] = [
    ("a path upwards", _named("../" * 21 + "x"), "E_LIMIT"),
    ("a path upwards of the right length", _named("../" * 21 + "a"), "E_LIMIT"),
    ("an absolute path", _named("/etc/passwd"), "E_LIMIT"),
    ("a URL", _named("http://127.0.0.1:1/x"), "E_LIMIT"),
    ("a URL of the right length", _named("http://127.0.0.1:1/" + "0" * 45), "E_LIMIT"),
    ("a file URL", _named("file:///etc/passwd"), "E_LIMIT"),
    ("a hash of another fan-out's folder", _named(f"../fan-out-2/{_SHA256}"), "E_LIMIT"),
    ("upper-case hex", _named(_SHA256.upper()), "E_LIMIT"),
    ("a hash with a newline", _named(_SHA256 + "\n"), "E_LIMIT"),
    ("a hash with a line before it", _named("x\n" + _SHA256), "E_LIMIT"),
    ("a short hash", _named(_SHA256[:-1]), "E_LIMIT"),
    ("digits that are not ASCII", _named("٠" * 64), "E_LIMIT"),
    ("an empty hash", _named(""), "E_LIMIT"),
    ("a hash of bytes", _named(bytes.fromhex(_SHA256)), "E_SCHEMA"),
    ("a hash that is nil", _named(None), "E_SCHEMA"),
    ("size 0", _sized(0), "E_LIMIT"),
    ("size -1", _sized(-1), "E_LIMIT"),
    ("a size above the limit", _sized(CLAIM_CHECK_BYTES_MAX + 1), "E_LIMIT"),
    ("a size of 2^63 - 1", _sized(2**63 - 1), "E_LIMIT"),
    ("a size that is a float", _sized(10.0), "E_SCHEMA"),
    ("a size that is true", _sized(True), "E_SCHEMA"),
    ("a size that is text", _sized("10"), "E_SCHEMA"),
    ("no size", _record({"sha256": _SHA256}), "E_SCHEMA"),
    ("no hash", _record({"bytes": 10}), "E_SCHEMA"),
    ("a key in place of a claim check", _record(f"fan-out-1/{_SHA256}"), "E_SCHEMA"),
    ("a list in place of a claim check", _record([_SHA256, 10]), "E_SCHEMA"),
    ("an arg beside its claim check", _record({"sha256": _SHA256, "bytes": 10}, arg={"x": 1}), "E_SCHEMA"),
    ("an arg of false beside its claim check", _record({"sha256": _SHA256, "bytes": 10}, arg=False), "E_SCHEMA"),
]
"""A claim check of the right form but of other bytes is a valid record: its object is refused when it is read."""
