"""What is in the golden files: the bytes of every version of the wire, kept for ever.

A file is never rewritten. A new version, or a case worth keeping, is added here under a new name, and written together
with its line in SHA256SUMS by `python -m tests.unit.golden_records`, which leaves existing files alone.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import ormsgpack

from fanfold_schemas import (
    FOLD_INDEX,
    ClaimCheck,
    FanOut,
    Task,
    claim_check_for,
    encode_check,
    encode_payload,
    encode_task,
    pack_headers,
    task_headers,
)

FOLDER = Path(__file__).parents[1] / "golden"
SUMS = FOLDER / "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Golden:
    """A record: what it decodes to, and the fingerprint of that as it is kept in databases.

    Attributes:
        foreign: how another writer wrote it; none: it is what we write.
    """

    task: Task
    fingerprint: int
    foreign: bytes | None = None


@dataclass(frozen=True, slots=True)
class GoldenHeaders:
    """Headers as the outbox and the dead letters keep them; `task`: whose they are, if we wrote them."""

    headers: list[tuple[str, bytes | None]]
    task: Task | None = None


TASK = Task("task-1", "thread-1", FanOut("fan-out-1", 3), 1, "work", {"x": 1, "y": [2.5, "three", b"\x04"]})
_MINIMAL = Task("6f1c0d1e-0000-5000-8000-000000000001", "thread-1", FanOut("fan-out-1", 1), 0, "work")
_FOLD = Task("fold-1", "thread-1", FanOut("fan-out-1", 3, fold="sum"), FOLD_INDEX, "sum", None, {"main": 4}, run=2)
_CHECK = claim_check_for(b"\xa3arg")


def _with(**changes: Any) -> Task:
    return msgspec.structs.replace(TASK, **changes)


def _fan_out(**options: Any) -> Task:
    return _with(fan_out=FanOut("fan-out-1", 3, **options))


def longest(value: Any) -> bytes:
    """msgpack in its longest forms, which the specification allows and some encoders write."""
    if isinstance(value, dict):
        pairs = [longest(key) + longest(item) for key, item in value.items()]
        return b"\xdf" + len(value).to_bytes(4, "big") + b"".join(pairs)
    if isinstance(value, list):
        return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(longest, value))
    if isinstance(value, str):
        return b"\xdb" + len(value.encode()).to_bytes(4, "big") + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + len(value).to_bytes(4, "big") + value
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    assert type(value) is int
    return b"\xd3" + value.to_bytes(8, "big", signed=True)


_FIELDS: dict[str, Any] = {
    "v": 1,
    "task_id": "task-1",
    "thread_id": "thread-1",
    "fan_out": {"id": "fan-out-1", "size": 3},
    "index": 1,
    "node": "work",
    "arg": TASK.arg,
}
_NILS = {"fold": None, "quorum": None, "deadline_ms": None}
_NEWER: dict[str, Any] = {
    "priority": 9,
    **_FIELDS,
    "fan_out": {"shape": {"rows": [1, 2, 3]}, **_FIELDS["fan_out"], "label": None},
    "trace": {"v": 2, "task_id": "not-this-one", "flags": b"\x00"},
}

_ASKED = -6195100754754751927
_NOTHING_ASKED = 6604548260717398625

RECORDS: dict[str, Golden] = {
    "v1_minimal": Golden(_MINIMAL, _NOTHING_ASKED),
    "v1_everything": Golden(
        Task(
            "task:1.a-b_c",
            "thread-1",
            FanOut("fan-out-1", 100_000, fold="sum", quorum=99_999, deadline_ms=1_900_000_000_000),
            99_999,
            "pkg.work",
            {
                "text": "naïve ✓ 漢字",
                "bytes": b"\x00\xff",
                "ints": [0, -1, 127, 128, -129, 65_536, 2**63 - 1, -(2**63)],
                "floats": [0.5, -1e300],
                "flags": [True, False, None],
                "nested": {"empty list": [], "empty map": {}},
            },
            {"": 1, "main": 2**63 - 1, "sub|task:1": 7},
            run=3,
            attempt=2,
        ),
        8999736244660825861,
    ),
    "v1_fold": Golden(_FOLD, -7318804110082290387),
    "v1_arg": Golden(TASK, _ASKED),
    "v1_base": Golden(_with(base={"main": 4, "": 0}), _ASKED),
    "v1_arg_check": Golden(_with(arg=None, arg_check=_CHECK), -6308927341965092984),
    "v1_run": Golden(_with(run=2**31 - 1), _ASKED),
    "v1_attempt": Golden(_with(attempt=7), _ASKED),
    "v1_fan_out_fold": Golden(_fan_out(fold="collect"), _ASKED),
    "v1_fan_out_quorum": Golden(_fan_out(quorum=2), _ASKED),
    "v1_fan_out_deadline": Golden(_fan_out(deadline_ms=1_900_000_000_000), _ASKED),
    "v1_fan_out_on_deadline": Golden(_fan_out(deadline_ms=1_900_000_000_000, on_deadline="fold"), _ASKED),
    "v1_fan_out_max_failures": Golden(_fan_out(max_failures=0), _ASKED),
    "v1_other_encoder": Golden(TASK, _ASKED, longest(dict(reversed(_FIELDS.items())))),
    "v1_nils": Golden(
        _with(arg=None),
        _NOTHING_ASKED,
        ormsgpack.packb({**_FIELDS, "arg": None, "fan_out": {**_FIELDS["fan_out"], **_NILS}}),
    ),
    "v1_newer_writer": Golden(TASK, _ASKED, ormsgpack.packb(_NEWER)),
}

RESULTS: dict[str, Any] = {
    "v1_result": {"count": 3, "names": ["a", "b"], "share": 0.25, "raw": b"\x00\x01", "none": None},
}

CHECKS: dict[str, ClaimCheck] = {"v1_result_check": _CHECK}
"""Results whose values are in the claim store."""

HEADERS: dict[str, GoldenHeaders] = {
    "v1_headers": GoldenHeaders(
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"task-1"),
            ("ce_source", b"fanfold"),
            ("ce_type", b"fanfold.task.v1"),
            ("content-type", b"application/vnd.fanfold.task+msgpack; version=1"),
            ("fanfold-thread-id", b"thread-1"),
            ("fanfold-fan-out-id", b"fan-out-1"),
            ("fanfold-node", b"work"),
            ("fanfold-run", b"1"),
        ],
        TASK,
    ),
    "v1_headers_fold": GoldenHeaders(
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"fold-1"),
            ("ce_source", b"fanfold"),
            ("ce_type", b"fanfold.fold.v1"),
            ("content-type", b"application/vnd.fanfold.task+msgpack; version=1"),
            ("fanfold-thread-id", b"thread-1"),
            ("fanfold-fan-out-id", b"fan-out-1"),
            ("fanfold-node", b"sum"),
            ("fanfold-run", b"2"),
        ],
        _FOLD,
    ),
    "v1_headers_newer_writer": GoldenHeaders(
        [
            ("ce_id", b"task-1"),
            ("fanfold-priority", b"9"),
            ("fanfold-priority", b""),
            ("raw", b"\x00\xff"),
            ("no", None),
        ]
    ),
}


def encoded() -> dict[str, bytes]:
    """{name: bytes} of all of them, as they are made today."""
    made = {name: golden.foreign or encode_task(golden.task) for name, golden in RECORDS.items()}
    made |= {name: encode_payload(value) for name, value in RESULTS.items()}
    made |= {name: encode_check(check) for name, check in CHECKS.items()}
    for name, golden in HEADERS.items():
        made[name] = pack_headers(golden.headers if golden.task is None else task_headers(golden.task))
    return made


def sums_line(path: Path) -> str:
    """As `sha256sum` prints it."""
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"


def write_missing() -> None:
    """Write the files that are not there yet, and their lines."""
    lines = SUMS.read_text().splitlines() if SUMS.exists() else []
    for name, data in encoded().items():
        path = FOLDER / f"{name}.bin"
        if not path.exists():
            path.write_bytes(data)
        if not any(line.endswith(f"  {path.name}") for line in lines):
            lines.append(sums_line(path))
    SUMS.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    write_missing()
