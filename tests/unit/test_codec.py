"""The strict codec: what goes in comes out, and what could not come out does not go in."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import ormsgpack
import pytest

from fanfold_schemas import (
    SchemaError,
    Send,
    Task,
    arg_hash,
    decode_payload,
    encode_payload,
    encode_task,
    to_send,
)
from fanfold_schemas.codec import SiblingEncoder
from fanfold_schemas.limits import (
    DEPTH_MAX,
    NODES_MAX,
    RECORD_BYTES_MAX,
    RESULT_BYTES_MAX,
    STRING_BYTES_MAX,
)
from tests.unit.wire import TASK, fields, nested, refusal


class TestRecords:
    def test_every_prefix_of_a_record_is_truncated(self) -> None:
        record = encode_task(TASK)
        for length in range(len(record)):
            assert refusal(record[:length]) == ("E_FRAME", "$")

    def test_options_that_are_not_given_are_not_on_the_wire(self) -> None:
        assert fields()["fan_out"] == {"id": "fan-out-1", "size": 3}


class TestEncoding:
    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"arg": {1: 2}}, "E_VALUE"),
            ({"arg": {1, 2}}, "E_VALUE"),
            ({"arg": object()}, "E_VALUE"),
            ({"arg": "\ud800"}, "E_VALUE"),
            ({"arg": 2**64}, "E_VALUE"),
            ({"arg": float("nan")}, "E_VALUE"),
            ({"arg": nested(5000)}, "E_LIMIT"),
            ({"arg": nested(DEPTH_MAX)}, "E_LIMIT"),
            ({"arg": ormsgpack.Ext(1, b"x")}, "E_EXT"),
            ({"arg": b"x" * RECORD_BYTES_MAX}, "E_LIMIT"),
            ({"index": 3}, "E_SCHEMA"),
            ({"thread_id": "a b"}, "E_LIMIT"),
        ],
        ids=lambda value: value if isinstance(value, str) else next(iter(value)),
    )
    def test_what_could_not_be_decoded_is_not_encoded(self, changes: dict[str, Any], code: str) -> None:
        with pytest.raises(SchemaError) as caught:
            encode_task(msgspec.structs.replace(TASK, **changes))
        assert caught.value.code == code


class TestResults:
    class Point(msgspec.Struct):
        x: int
        y: int

    @dataclass
    class Pair:
        left: int
        right: "TestResults.Pair | None" = None  # noqa: UP037  # the class is not there yet

    def test_records_become_maps(self) -> None:
        assert decode_payload(encode_payload([self.Point(1, 2), self.Pair(1, self.Pair(2))])) == [
            {"x": 1, "y": 2},
            {"left": 1, "right": {"left": 2, "right": None}},
        ]

    def test_a_pydantic_model_becomes_a_map(self) -> None:
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Model", x=(int, ...))
        assert decode_payload(encode_payload(model(x=1))) == {"x": 1}

    def test_tuples_become_lists_and_times_become_text(self) -> None:
        assert decode_payload(encode_payload((1, (2,)))) == [1, [2]]
        assert decode_payload(encode_payload(datetime(2024, 1, 2, tzinfo=UTC))) == "2024-01-02T00:00:00+00:00"

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            ({1, 2}, "E_VALUE"),
            (object(), "E_VALUE"),
            ({1: 2}, "E_VALUE"),
            ("\ud800", "E_VALUE"),
            ("a\0", "E_VALUE"),
            (float("inf"), "E_VALUE"),
            (2**63, "E_VALUE"),
            (nested(DEPTH_MAX + 1), "E_LIMIT"),
            (nested(5000), "E_LIMIT"),
            ("x" * (STRING_BYTES_MAX + 1), "E_LIMIT"),
            ([b"x" * STRING_BYTES_MAX] * (RESULT_BYTES_MAX // STRING_BYTES_MAX + 1), "E_LIMIT"),
            (ormsgpack.Ext(1, b"x"), "E_EXT"),
        ],
        ids=[
            "set",
            "object",
            "int key",
            "surrogate",
            "NUL",
            "infinity",
            "u64",
            "depth",
            "very deep",
            "text",
            "size",
            "ext",
        ],
    )
    def test_what_cannot_be_stored_is_refused_with_its_code(self, value: Any, code: str) -> None:
        with pytest.raises(SchemaError) as caught:
            encode_payload(value)
        assert caught.value.code == code

    def test_a_refusal_says_what_a_result_may_be(self) -> None:
        with pytest.raises(SchemaError, match="set; it takes maps with text keys, lists, text"):
            encode_payload({1})

    def test_a_result_may_be_wider_than_a_record(self) -> None:
        assert len(decode_payload(encode_payload(list(range(2 * NODES_MAX))))) == 2 * NODES_MAX

    @pytest.mark.parametrize("stored", [b"", b"\xc1", b"\xd4\x01x", b"\x92\x01"])
    def test_a_damaged_stored_result_is_refused(self, stored: bytes) -> None:
        with pytest.raises(SchemaError) as caught:
            decode_payload(stored)
        assert caught.value.code == "E_FRAME"


class TestTheFingerprint:
    def test_it_is_these_for_ever(self) -> None:
        # A fingerprint that changed would turn every redelivery of committed work into a conflict.
        assert arg_hash(TASK) == 8227929850130537673
        assert arg_hash(msgspec.structs.replace(TASK, arg=None)) == 6604548260717398625

    def test_the_order_of_keys_does_not_matter_at_any_depth(self) -> None:
        one = msgspec.structs.replace(TASK, arg={"a": [{"x": 1, "y": 2}], "b": 2})
        other = msgspec.structs.replace(TASK, arg={"b": 2, "a": [{"y": 2, "x": 1}]})
        assert arg_hash(one) == arg_hash(other)

    @pytest.mark.parametrize("arg", [{"x": 2}, {"x": 1.0}, {"x": True}, {"x": "1"}, {"y": 1}, [1], None, {}])
    def test_another_arg_has_another_fingerprint(self, arg: Any) -> None:
        assert arg_hash(msgspec.structs.replace(TASK, arg=arg)) != arg_hash(TASK)

    def test_another_handler_has_another_fingerprint_and_another_run_has_not(self) -> None:
        assert arg_hash(msgspec.structs.replace(TASK, node="other")) != arg_hash(TASK)
        rerun = msgspec.structs.replace(TASK, run=2, attempt=3, base={"a": 1}, task_id="other", index=2)
        assert arg_hash(rerun) == arg_hash(TASK)


class TestSiblings:
    """Those of `SiblingEncoder` after the first, which it does not decode."""

    ARGS: tuple[object, ...] = (
        None,
        True,
        0,
        -1,
        2**63 - 1,
        1.5,
        "é",
        b"\x00\xc1",
        [],
        {"a": [{"b": {}}]},
        "x" * 17_000,
        nested(DEPTH_MAX - 1),
    )
    BAD_ARGS: tuple[object, ...] = (
        float("nan"),
        float("inf"),
        2**63,
        "a\0",
        {"a\0": 1},
        {1: 2},
        nested(DEPTH_MAX),
        "\ud800",
        {1},
        "x" * (STRING_BYTES_MAX + 1),
        [0] * NODES_MAX,
        b"x" * RECORD_BYTES_MAX,
        [float("-inf")],
        {"a": [2**64 - 1]},
    )

    @pytest.mark.parametrize("arg", ARGS, ids=lambda arg: f"{arg!r:.20}")
    def test_a_sibling_is_written_as_it_would_be_alone(self, arg: object) -> None:
        encoder = SiblingEncoder()
        encoder.encode(TASK)
        sibling = msgspec.structs.replace(TASK, task_id="other", index=1, arg=arg)
        assert encoder.encode(sibling) == encode_task(sibling)

    @pytest.mark.parametrize("arg", BAD_ARGS, ids=lambda arg: f"{arg!r:.20}")
    def test_a_sibling_is_refused_as_it_would_be_alone(self, arg: object) -> None:
        encoder = SiblingEncoder()
        encoder.encode(TASK)
        sibling = msgspec.structs.replace(TASK, task_id="other", index=1, arg=arg)
        assert _refusal_of(encoder.encode, sibling) == _refusal_of(encode_task, sibling)

    @pytest.mark.parametrize(
        "changes",
        [
            {"index": 3},
            {"index": -1},
            {"task_id": "a b"},
            {"node": ""},
            {"thread_id": "a/b"},
            {"run": 0},
            {"attempt": 0},
            {"base": {"a": -1}},
        ],
        ids=str,
    )
    def test_what_is_a_siblings_own_is_checked(self, changes: dict[str, Any]) -> None:
        encoder = SiblingEncoder()
        encoder.encode(TASK)
        sibling = msgspec.structs.replace(TASK, **changes)
        assert _refusal_of(encoder.encode, sibling) == _refusal_of(encode_task, sibling)


def _refusal_of(encode: Callable[[Task], bytes], task: Task) -> tuple[str, str]:
    with pytest.raises(SchemaError) as caught:
        encode(task)
    return caught.value.code, caught.value.path


class TestSends:
    def test_ours_a_pair_and_anything_of_langgraphs_shape_are_sends(self) -> None:
        class Send2:
            node = "work"
            arg = 1

        assert to_send(("work", 1)) == to_send(Send2()) == to_send(Send("work", 1)) == Send("work", 1)

    @pytest.mark.parametrize("value", [None, "work", ("work",), ("work", 1, 2), (1, "work"), ["work", 1]])
    def test_anything_else_is_a_type_error_that_says_where(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"\$\[3\]: expected a Send or a \(node, arg\) pair"):
            to_send(value, "$[3]")

    @pytest.mark.parametrize(
        ("value", "path"), [(("a b", 1), "$.node"), (Send("a", 1, "b c"), "$.task_id"), (Send("", 1), "$.node")]
    )
    def test_a_name_that_is_no_identifier_is_refused(self, value: object, path: str) -> None:
        with pytest.raises(SchemaError) as caught:
            to_send(value)
        assert caught.value.path == path


def test_an_error_travels_between_processes() -> None:
    error = SchemaError("E_LIMIT", "$.arg", "too long")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.path, copy.detail, str(copy)) == ("E_LIMIT", "$.arg", "too long", str(error))
