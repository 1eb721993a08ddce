"""Strict msgpack: the quick look and the strict pass, and what a refusal shows."""

from __future__ import annotations

import gc
from typing import Any

import ormsgpack
import pytest

from fanfold_schemas import SchemaError
from fanfold_schemas.limits import DEPTH_MAX, NODES_MAX
from fanfold_schemas.scan import scan
from fanfold_schemas.unpack import unpack
from tests.unit.wire import nested

# More than the quick look takes on, so that the strict pass has to do with it.
PADDING = "x" * 20_000


def refusal(value: bytes) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        unpack(value)
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -1, 0.5, None, True, b"\0", "\N{EURO SIGN}"]},
        [256, 2**40, 1.0, "\\u0000"],
        nested(DEPTH_MAX),
        {"": {}},
    ],
    ids=["all types", "zero bytes", "the deepest", "empty"],
)
def test_a_large_value_comes_back_like_a_small_one(value: Any) -> None:
    assert unpack(ormsgpack.packb(value)) == value
    large = {"value": value, "padding": PADDING} if value != nested(DEPTH_MAX) else nested(DEPTH_MAX - 1, [1, PADDING])
    assert unpack(ormsgpack.packb(large)) == large


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xcb\x7f\xf0" + b"\0" * 6, "E_VALUE"),
        (b"\xca\xff\xc0\0\0", "E_VALUE"),
        (b"\xcf\x80" + b"\0" * 7, "E_VALUE"),
        (b"\xa1\0", "E_VALUE"),
        (b"\xd9\x01\0", "E_VALUE"),
        (b"\x81\xa1\0\x01", "E_VALUE"),
        (b"\xd4\x01x", "E_EXT"),
        (b"\x82\xa1a\x01\xa1a\x01", "E_FRAME"),
        (b"\x81\x01\x01", "E_FRAME"),
        (b"\xa1\xff", "E_FRAME"),
        (b"\x91" * DEPTH_MAX + b"\x01", "E_LIMIT"),
        (b"\x91", "E_FRAME"),
    ],
    ids=repr,
)
def test_a_large_value_is_refused_like_a_small_one(raw: bytes, code: str) -> None:
    small, large = b"\x92\x01" + raw, b"\x92" + ormsgpack.packb(PADDING) + raw
    assert (refusal(small).code, refusal(large).code) == (code, code)


@pytest.mark.parametrize("tail", [b"\x00", b"\x80"], ids=repr)
def test_a_large_value_has_no_trailing_bytes_either(tail: bytes) -> None:
    assert "1 trailing bytes" in refusal(ormsgpack.packb(PADDING) + tail).detail


def test_an_empty_list_is_a_value_and_no_level() -> None:
    assert unpack(ormsgpack.packb(nested(DEPTH_MAX, []))) == nested(DEPTH_MAX, [])
    assert refusal(ormsgpack.packb(nested(DEPTH_MAX, [1]))).code == "E_LIMIT"
    assert unpack(b"\xdd" + (NODES_MAX - 1).to_bytes(4, "big") + b"\x90" * (NODES_MAX - 1)) == [[]] * (NODES_MAX - 1)
    assert refusal(b"\xdd" + NODES_MAX.to_bytes(4, "big") + b"\x90" * NODES_MAX).code == "E_LIMIT"


def test_limits_can_be_others() -> None:
    scan(b"\x93\x01\x02\x03", nodes_max=4)
    with pytest.raises(SchemaError, match="more than 3 values"):
        scan(b"\x93\x01\x02\x03", nodes_max=3)
    with pytest.raises(SchemaError, match="a string of 5 bytes, at most 4"):
        scan(b"\xd9\x05abcde", string_bytes_max=4)


@pytest.mark.parametrize("was_on", [True, False])
@pytest.mark.parametrize("raw", [b"\x01", b"\xa1\xff"], ids=["taken", "refused"])
def test_the_garbage_collector_is_left_as_it_was(was_on: bool, raw: bytes) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        try:
            unpack(b"\x92" + ormsgpack.packb(PADDING) + raw)
        except SchemaError:
            assert raw != b"\x01"
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": {"b_2": {"c-3": float("nan")}}}, "$.a.b_2.c-3"),
        ({"a": [[{"b": [float("nan")]}]]}, "$.a.b"),
        ([1, {"a": 1, "b": float("nan")}], "$.b"),
        ({"a": {"b": 1}, "c": float("nan")}, "$.c"),
        ({"jane@example.org": {"b": float("nan")}}, "$[...].b"),
        ({"x" * 41: float("nan")}, "$[...]"),
        ({"\x1b[31m": float("nan")}, "$[...]"),
        ({"a": {"": float("nan")}}, "$.a[...]"),
        ({"a": {"k\0": 1}}, "$.a"),
    ],
    ids=repr,
)
def test_a_refusal_says_where_but_shows_no_key_that_may_be_data(value: Any, path: str) -> None:
    assert refusal(ormsgpack.packb(value)).path == path


def test_a_duplicate_key_is_shown_only_if_it_is_a_name() -> None:
    assert refusal(b"\x82\xa1a\x01\xa1a\x01").detail == "duplicate key a"
    assert refusal(b"\x82\xa2a\n\x01\xa2a\n\x01").detail == "duplicate key [...]"
