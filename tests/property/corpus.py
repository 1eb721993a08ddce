"""The corpus: what may not be on the topic, what only looks as if it may not, and results that cannot be stored.

`python -m tests.property.corpus` takes each of them through the codec in a process of its own and says what it cost.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import ormsgpack

from fanfold_schemas import SchemaError, decode_task, encode_payload, encode_task
from fanfold_schemas.limits import DEPTH_MAX, NODES_MAX, RECORD_BYTES_MAX, RESULT_BYTES_MAX, STRING_BYTES_MAX
from tests.property.bad_records import (
    BOMBS,
    EXTENSIONS,
    FRAMING,
    HOSTILE_TEXTS,
    SCALARS,
    SCHEMA,
    BadRecord,
    gzip_bomb,
    record_of_size,
    zstd_bomb,
)
from tests.property.corpus_claim_check import CLAIM_CHECK_RECORDS
from tests.unit.wire import TASK, fields, nested, record_with, record_with_raw_arg

REFUSAL_MS_MAX = 50
_TRY_S = 5.0
EXTRA_BYTES_MAX = 64 * 1024 * 1024

FOUND = Path(__file__).parent / "found"
"""Inputs that once broke something, as the fuzzer wrote them; see `tests.property.fuzz_wire`."""


def _claim_check(name: str, value: bytes, code: str) -> BadRecord:
    return BadRecord(f"a claim check: {name}", lambda: value, code)


BAD_RECORDS: list[BadRecord] = [
    *FRAMING,
    *BOMBS,
    *SCALARS,
    *EXTENSIONS,
    *SCHEMA,
    *(_claim_check(*case) for case in CLAIM_CHECK_RECORDS),
]


@dataclass(frozen=True, slots=True)
class OddRecord:
    """A record that is as it should be, with an arg that somebody might think is not."""

    name: str
    make: Callable[[], bytes]
    arg: Callable[[], Any]


def _odd(name: str, arg: Any) -> OddRecord:
    return OddRecord(name, lambda: record_with(arg=arg), lambda: arg)


def _odd_raw(name: str, raw: bytes, arg: Any) -> OddRecord:
    return OddRecord(name, lambda: record_with_raw_arg(raw), lambda: arg)


_VALUES_BESIDE_THE_ARG = 1 + 2 * len(fields()) + 2 * len(fields()["fan_out"])

ODD_RECORDS: list[OddRecord] = [
    *(_odd(f"an arg of {name}", text) for name, text in HOSTILE_TEXTS.items()),
    *(_odd(f"a key of {name}", {text: 1}) for name, text in HOSTILE_TEXTS.items()),
    _odd("NUL in bytes", b"a\0b"),
    _odd("bytes that are a pickle", b"cposix\nsystem\n(S'true'\ntR."),
    _odd("bytes that are a zstd bomb", zstd_bomb(8192)),
    OddRecord("bytes that are a gzip bomb", lambda: record_with(arg=gzip_bomb(16)), lambda: gzip_bomb(16)),
    _odd("bytes that are an extension", b"\xc7\x03\x01abc"),
    _odd("text that looks like a NUL in JSON", "\\u0000"),
    _odd("bytes of a NaN", b"\xcb\x7f\xf8" + b"\0" * 6),
    _odd("an empty key", {"": 1}),
    _odd("keys that differ in their normal form", {"\u00e9": 1, "e\u0301": 2}),
    _odd("the smallest and the largest integer", [-(2**63), 2**63 - 1]),
    _odd("the smallest and the largest float", [5e-324, 1.7976931348623157e308]),
    _odd("minus zero", -0.0),
    _odd("a number too large for JavaScript", 2**53 + 1),
    _odd("lists of the largest depth", nested(DEPTH_MAX - 1)),
    _odd("an empty list at the largest depth", nested(DEPTH_MAX - 1, [])),
    _odd("the longest text", "x" * STRING_BYTES_MAX),
    _odd("the longest bytes", b"x" * STRING_BYTES_MAX),
    _odd("as many values as there may be", [None] * (NODES_MAX - _VALUES_BESIDE_THE_ARG)),
    OddRecord(
        "a record of the largest size",
        lambda: record_of_size(RECORD_BYTES_MAX),
        lambda: decode_task(record_of_size(RECORD_BYTES_MAX)).arg,
    ),
    _odd_raw("numbers in longer forms", b"\x92\xcf" + b"\0" * 7 + b"\x01\xd3" + b"\xff" * 8, [1, -1]),
    _odd_raw("text in a longer form", b"\xdb\0\0\0\x01a", "a"),
    _odd_raw("an empty map in a longer form", b"\xdf\0\0\0\0", {}),
    OddRecord(
        "a field that is not there yet",
        lambda: record_with(arg=None, not_yet={"a": [1, {"b": b"c"}]}),
        lambda: None,
    ),
]


@dataclass(frozen=True, slots=True)
class BadResult:
    """What a handler may return and nobody can store."""

    name: str
    make: Callable[[], Any]
    code: str


def _circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


BAD_RESULTS: list[BadResult] = [
    BadResult("NUL in text", lambda: "a\0b", "E_VALUE"),
    BadResult("NUL in a key", lambda: {"a\0": 1}, "E_VALUE"),
    BadResult("a surrogate", lambda: "\ud800", "E_VALUE"),
    BadResult("NaN", lambda: [float("nan")], "E_VALUE"),
    BadResult("infinity deep inside", lambda: {"a": [{"b": float("-inf")}]}, "E_VALUE"),
    BadResult("2^63", lambda: 2**63, "E_VALUE"),
    BadResult("2^64", lambda: 2**64, "E_VALUE"),
    BadResult("-2^63 - 1", lambda: -(2**63) - 1, "E_VALUE"),
    BadResult("a huge decimal", lambda: Decimal("1e1000000"), "E_VALUE"),
    BadResult("a complex number", lambda: 1j, "E_VALUE"),
    BadResult("a key that is a number", lambda: {1: 2}, "E_VALUE"),
    BadResult("keys 1, true and 1.0", lambda: [{1: 1}, {True: 1}, {1.0: 1}], "E_VALUE"),
    BadResult("a set", lambda: {1, 2}, "E_VALUE"),
    BadResult("an object", object, "E_VALUE"),
    BadResult("a function", lambda: len, "E_VALUE"),
    BadResult("a generator", lambda: (n for n in range(3)), "E_VALUE"),
    BadResult("an exception", lambda: ValueError("x"), "E_VALUE"),
    BadResult("an extension", lambda: ormsgpack.Ext(1, b"x"), "E_EXT"),
    BadResult("33 deep", lambda: nested(DEPTH_MAX + 1), "E_LIMIT"),
    BadResult("257 deep", lambda: nested(257), "E_LIMIT"),
    BadResult("100,000 deep", lambda: nested(100_000), "E_LIMIT"),
    BadResult("a list that contains itself", _circular, "E_LIMIT"),
    BadResult("a text beyond 256 KiB", lambda: "x" * (STRING_BYTES_MAX + 1), "E_LIMIT"),
    BadResult("bytes beyond 256 KiB", lambda: b"x" * (STRING_BYTES_MAX + 1), "E_LIMIT"),
    BadResult("too many bytes", lambda: [b"x" * STRING_BYTES_MAX] * (RESULT_BYTES_MAX // STRING_BYTES_MAX), "E_LIMIT"),
]


def refusal(bad: BadRecord | BadResult) -> SchemaError:
    """What it is refused with. Anything else that is raised is a bug and goes on; so does its acceptance."""
    value = bad.make()
    try:
        if isinstance(bad, BadRecord):
            decode_task(value)
        else:
            encode_payload(value)
    except SchemaError as error:
        return error
    raise AssertionError(f"accepted: {bad.name}")


def refusal_ms(bad: BadRecord | BadResult) -> float:
    """How long the refusal takes: of the processor's time, the best of many, so that a busy machine does not decide.

    The codec waits for nothing, so what it takes of the processor is all it takes. That still doubles while a neighbour
    has the other half of the core; once it stayed below the limit it has shown that it can.
    """
    value = bad.make()
    code: Callable[[Any], object] = decode_task if isinstance(bad, BadRecord) else encode_payload
    best = float("inf")
    deadline = time.monotonic() + _TRY_S
    while best >= REFUSAL_MS_MAX and time.monotonic() < deadline:
        started = time.thread_time()
        with contextlib.suppress(SchemaError):
            code(value)
        best = min(best, (time.thread_time() - started) * 1000)
    return best


def violations(bad: BadRecord | BadResult) -> list[str]:
    """How it is not refused as it should be."""
    found = []
    error = refusal(bad)
    if error.code != bad.code:
        found.append(f"{error.code} in place of {bad.code}")
    if isinstance(bad, BadRecord) and not error.path.startswith(bad.path):
        found.append(f"at {error.path} in place of {bad.path}")
    if not str(error).isprintable():
        found.append(f"its message has characters that a terminal obeys: {error!s:.200}")
    if (taken_ms := refusal_ms(bad)) >= REFUSAL_MS_MAX:
        found.append(f"{taken_ms:.0f} ms")
    if decode_task(encode_task(TASK)) != TASK:
        found.append("a good record after it does not decode")
    return found


def _most_resident_bytes() -> int:
    """The most memory that this process ever had. It sees what an extension takes past Python's own allocator."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts what the parent had at the fork into ru_maxrss; this it does not.
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    bad = 0

    def complain(name: str, what: str) -> None:
        nonlocal bad
        bad += 1
        print(f"{name}: {what}", file=sys.stderr)

    before = _most_resident_bytes()
    cases: list[BadRecord | BadResult] = [*BAD_RECORDS, *BAD_RESULTS]
    for case in cases:
        for violation in violations(case):
            complain(case.name, violation)
        if _most_resident_bytes() - before > EXTRA_BYTES_MAX:
            complain(case.name, f"more than {EXTRA_BYTES_MAX} bytes of memory, with all before it")
            before = _most_resident_bytes()
    grown = _most_resident_bytes() - before
    for odd in ODD_RECORDS:
        if decode_task(odd.make()).arg != odd.arg():
            complain(odd.name, "did not come back as it was")
    print(f"corpus: records={len(cases) + len(ODD_RECORDS)} violations={bad} resident_kib={grown // 1024}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
