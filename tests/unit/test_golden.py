"""Bytes of every version that was ever written mean the same for ever, to old readers and to new ones."""

from __future__ import annotations

from typing import Any

import msgspec
import ormsgpack
import pytest

from fanfold_schemas import (
    FanOut,
    SchemaError,
    Task,
    arg_hash,
    decode_payload,
    decode_task,
    encode_check,
    encode_payload,
    encode_task,
    pack_headers,
    payload_check,
    task_headers,
    unpack_headers,
    with_run,
)
from tests.unit.golden_records import CHECKS, FOLDER, HEADERS, RECORDS, RESULTS, SUMS, sums_line
from tests.unit.wire import record_with, refusal

OURS = [name for name, golden in RECORDS.items() if golden.foreign is None]
FOREIGN = [name for name, golden in RECORDS.items() if golden.foreign is not None]


def golden_bytes(name: str) -> bytes:
    return (FOLDER / f"{name}.bin").read_bytes()


def golden_fields(name: str) -> dict[str, Any]:
    found: dict[str, Any] = ormsgpack.unpackb(golden_bytes(name))
    return found


class TestTheFiles:
    def test_none_was_changed_or_removed(self) -> None:
        kept = SUMS.read_text().splitlines()
        assert kept == [sums_line(FOLDER / line.split("  ")[1]) for line in kept]
        assert {line.split("  ")[1] for line in kept} == {path.name for path in FOLDER.iterdir() if path != SUMS}

    def test_each_is_one_that_the_tests_below_read(self) -> None:
        assert {path.stem for path in FOLDER.glob("*.bin")} == {*RECORDS, *RESULTS, *CHECKS, *HEADERS}

    def test_every_field_that_we_write_is_in_one_of_them(self) -> None:
        records = [golden_fields(name) for name in OURS]
        assert {name for record in records for name in record} == {field.name for field in msgspec.structs.fields(Task)}
        fan_outs = [record["fan_out"] for record in records]
        assert {name for fan_out in fan_outs for name in fan_out} == {f.name for f in msgspec.structs.fields(FanOut)}

    @pytest.mark.parametrize("name", RECORDS)
    def test_a_record_decodes_to_the_same_task_with_the_same_fingerprint(self, name: str) -> None:
        decoded = decode_task(golden_bytes(name))
        assert decoded == RECORDS[name].task
        assert arg_hash(decoded) == RECORDS[name].fingerprint

    @pytest.mark.parametrize("name", OURS)
    def test_its_task_is_still_written_as_the_same_bytes(self, name: str) -> None:
        assert encode_task(RECORDS[name].task) == golden_bytes(name)

    @pytest.mark.parametrize("name", FOREIGN)
    def test_a_record_of_another_writer_is_not_what_we_would_write(self, name: str) -> None:
        assert golden_bytes(name) == RECORDS[name].foreign
        assert golden_bytes(name) != encode_task(RECORDS[name].task)

    @pytest.mark.parametrize("name", RESULTS)
    def test_a_stored_result_is_read_and_written_the_same(self, name: str) -> None:
        assert decode_payload(golden_bytes(name)) == RESULTS[name]
        assert encode_payload(RESULTS[name]) == golden_bytes(name)

    @pytest.mark.parametrize("name", CHECKS)
    def test_the_claim_check_of_a_stored_result_is_read_and_written_the_same(self, name: str) -> None:
        assert payload_check(golden_bytes(name)) == CHECKS[name]
        assert encode_check(CHECKS[name]) == golden_bytes(name)

    @pytest.mark.parametrize("name", HEADERS)
    def test_stored_headers_are_read_and_written_the_same(self, name: str) -> None:
        golden = HEADERS[name]
        assert unpack_headers(golden_bytes(name)) == golden.headers
        assert pack_headers(golden.headers) == golden_bytes(name)
        assert golden.task is None or task_headers(golden.task) == golden.headers


class FirstFanOut(msgspec.Struct):
    id: str
    size: int
    fold: str | None = None
    quorum: int | None = None
    deadline_ms: int | None = None
    max_failures: int | None = None
    on_deadline: str | None = None


class FirstClaimCheck(msgspec.Struct):
    sha256: str
    bytes: int


class FirstTask(msgspec.Struct):
    """What the first release reads. It is never changed: members of that release may still run."""

    v: int
    task_id: str
    thread_id: str
    fan_out: FirstFanOut
    index: int
    node: str
    arg: Any = None
    base: dict[str, int] = {}
    run: int = 1
    attempt: int = 1
    arg_check: FirstClaimCheck | None = None


class TestOldReaders:
    @pytest.mark.parametrize("name", OURS)
    def test_the_first_reader_finds_in_todays_records_what_is_in_them(self, name: str) -> None:
        task = RECORDS[name].task
        read = msgspec.convert(ormsgpack.unpackb(encode_task(task)), FirstTask)
        assert is_within(msgspec.to_builtins(read), msgspec.to_builtins(task))


def is_within(part: Any, whole: Any) -> bool:
    """Whether `whole` is `part` with more fields, on any level."""
    if not isinstance(part, dict):
        return bool(part == whole)
    return all(name in whole and is_within(value, whole[name]) for name, value in part.items())


class TestNewWriters:
    def test_a_field_that_we_do_not_know_keeps_to_the_rules_all_the_same(self) -> None:
        assert refusal(record_with(newer=float("nan"))) == ("E_VALUE", "$.newer")
        assert refusal(record_with(newer=ormsgpack.Ext(1, b"x")))[0] == "E_EXT"

    def test_a_field_that_we_do_know_is_not_taken_in_another_type(self) -> None:
        assert refusal(record_with(attempt={"number": 1, "of": 3})) == ("E_SCHEMA", "$.attempt")

    def test_another_run_keeps_all_that_we_do_not_know(self) -> None:
        before = golden_fields("v1_newer_writer")
        after = ormsgpack.unpackb(with_run(golden_bytes("v1_newer_writer"), 5))
        assert after == {**before, "run": 5, "attempt": 1}

    @pytest.mark.parametrize("name", RECORDS)
    def test_another_run_is_the_same_task_with_the_same_fingerprint(self, name: str) -> None:
        task = decode_task(with_run(golden_bytes(name), 5))
        assert task == msgspec.structs.replace(RECORDS[name].task, run=5, attempt=1)
        assert arg_hash(task) == RECORDS[name].fingerprint

    @pytest.mark.parametrize("record", [b"\xc1", record_with(v=2), record_with(index=3)])
    def test_another_run_of_what_is_no_task_is_refused(self, record: bytes) -> None:
        with pytest.raises(SchemaError):
            with_run(record, 2)

    def test_a_newer_version_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(SchemaError) as caught:
            decode_task(record_with(v=2))
        assert (caught.value.code, caught.value.path) == ("E_SCHEMA", "$.v")
        assert caught.value.detail == (
            "version 2, this reader knows 1: upgrade the consumers before the producers, then send the record again"
        )

    @pytest.mark.parametrize("version", [0, -1, "2", 2.0, None, [2]], ids=repr)
    def test_what_is_no_newer_version_asks_for_no_upgrade(self, version: Any) -> None:
        with pytest.raises(SchemaError) as caught:
            decode_task(record_with(v=version))
        assert caught.value.detail == f"version {version!r}, a record of this format has 1"

    def test_a_newer_version_may_be_made_of_other_fields_entirely(self) -> None:
        assert refusal(ormsgpack.packb({"v": 2, "tasks": [{"id": "a"}, {"id": "b"}]})) == ("E_SCHEMA", "$.v")
