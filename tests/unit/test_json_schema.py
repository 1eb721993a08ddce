"""The JSON Schema for producers in other languages says what the codec does, as far as a schema can."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import msgspec
import ormsgpack
import pytest
from click.testing import CliRunner
from jsonschema_rs import Draft202012Validator

from fanfold_consumer.cli import cli
from fanfold_schemas import FanOut, SchemaError, Task, decode_task
from fanfold_schemas.json_schema import _ABOUT, DIALECT, task_schema, task_schema_text
from fanfold_schemas.limits import BRANCH_CHARS_MAX, BRANCHES_MAX, FAN_OUT_SIZE_MAX, INT64_MAX, RUN_MAX
from tests.support.tree import ROOT
from tests.unit.golden_records import FOLDER, RECORDS

FILE = ROOT / "docs/schema/task.v1.json"
VALIDATOR = Draft202012Validator(task_schema())

WHOLE: dict[str, Any] = {
    "v": 1,
    "task_id": "task-1",
    "thread_id": "thread-1",
    "fan_out": {"id": "fan-out-1", "size": 3, "fold": "sum", "quorum": 2, "deadline_ms": 1_900_000_000_000},
    "index": 2,
    "node": "work",
    "arg": {"x": 1},
    "base": {"main": 4},
    "run": 1,
    "attempt": 1,
}
CLAIMED: dict[str, Any] = {**WHOLE, "arg_check": {"sha256": "0" * 64, "bytes": 1}}
del CLAIMED["arg"]
FOLD: dict[str, Any] = {**WHOLE, "index": -1, "node": "sum"}
LEFT_OUT = object()

NUMBERS = [
    *(-2, -1, 0, 1, 2, 3, 4, FAN_OUT_SIZE_MAX - 1, FAN_OUT_SIZE_MAX, FAN_OUT_SIZE_MAX + 1),
    *(RUN_MAX, RUN_MAX + 1, 64 * 1024 * 1024, 64 * 1024 * 1024 + 1, INT64_MAX, INT64_MAX + 1, 1.0, 1.5, -0.0),
]
TEXTS = [
    *("", "a", "sum", "a b", "a\n", "\na", "é", "a/b", "1", "a.b:c_d-e", "x" * 200, "x" * 201),
    *("0" * 63, "0" * 64, "0" * 65, "f" * 64, "F" * 64, "g" * 64),
]
CLOCKS = [
    *({"": 0}, {"main": INT64_MAX}, {"main": INT64_MAX + 1}, {"main": -1}, {"main": True}, {"main": "1"}),
    *({"main": None}, {"main": 1.0}, {"x" * BRANCH_CHARS_MAX: 1}, {"x" * (BRANCH_CHARS_MAX + 1): 1}),
    *({"漢" * BRANCH_CHARS_MAX: 1}, {"a\0": 1}, {"a\nb": 1}),
    *({f"b{n}": n for n in range(count)} for count in (BRANCHES_MAX, BRANCHES_MAX + 1)),
]
OTHERS = [LEFT_OUT, None, True, False, [], [1], {}, {"id": "f"}, {"id": "f", "size": 1}, {"sha256": "0" * 64}]


def as_json(value: Any) -> Any:
    """A record's map as a validator of JSON can be given it: bytes have no type there, and only `arg` may hold any."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def paths(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """All fields of a record, those of the maps that we know included."""
    found: list[tuple[str, ...]] = [(name,) for name in record if name != "arg"]
    return found + [(name, inner) for name in ("fan_out", "arg_check") if name in record for inner in record[name]]


def changed(record: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    record = copy.deepcopy(record)
    *outer, last = path
    place = record[outer[0]] if outer else record
    if value is LEFT_OUT:
        del place[last]
    else:
        place[last] = value
    return record


def is_task(record: dict[str, Any]) -> bool:
    try:
        decode_task(ormsgpack.packb(record))
    except SchemaError:
        return False
    return True


def index_outside(record: dict[str, Any]) -> bool:
    return bool(record["index"] >= record["fan_out"]["size"])


def quorum_above_size(record: dict[str, Any]) -> bool:
    return bool((record["fan_out"].get("quorum") or 0) > record["fan_out"]["size"])


def fold_of_another_node(record: dict[str, Any]) -> bool:
    return bool(record["index"] == -1 and record["node"] != record["fan_out"]["fold"])


def whole_float(record: dict[str, Any]) -> bool:
    """To JSON, 1.0 is an integer."""
    numbers = [*record.values(), *record["fan_out"].values(), *record.get("base", {}).values()]
    numbers += (record.get("arg_check") or {}).values()
    return any(isinstance(number, float) and number.is_integer() for number in numbers)


UNSAYABLE: list[Callable[[dict[str, Any]], bool]] = [
    index_outside,
    quorum_above_size,
    fold_of_another_node,
    whole_float,
]
"""Why the codec may refuse what the schema takes. The schema's description lists them for its readers."""


class TestTheFile:
    def test_it_is_what_the_types_give(self) -> None:
        assert FILE.read_text() == task_schema_text(), "run: fanfold schema > docs/schema/task.v1.json"

    def test_the_command_prints_it(self) -> None:
        assert CliRunner().invoke(cli, ["schema"]).output == FILE.read_text()

    def test_it_is_a_schema_of_its_dialect(self) -> None:
        schema = json.loads(FILE.read_text())
        assert schema["$schema"] == DIALECT
        assert Draft202012Validator(schema).is_valid(WHOLE)

    def test_every_field_is_explained_and_no_other(self) -> None:
        types: list[type[msgspec.Struct]] = [Task, FanOut]
        names = {f"{of.__name__}.{field.name}" for of in types for field in msgspec.structs.fields(of)}
        assert {name for name in _ABOUT if name.startswith(("Task.", "FanOut."))} == names


class TestGoodRecords:
    @pytest.mark.parametrize("name", RECORDS)
    def test_every_golden_record_is_valid(self, name: str) -> None:
        VALIDATOR.validate(as_json(ormsgpack.unpackb((FOLDER / f"{name}.bin").read_bytes())))

    @pytest.mark.parametrize("record", [WHOLE, CLAIMED, FOLD], ids=["task", "claim check", "fold"])
    def test_the_records_that_are_broken_below_are_good(self, record: dict[str, Any]) -> None:
        assert is_task(record)
        VALIDATOR.validate(record)


class TestBrokenRecords:
    """Each field in turn is left out, or has every value that some other field could have."""

    @pytest.mark.parametrize("record", [WHOLE, CLAIMED, FOLD], ids=["task", "claim check", "fold"])
    def test_the_schema_refuses_what_the_codec_refuses_and_nothing_else(self, record: dict[str, Any]) -> None:
        differing = []
        for path in paths(record):
            for value in [*NUMBERS, *TEXTS, *CLOCKS, *OTHERS]:
                broken = changed(record, path, value)
                if is_task(broken) != VALIDATOR.is_valid(broken) and not (
                    VALIDATOR.is_valid(broken) and any(reason(broken) for reason in UNSAYABLE)
                ):
                    differing.append((path, value))
        assert not differing

    @pytest.mark.parametrize(
        ("reason", "record"),
        [
            (index_outside, changed(WHOLE, ("index",), 3)),
            (quorum_above_size, changed(WHOLE, ("fan_out", "quorum"), 4)),
            (fold_of_another_node, changed(FOLD, ("node",), "max")),
            (whole_float, changed(WHOLE, ("run",), 1.0)),
        ],
    )
    def test_what_no_schema_can_say_is_refused_by_the_codec(
        self, reason: Callable[[dict[str, Any]], bool], record: dict[str, Any]
    ) -> None:
        assert reason(record)
        assert VALIDATOR.is_valid(record)
        assert not is_task(record)

    def test_an_arg_and_a_claim_check_for_it_are_refused_by_both(self) -> None:
        both = {**CLAIMED, "arg": 1}
        assert not is_task(both)
        assert not VALIDATOR.is_valid(both)
