"""The strict codec: everything beyond a limit is refused with its code, its path and the limit."""

from __future__ import annotations

from typing import Any

import ormsgpack
import pytest

from fanfold_schemas import (
    FOLD_INDEX,
    SchemaError,
    decode_task,
    encode_task,
)
from fanfold_schemas.limits import (
    DEPTH_MAX,
    FAN_OUT_SIZE_MAX,
    INT64_MAX,
    INT64_MIN,
    NODES_MAX,
    RECORD_BYTES_MAX,
    RUN_MAX,
    STRING_BYTES_MAX,
)
from tests.unit.wire import TASK, fields, nested, record_with, record_with_raw_arg, refusal


class TestFraming:
    @pytest.mark.parametrize("record", [None, b""], ids=["no value", "empty"])
    def test_nothing_is_no_record(self, record: bytes | None) -> None:
        assert refusal(record) == ("E_FRAME", "$")

    @pytest.mark.parametrize("value", [1, "text", None, [1], [], True], ids=repr)
    def test_a_record_is_a_map(self, value: Any) -> None:
        assert refusal(ormsgpack.packb(value)) == ("E_FRAME", "$")

    @pytest.mark.parametrize("tail", [b"\x00", b"\x80", b"garbage"])
    def test_trailing_bytes_are_refused(self, tail: bytes) -> None:
        with pytest.raises(SchemaError, match=f"{len(tail)} trailing bytes"):
            decode_task(encode_task(TASK) + tail)

    def test_two_records_in_one_value_are_refused(self) -> None:
        assert refusal(encode_task(TASK) * 2) == ("E_FRAME", "$")

    def test_a_duplicate_field_is_refused(self) -> None:
        given = ormsgpack.packb(fields())
        twice = bytes([given[0] + 1]) + given[1:] + ormsgpack.packb("index") + ormsgpack.packb(1)
        with pytest.raises(SchemaError, match="duplicate key index"):
            decode_task(twice)

    @pytest.mark.parametrize(
        "pair",
        [
            b"\xa1a\x01\xa1a\x01",
            b"\xa1a\x01\xd9\x01a\x01",
            b"\xa1a\x01\xda\x00\x01a\x01",
            b"\xa1a\x01\xdb\0\0\0\x01a\x01",
        ],
        ids=["same form", "str 8", "str 16", "str 32"],
    )
    def test_a_duplicate_key_deep_in_the_arg_is_refused_in_whatever_form_it_is_written(self, pair: bytes) -> None:
        assert refusal(record_with_raw_arg(b"\x91\x82" + pair)) == ("E_FRAME", "$.arg")

    @pytest.mark.parametrize("key", [b"\x01", b"\xc0", b"\xc4\x01a", b"\x90", b"\x80", b"\xcb" + b"\0" * 8], ids=repr)
    def test_a_key_that_is_no_text_is_refused(self, key: bytes) -> None:
        assert refusal(record_with_raw_arg(b"\x81" + key + b"\x01"))[0] == "E_FRAME"

    def test_text_that_is_no_utf8_is_refused(self) -> None:
        assert refusal(record_with_raw_arg(b"\xa2\xff\xfe")) == ("E_FRAME", "$")
        assert refusal(record_with_raw_arg(b"\xa3\xed\xa0\x80")) == ("E_FRAME", "$")

    def test_the_byte_that_msgpack_never_uses_is_refused(self) -> None:
        assert refusal(record_with_raw_arg(b"\xc1")) == ("E_FRAME", "$.arg")

    @pytest.mark.parametrize(
        "announced",
        [
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xdc\xff\xff",
        ],
        ids=["array", "map", "text", "bytes", "array 16"],
    )
    def test_lengths_that_are_announced_and_not_there_cost_nothing(self, announced: bytes) -> None:
        assert refusal(record_with_raw_arg(announced))[0] in ("E_FRAME", "E_LIMIT")

    @pytest.mark.parametrize(
        "extension",
        [b"\xd4\x01x", b"\xd5\x01xx", b"\xd6\xff\0\0\0\0", b"\xd7\xff" + b"\0" * 8, b"\xd8\x01" + b"x" * 16,
         b"\xc7\x01\x01x", b"\xc8\x00\x01\x01x", b"\xc9\x00\x00\x00\x01\x01x"],
        ids=["fixext 1", "fixext 2", "timestamp 32", "timestamp 64", "fixext 16", "ext 8", "ext 16", "ext 32"],
    )  # fmt: skip
    def test_extension_types_are_refused(self, extension: bytes) -> None:
        assert refusal(record_with_raw_arg(extension)) == ("E_EXT", "$.arg")


class TestOtherLanguages:
    """Encoders elsewhere need not use the shortest forms, nor our order of fields."""

    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            (b"\xcc\x01", 1),
            (b"\xcd\x00\x01", 1),
            (b"\xce\x00\x00\x00\x01", 1),
            (b"\xcf" + b"\0" * 7 + b"\x01", 1),
            (b"\xd0\x01", 1),
            (b"\xd3" + b"\xff" * 8, -1),
            (b"\xca\x3f\x80\x00\x00", 1.0),
            (b"\xd9\x01a", "a"),
            (b"\xdb\x00\x00\x00\x01a", "a"),
            (b"\xc5\x00\x01a", b"a"),
            (b"\xdd\x00\x00\x00\x01\x01", [1]),
            (b"\xde\x00\x01\xa1a\x01", {"a": 1}),
            (b"\xdf\x00\x00\x00\x00", {}),
        ],
        ids=repr,
    )
    def test_longer_forms_mean_the_same(self, raw: bytes, value: Any) -> None:
        task = decode_task(record_with_raw_arg(raw))
        assert task.arg == value
        assert type(task.arg) is type(value)

    def test_the_order_of_fields_does_not_matter(self) -> None:
        assert decode_task(ormsgpack.packb(dict(reversed(fields().items())))) == TASK

    def test_fields_of_a_newer_writer_are_ignored(self) -> None:
        fan_out = {**fields()["fan_out"], "colour": "blue"}
        assert decode_task(record_with(priority=9, fan_out=fan_out)) == TASK

    def test_fields_with_a_default_may_be_left_out(self) -> None:
        given = {name: fields()[name] for name in ("v", "task_id", "thread_id", "fan_out", "index", "node")}
        task = decode_task(ormsgpack.packb(given))
        assert (task.arg, task.base, task.run, task.attempt) == (None, {}, 1, 1)

    def test_an_option_may_be_written_as_nil(self) -> None:
        nils = {"id": "fan-out-1", "size": 3, "fold": None, "quorum": None, "deadline_ms": None}
        assert decode_task(record_with(fan_out=nils)) == TASK


class TestLimits:
    def test_a_record_of_one_mebibyte_is_taken_and_one_byte_more_is_not(self) -> None:
        chunk = b"x" * (STRING_BYTES_MAX - 4096)
        short = len(record_with(arg=[chunk] * 4 + [b""]))
        exact = record_with(arg=[chunk] * 4 + [b"x" * (RECORD_BYTES_MAX - short - 1)])
        assert len(exact) in (RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1)
        exact = record_with(arg=[chunk] * 4 + [b"x" * (RECORD_BYTES_MAX - short - (len(exact) - RECORD_BYTES_MAX) - 1)])
        assert len(exact) == RECORD_BYTES_MAX
        assert decode_task(exact).arg[0] == chunk
        assert refusal(exact + b"\x00") == ("E_LIMIT", "$")
        with pytest.raises(SchemaError, match=f"a record of {RECORD_BYTES_MAX + 1} bytes, at most {RECORD_BYTES_MAX}"):
            decode_task(exact + b"\x00")

    def test_a_depth_of_32_is_taken_and_33_is_not(self) -> None:
        # The record itself is the first level.
        assert decode_task(record_with(arg=nested(DEPTH_MAX - 1))).arg == nested(DEPTH_MAX - 1)
        assert refusal(record_with(arg=nested(DEPTH_MAX)))[0] == "E_LIMIT"

    def test_a_depth_that_would_exhaust_the_stack_is_refused_all_the_same(self) -> None:
        for opening in (b"\x91", b"\x81\xa1a"):
            assert refusal(record_with_raw_arg(opening * 200_000 + b"\x01"))[0] == "E_LIMIT"

    def test_a_depth_of_33_in_longer_forms_is_refused(self) -> None:
        assert refusal(record_with_raw_arg(b"\xdc\x00\x01" * DEPTH_MAX + b"\x01"))[0] == "E_LIMIT"

    def test_100_000_values_are_taken_and_one_more_is_not(self) -> None:
        # The record's own values, keys included, count too; one of them is the arg's list.
        given = fields()
        others = 1 + 2 * len(given) + 2 * len(given["fan_out"])
        most = NODES_MAX - others
        assert len(decode_task(record_with(arg=[0] * most)).arg) == most
        assert refusal(record_with(arg=[0] * (most + 1))) == ("E_LIMIT", "$")

    def test_a_million_empty_lists_are_refused_before_they_are_built(self) -> None:
        count = 900_000
        assert refusal(record_with_raw_arg(b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count)) == ("E_LIMIT", "$")

    @pytest.mark.parametrize("kind", ["text", "wide text", "bytes"])
    def test_a_string_of_256_kib_is_taken_and_one_byte_more_is_not(self, kind: str) -> None:
        longest: str | bytes = {
            "text": "x" * STRING_BYTES_MAX,
            "wide text": "\N{EURO SIGN}" * (STRING_BYTES_MAX // 3) + "x" * (STRING_BYTES_MAX % 3),
            "bytes": b"x" * STRING_BYTES_MAX,
        }[kind]  # type: ignore[assignment]  # a union of dict values
        assert decode_task(record_with(arg=longest)).arg == longest
        longer: Any = longest + ("x" if isinstance(longest, str) else b"x")  # type: ignore[operator]
        assert refusal(record_with(arg=longer))[0] == "E_LIMIT"

    def test_a_key_beyond_256_kib_is_refused(self) -> None:
        assert refusal(record_with(arg={"x" * (STRING_BYTES_MAX + 1): 1}))[0] == "E_LIMIT"

    def test_a_limit_within_the_arg_is_refused_with_where_it_is(self) -> None:
        with pytest.raises(SchemaError) as caught:
            decode_task(record_with(arg={"inner": [{"deep": "a\0"}]}))
        assert caught.value.path == "$.arg.inner.deep"

    @pytest.mark.parametrize(
        ("changes", "path"),
        [
            ({"task_id": ""}, "$.task_id"),
            ({"task_id": "x" * 201}, "$.task_id"),
            ({"thread_id": "a/b"}, "$.thread_id"),
            ({"thread_id": "a\n"}, "$.thread_id"),
            ({"node": "a b"}, "$.node"),
            ({"fan_out": {"id": "é", "size": 3}}, "$.fan_out.id"),
            ({"fan_out": {"id": "f", "size": 0}}, "$.fan_out.size"),
            ({"fan_out": {"id": "f", "size": FAN_OUT_SIZE_MAX + 1}}, "$.fan_out.size"),
            ({"fan_out": {"id": "f", "size": 3, "fold": "a b"}}, "$.fan_out.fold"),
            ({"fan_out": {"id": "f", "size": 3, "quorum": 0}}, "$.fan_out.quorum"),
            ({"fan_out": {"id": "f", "size": 3, "deadline_ms": 0}}, "$.fan_out.deadline_ms"),
            ({"index": -2}, "$.index"),
            ({"index": FAN_OUT_SIZE_MAX}, "$.index"),
            ({"run": 0}, "$.run"),
            ({"run": RUN_MAX + 1}, "$.run"),
            ({"attempt": 0}, "$.attempt"),
            ({"base": {"a": -1}}, "$.base"),
            ({"base": {"x" * 513: 1}}, "$.base"),
            ({"base": {str(n): 1 for n in range(65)}}, "$.base"),
        ],
        ids=repr,
    )
    def test_a_field_beyond_its_limit_is_named(self, changes: dict[str, Any], path: str) -> None:
        assert refusal(record_with(**changes)) == ("E_LIMIT", path)


class TestValues:
    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=repr)
    def test_what_is_no_finite_number_is_refused(self, number: float) -> None:
        assert refusal(record_with(arg={"x": number})) == ("E_VALUE", "$.arg.x")

    def test_a_nan_in_four_bytes_is_refused(self) -> None:
        assert refusal(record_with_raw_arg(b"\xca\x7f\xc0\x00\x00"))[0] == "E_VALUE"

    @pytest.mark.parametrize("text", ["\0", "a\0b", "\0" * 9])
    def test_a_nul_in_text_is_refused_and_in_bytes_is_not(self, text: str) -> None:
        assert refusal(record_with(arg=text)) == ("E_VALUE", "$.arg")
        assert refusal(record_with(arg={text: 1})) == ("E_VALUE", "$.arg")
        assert decode_task(record_with(arg=text.encode())).arg == text.encode()

    def test_a_nul_in_a_branch_is_refused(self) -> None:
        assert refusal(record_with(base={"a\0": 1}))[0] == "E_VALUE"

    @pytest.mark.parametrize("number", [INT64_MIN, -1, 0, INT64_MAX])
    def test_int64_is_taken(self, number: int) -> None:
        assert decode_task(record_with(arg=number)).arg == number

    @pytest.mark.parametrize("number", [INT64_MAX + 1, 2**64 - 1])
    def test_an_unsigned_integer_beyond_int64_is_refused(self, number: int) -> None:
        assert refusal(record_with(arg=[number])) == ("E_VALUE", "$.arg")


class TestFields:
    @pytest.mark.parametrize("field", ["task_id", "thread_id", "fan_out", "index", "node"])
    def test_a_missing_field_is_named(self, field: str) -> None:
        given = fields()
        del given[field]
        with pytest.raises(SchemaError, match=f"missing required field `{field}`") as caught:
            decode_task(ormsgpack.packb(given))
        assert caught.value.code == "E_SCHEMA"

    @pytest.mark.parametrize(
        ("changes", "path"),
        [
            ({"task_id": 1}, "$.task_id"),
            ({"task_id": b"bytes"}, "$.task_id"),
            ({"thread_id": None}, "$.thread_id"),
            ({"fan_out": "f"}, "$.fan_out"),
            ({"fan_out": {"id": "f"}}, "$.fan_out"),
            ({"fan_out": {"id": "f", "size": "3"}}, "$.fan_out.size"),
            ({"fan_out": {"id": "f", "size": True}}, "$.fan_out.size"),
            ({"fan_out": {"id": "f", "size": 3.0}}, "$.fan_out.size"),
            ({"fan_out": {"id": "f", "size": 3, "quorum": True}}, "$.fan_out.quorum"),
            ({"index": "0"}, "$.index"),
            ({"index": False}, "$.index"),
            ({"index": 0.0}, "$.index"),
            ({"node": []}, "$.node"),
            ({"base": []}, "$.base"),
            ({"base": None}, "$.base"),
            ({"base": {"a": True}}, "$.base[...]"),
            ({"base": {"a": "1"}}, "$.base[...]"),
            ({"run": True}, "$.run"),
            ({"attempt": 1.5}, "$.attempt"),
        ],
        ids=repr,
    )
    def test_a_field_of_another_type_is_named_and_nothing_is_converted(
        self, changes: dict[str, Any], path: str
    ) -> None:
        assert refusal(record_with(**changes)) == ("E_SCHEMA", path)

    @pytest.mark.parametrize("version", [0, 2, True, 1.0, "1", None], ids=repr)
    def test_another_version_is_refused_not_guessed(self, version: Any) -> None:
        assert refusal(record_with(v=version)) == ("E_SCHEMA", "$.v")

    def test_a_record_without_a_version_is_refused(self) -> None:
        given = fields()
        del given["v"]
        assert refusal(ormsgpack.packb(given)) == ("E_SCHEMA", "$.v")

    @pytest.mark.parametrize("index", [3, 4, FAN_OUT_SIZE_MAX - 1])
    def test_an_index_outside_the_fan_out_is_refused(self, index: int) -> None:
        assert refusal(record_with(index=index)) == ("E_SCHEMA", "$.index")

    def test_a_quorum_above_the_size_is_refused(self) -> None:
        assert refusal(record_with(fan_out={"id": "f", "size": 3, "quorum": 4})) == ("E_SCHEMA", "$.fan_out.quorum")

    @pytest.mark.parametrize("fold", [None, "other"])
    def test_a_fold_task_runs_the_fold_of_its_fan_out_and_nothing_else(self, fold: str | None) -> None:
        fan_out = {"id": "f", "size": 3} | ({"fold": fold} if fold else {})
        assert refusal(record_with(fan_out=fan_out, index=FOLD_INDEX, node="sum")) == ("E_SCHEMA", "$.node")

    def test_a_refusal_never_shows_the_payload(self) -> None:
        secret = "s3cret" * 10
        for record in (
            record_with(arg=[secret, float("nan")]),
            record_with(arg={secret: "a\0"}),
            record_with(fan_out=secret),
        ):
            with pytest.raises(SchemaError) as caught:
                decode_task(record)
            assert secret not in caught.value.detail
