"""Where two results differ first."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_consumer.replay.differences import payload_difference, value_difference
from fanfold_schemas import encode_payload
from fanfold_schemas.claim_check import claim_check_for, encode_check


@pytest.mark.parametrize(
    ("stored", "now", "path"),
    [
        (1, 2, "$"),
        (1, 1.0, "$"),
        (1, True, "$"),
        (None, 0, "$"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "$.a.b[1]"),
        ({"a": 1}, {"a": 1, "z": 2}, "$.z"),
        ({"a": 1, "z": 2}, {"a": 1}, "$.z"),
        ([1, 2], [1, 2, 3], "$"),
        ([1, {"x": "same"}, "old"], [1, {"x": "same"}, "new"], "$[2]"),
        (b"\x00", b"\x01", "$"),
    ],
)
def test_the_first_difference_is_named_by_its_path(stored: Any, now: Any, path: str) -> None:
    found = value_difference(stored, now)
    assert found is not None
    assert found.startswith(f"{path}: ")


def test_a_difference_is_bounded_whatever_differs() -> None:
    found = value_difference({"k" * 100_000: "x" * 100_000}, {"k" * 100_000: ["y" * 100_000] * 1000})
    assert found is not None
    assert len(found) < 1000


def test_a_map_in_another_order_is_the_same_value() -> None:
    assert payload_difference(encode_payload({"a": 1, "b": 2}), encode_payload({"b": 2, "a": 1})) is None


def test_a_value_behind_a_claim_check_is_the_same_as_itself_in_line_and_another_than_any_other() -> None:
    value = encode_payload({"n": 1})
    check = encode_check(claim_check_for(value))
    assert payload_difference(check, value) is None
    assert payload_difference(value, check) is None
    assert payload_difference(check, encode_payload({"n": 2})) is not None


def test_a_stored_result_that_is_no_value_differs_and_does_not_raise() -> None:
    assert "cannot be read" in (payload_difference(b"\xc1", encode_payload(1)) or "")
