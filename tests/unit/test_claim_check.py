"""Claim checks as they are on the wire and in the table, and the rules for the values behind them."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold_schemas import (
    ClaimCheck,
    FanOut,
    SchemaError,
    Task,
    arg_hash,
    claim_check_for,
    decode_payload,
    decode_task,
    decode_value,
    encode_check,
    encode_payload,
    encode_task,
    object_key,
    pack_value,
    payload_check,
)
from fanfold_schemas.claim_check import fan_out_of_key
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX, CLAIM_CHECK_NODES_MAX, DEPTH_MAX, STRING_BYTES_MAX
from tests.property.corpus_claim_check import CLAIM_CHECK_RECORDS
from tests.unit.wire import TASK, nested, record_with

SHA256 = hashlib.sha256(b"value").hexdigest()
CHECK = ClaimCheck(SHA256, 5)
FINGERPRINT = 3700736830608074555
"""As it is kept in databases."""


def checked(**changes: Any) -> Task:
    return msgspec.structs.replace(TASK, **{"arg": None, "arg_check": CHECK, **changes})


class TestOnTheWire:
    def test_a_task_with_a_claim_check_comes_back_as_it_was_and_without_an_arg_field(self) -> None:
        value = encode_task(checked())
        assert decode_task(value) == checked()
        assert "arg" not in ormsgpack.unpackb(value)

    def test_a_task_without_one_is_written_as_before_there_were_any(self) -> None:
        assert "arg_check" not in ormsgpack.unpackb(encode_task(TASK))

    def test_an_arg_that_is_nil_beside_a_claim_check_is_no_arg(self) -> None:
        record = record_with(arg=None, arg_check={"sha256": SHA256, "bytes": 5})
        assert decode_task(record).arg_check == CHECK

    def test_a_task_with_both_is_not_even_written(self) -> None:
        with pytest.raises(SchemaError, match="both"):
            encode_task(checked(arg=1))

    @pytest.mark.parametrize(("name", "record", "code"), CLAIM_CHECK_RECORDS, ids=[r[0] for r in CLAIM_CHECK_RECORDS])
    def test_a_record_that_tries_to_name_something_else_is_refused(self, name: str, record: bytes, code: str) -> None:
        with pytest.raises(SchemaError) as caught:
            decode_task(record)
        assert caught.value.code == code
        assert caught.value.path.startswith("$.arg_check")

    def test_the_fingerprint_is_that_of_the_node_and_the_hash(self) -> None:
        assert arg_hash(checked()) == arg_hash(checked(arg_check=ClaimCheck(SHA256, 6), run=3))
        others = [checked(node="other"), checked(arg_check=ClaimCheck("0" * 64, 5)), TASK, checked(arg_check=None)]
        inline = checked(arg=SHA256, arg_check=None)
        assert len({arg_hash(task) for task in (checked(), inline, *others)}) == 6


class TestKeys:
    def test_an_object_lies_under_its_fan_out_by_its_hash(self) -> None:
        assert object_key("f-1", CHECK) == f"f-1/{SHA256}"

    @pytest.mark.parametrize("fan_out_id", [".", "..", "...", "a..b", "http:..x", "C:", ":", "a" * 200, "-._:"])
    def test_whatever_an_id_may_be_its_folder_is_an_ordinary_name(self, fan_out_id: str) -> None:
        folder, _, rest = object_key(fan_out_id, CHECK).partition("/")
        assert not set(folder) & set(".:/\\%~ ")
        assert len(folder) == len(fan_out_id)
        assert rest == SHA256

    @given(st.from_regex(r"\A[A-Za-z0-9._:\-]{1,200}\Z"))
    def test_the_fan_out_can_be_told_from_the_key(self, fan_out_id: str) -> None:
        assert fan_out_of_key(object_key(fan_out_id, CHECK)) == fan_out_id

    @pytest.mark.parametrize(
        "key",
        [
            SHA256,
            f"/{SHA256}",
            f"a.b/{SHA256}",
            f"a/b/{SHA256}",
            f"a/{SHA256.upper()}",
            f"a/{SHA256}0",
            f"a/{SHA256}\n",
            "a/README",
            "a/",
            "",
        ],
    )
    def test_other_things_in_the_store_are_nobodys_objects(self, key: str) -> None:
        assert fan_out_of_key(key) is None


class TestForEver:
    """What is stored: in another form, values that are there already could not be read any more."""

    CHECK = ClaimCheck("0123456789abcdef" * 4, 50 * 1024 * 1024)

    def test_a_payload_has_these_bytes(self) -> None:
        stored = "c72801" + "0123456789abcdef" * 4 + "0000000003200000"
        assert encode_check(self.CHECK).hex() == stored
        assert payload_check(bytes.fromhex(stored)) == self.CHECK

    def test_an_object_lies_there(self) -> None:
        assert object_key("a.B:c-1_", self.CHECK) == "a,B=c-1_/" + "0123456789abcdef" * 4

    def test_a_record_has_these_bytes(self) -> None:
        task = Task("task-1", "thread-1", FanOut("fan-out-1", 2), 1, "work", arg_check=self.CHECK)
        record = (
            b"\x8a\xa7task_id\xa6task-1\xa9thread_id\xa8thread-1\xa7fan_out\x82\xa2id\xa9fan-out-1\xa4size\x02"
            b"\xa5index\x01\xa4node\xa4work\xa4base\x80\xa3run\x01\xa7attempt\x01\xa9arg_check\x82\xa6sha256\xd9@"
            + b"0123456789abcdef" * 4
            + b"\xa5bytes\xce\x03 \x00\x00\xa1v\x01"
        )
        assert encode_task(task) == record
        assert decode_task(record) == task
        assert arg_hash(task) == FINGERPRINT


class TestPayloads:
    def test_a_payload_that_is_a_claim_check_says_so(self) -> None:
        assert payload_check(encode_check(CHECK)) == CHECK

    @given(st.binary(min_size=32, max_size=32), st.integers(1, CLAIM_CHECK_BYTES_MAX))
    def test_any_claim_check_comes_back(self, digest: bytes, size: int) -> None:
        check = ClaimCheck(digest.hex(), size)
        payload = encode_check(check)
        assert payload_check(payload) == check
        assert ormsgpack.unpackb(payload, ext_hook=lambda code, data: (code, len(data))) == (1, 40)

    @given(st.binary(max_size=60) | st.text(max_size=60) | st.lists(st.integers(-1, 255), max_size=60))
    def test_no_value_of_a_user_is_taken_for_one(self, value: Any) -> None:
        assert payload_check(pack_value(value)) is None

    @pytest.mark.parametrize("payload", [b"", encode_check(CHECK)[:-1], encode_check(CHECK) + b"\x00"])
    def test_a_payload_that_only_begins_like_one_is_none(self, payload: bytes) -> None:
        assert payload_check(payload) is None

    def test_an_ext_value_in_a_result_is_refused_so_nobody_can_make_one_up(self) -> None:
        with pytest.raises(SchemaError) as caught:
            encode_payload(ormsgpack.Ext(1, encode_check(CHECK)[3:]))
        assert caught.value.code == "E_EXT"

    def test_a_claim_check_is_never_decoded_as_if_it_were_the_value(self) -> None:
        with pytest.raises(SchemaError, match="claim store"):
            decode_payload(encode_check(CHECK))

    @pytest.mark.parametrize("size", [0, CLAIM_CHECK_BYTES_MAX + 1, 2**64 - 1])
    def test_a_stored_claim_check_of_an_impossible_size_is_refused(self, size: int) -> None:
        payload = encode_check(CHECK)[:-8] + size.to_bytes(8, "big")
        with pytest.raises(SchemaError) as caught:
            payload_check(payload)
        assert caught.value.code == "E_LIMIT"


class TestValues:
    @pytest.mark.parametrize("value", ["é" * STRING_BYTES_MAX, b"x" * (STRING_BYTES_MAX + 1), [[]] * 200_000, None, 1])
    def test_a_value_may_be_larger_than_a_record(self, value: Any) -> None:
        assert decode_value(pack_value(value)) == value

    def test_fifty_megabytes_of_text_are_a_value(self) -> None:
        text = "0123456789" * 5_000_000
        assert decode_value(pack_value({"text": text})) == {"text": text}

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"", "E_LIMIT"),
            (b"\xc4\x01", "E_FRAME"),
            (pack_value([1]) + b"\x00", "E_FRAME"),
            (b"\x82\xa1a\x01\xa1a\x02", "E_FRAME"),
            (b"\x81\x01\x01", "E_FRAME"),
            (pack_value(float("nan")), "E_VALUE"),
            (pack_value("a\0b"), "E_VALUE"),
            (pack_value({"a\0": 1}), "E_VALUE"),
            (pack_value(2**63), "E_VALUE"),
            (encode_check(CHECK), "E_EXT"),
            (pack_value(nested(DEPTH_MAX + 1)), "E_LIMIT"),
            (pack_value([1] * CLAIM_CHECK_NODES_MAX), "E_LIMIT"),
            (b"\xc6" + (CLAIM_CHECK_BYTES_MAX - 4).to_bytes(4, "big") + bytes(CLAIM_CHECK_BYTES_MAX - 4), "E_LIMIT"),
        ],
        ids=[
            "nothing",
            "truncated",
            "trailing",
            "duplicate key",
            "key no text",
            "nan",
            "nul",
            "nul in a key",
            "beyond int64",
            "ext",
            "deep",
            "many",
            "large",
        ],
    )
    def test_what_no_record_may_hold_may_not_lie_in_the_store_either(self, data: bytes, code: str) -> None:
        with pytest.raises(SchemaError) as caught:
            decode_value(data)
        assert caught.value.code == code

    def test_the_claim_check_of_bytes_is_their_hash_and_their_size(self) -> None:
        assert claim_check_for(b"value") == CHECK
