"""Identifiers: which strings are, and that derived ones never change, because changing them would redo all work."""

from __future__ import annotations

import re
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold_schemas import (
    SchemaError,
    check_id,
    derive_child_fan_out_id,
    derive_fold_task_id,
    derive_task_id,
    new_fan_out_id,
)
from fanfold_schemas.ids import are_ids


@pytest.mark.parametrize("value", ["a", "A-z_0.9:b", "x" * 200, str(uuid.UUID(int=7)), ".", "-", ":"])
def test_an_identifier_is_returned_as_it_is(value: str) -> None:
    assert check_id(value, "$.id") == value


@pytest.mark.parametrize("value", ["", "x" * 201, "a b", "a\n", "\na", "a/b", "a@b", "é", "a\0", "../x", "а"])
def test_other_strings_are_refused_with_their_path_and_length(value: str) -> None:
    with pytest.raises(SchemaError, match=r"A-Za-z0-9._:-") as caught:
        check_id(value, "$.fan_out.id")
    assert (caught.value.code, caught.value.path) == ("E_LIMIT", "$.fan_out.id")
    assert f"this one has {len(value)}" in caught.value.detail


@pytest.mark.parametrize("value", [None, 1, b"a", ["a"]])
def test_what_is_no_string_is_refused_by_type(value: object) -> None:
    with pytest.raises(SchemaError) as caught:
        check_id(value, "$.id")
    assert (caught.value.code, caught.value.detail) == ("E_SCHEMA", f"expected a string, got {type(value).__name__}")


@given(st.text(max_size=220))
def test_the_pattern_means_what_it_says_for_any_text(value: str) -> None:
    allowed = 1 <= len(value) <= 200 and all(c.isascii() and (c.isalnum() or c in "._:-") for c in value)
    try:
        check_id(value, "$")
    except SchemaError:
        assert not allowed
    else:
        assert allowed


def test_derived_ids_are_these_for_ever() -> None:
    assert derive_task_id("f1", 0) == "15777cbb-97e9-5a38-8226-8ed45db504de"
    assert derive_task_id("f1", 99_999) == "3e2d3419-c835-5e21-a7cf-4aa4e982bfb5"
    assert derive_fold_task_id("f1") == "7142b100-985b-58d2-889e-cdcc675f1123"
    assert derive_child_fan_out_id("t1", 2) == "53f0c45c-99b5-552b-ab5e-7524a1a0aec1"


def test_derived_ids_are_identifiers_and_differ() -> None:
    ids = [derive_task_id("f", index) for index in range(1000)]
    ids += [derive_fold_task_id("f"), derive_child_fan_out_id("f", 1), derive_child_fan_out_id("f", 2)]
    assert len(set(ids)) == len(ids)
    assert all(check_id(value, "$") for value in ids)


def test_a_new_fan_out_id_is_a_uuid_of_version_7() -> None:
    for _ in range(100):
        value = uuid.UUID(new_fan_out_id())
        assert (value.version, value.variant) == (7, uuid.RFC_4122)


def test_new_fan_out_ids_are_unique_and_begin_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_fan_out_id() for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == len(ids)
    assert all(before <= uuid.UUID(value).int >> 80 <= after for value in ids)
    assert all(re.fullmatch(r"[0-9a-f-]{36}", value) for value in ids)


@pytest.mark.parametrize(
    ("values", "sound"),
    [
        (["a"], True),
        (["a", "B.9_:-", "x" * 200], True),
        (["a", ""], False),
        (["a", "x" * 201], False),
        (["a\nb", "c"], False),
        (["a", "b\n"], False),
        (["a", "ä"], False),
        (["a", "\ud800"], False),
        (["a b"], False),
    ],
)
def test_several_are_identifiers_if_each_of_them_is(values: list[str], sound: bool) -> None:
    assert are_ids(values) is sound
