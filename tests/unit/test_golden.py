"""Records of every version that was ever written decode to the same tasks for ever.

The files are never rewritten. A new version, or a case worth keeping, is added to RECORDS under a new name and written
by `python -m tests.unit.test_golden`, which leaves existing files alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanfold_schemas import FOLD_INDEX, FanOut, Task, arg_hash, decode_payload, decode_task, encode_payload, encode_task

FOLDER = Path(__file__).parents[1] / "golden"

# name -> (the task, its fingerprint as it is kept in databases)
RECORDS: dict[str, tuple[Task, int]] = {
    "v1_minimal": (
        Task("6f1c0d1e-0000-5000-8000-000000000001", "thread-1", FanOut("fan-out-1", 1), 0, "work"),
        6604548260717398625,
    ),
    "v1_everything": (
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
    "v1_fold": (
        Task("fold-1", "thread-1", FanOut("fan-out-1", 3, fold="sum"), FOLD_INDEX, "sum", None, {"main": 4}, run=2),
        -7318804110082290387,
    ),
}

RESULTS: dict[str, Any] = {
    "v1_result": {"count": 3, "names": ["a", "b"], "share": 0.25, "raw": b"\x00\x01", "none": None},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_old_decodes_to_the_same_task(name: str) -> None:
    task, fingerprint = RECORDS[name]
    decoded = decode_task((FOLDER / f"{name}.bin").read_bytes())
    assert decoded == task
    assert arg_hash(decoded) == fingerprint


@pytest.mark.parametrize("name", [name for name in RECORDS if name.startswith("v1_")])
def test_the_current_version_still_writes_the_same_bytes(name: str) -> None:
    assert encode_task(RECORDS[name][0]) == (FOLDER / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", RESULTS)
def test_a_stored_result_of_old_decodes_to_the_same_value(name: str) -> None:
    assert decode_payload((FOLDER / f"{name}.bin").read_bytes()) == RESULTS[name]


def test_no_golden_file_is_without_its_record() -> None:
    assert {path.stem for path in FOLDER.glob("*.bin")} == {*RECORDS, *RESULTS}


def write_missing() -> None:
    """Write the files that are not there yet."""
    encoded = {name: encode_task(task) for name, (task, _) in RECORDS.items()}
    encoded |= {name: encode_payload(value) for name, value in RESULTS.items()}
    for name, data in encoded.items():
        path = FOLDER / f"{name}.bin"
        if not path.exists():
            path.write_bytes(data)


if __name__ == "__main__":
    write_missing()
