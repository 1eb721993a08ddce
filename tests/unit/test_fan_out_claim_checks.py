"""Which args go behind a claim check when a fan-out is built, and what is said where there is no claim store."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_consumer import ConfigError, FleetConfig
from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import SchemaError, Task, claim_check_for, decode_task, pack_value
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX, RECORD_BYTES_MAX, STRING_BYTES_MAX


def build(*args: Any, bytes_min: int | None = 1000) -> BuiltFanOut:
    sends = [("a", arg) for arg in args]
    return build_fan_out("t", sends, topic="tasks", fan_out_id="f", claim_check_bytes_min=bytes_min)


def tasks(built: BuiltFanOut) -> list[Task]:
    return [decode_task(record.value) for record in built.records]


def refusal(*args: Any, bytes_min: int | None = 1000) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        build(*args, bytes_min=bytes_min)
    return caught.value


def test_an_arg_above_the_threshold_becomes_a_claim_check_and_one_below_stays() -> None:
    small, large = "x" * 997, "x" * 998  # and three bytes that say so
    built = build(small, large)
    first, second = tasks(built)
    check = claim_check_for(pack_value(large))
    assert (first.arg, first.arg_check) == (small, None)
    assert (second.arg, second.arg_check) == (None, check)
    assert built.large_args == {check: large}


def test_fifty_megabytes_of_text_make_a_record_of_a_few_hundred_bytes() -> None:
    built = build("0123456789" * 5_000_000)
    assert len(built.records[0].value or b"") < 500


def test_an_arg_that_many_tasks_share_is_one_object() -> None:
    shared = ["x" * 2000]
    built = build(*[shared] * 50, ["x" * 2000])
    assert len(built.large_args) == 1
    assert len({task.arg_check for task in tasks(built)}) == 1


@pytest.mark.parametrize(
    "arg",
    ["x" * (STRING_BYTES_MAX + 1), ["x" * 200_000] * 6, [1] * 100_000, "x" * 1000],
    ids=["long text", "a record too large", "too many values", "nothing wrong"],
)
def test_what_does_not_fit_into_a_record_goes_behind_one_whatever_the_threshold(arg: Any) -> None:
    built = build(arg, bytes_min=CLAIM_CHECK_BYTES_MAX)
    assert bool(built.large_args) == (arg != "x" * 1000)


def test_an_arg_that_fits_a_record_but_not_with_its_headers_goes_behind_one() -> None:
    arg = ["x" * 200_000] * 5 + ["x" * (RECORD_BYTES_MAX - 1_000_000 - 300)]
    assert tasks(build(arg, bytes_min=CLAIM_CHECK_BYTES_MAX))[0].arg_check is not None


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert build({"text": "x" * 2000}, 1) == build({"text": "x" * 2000}, 1)


def test_without_a_store_large_args_are_refused_and_a_store_is_named_as_the_way() -> None:
    error = refusal(1, "x" * (STRING_BYTES_MAX + 1), bytes_min=None)
    assert (error.code, error.path) == ("E_LIMIT", "$.sends[1].arg")
    assert "ClaimStore.open" in error.detail


@pytest.mark.parametrize("bytes_min", [None, 1000])
def test_what_no_store_takes_is_refused_without_naming_one(bytes_min: int | None) -> None:
    deep: Any = "x" * 2000
    for _ in range(40):
        deep = [deep]
    error = refusal(deep, bytes_min=bytes_min)
    assert error.code == "E_LIMIT"
    assert "ClaimStore" not in error.detail


@pytest.mark.parametrize(
    ("arg", "code", "path"),
    [
        ({"a": ["x" * 2000, "\0"]}, "E_VALUE", ".a[1]"),
        ({"a": {"b": ["x" * 2000, float("nan")]}}, "E_VALUE", ".a.b[1]"),
        (["x" * 2000, object()], "E_VALUE", "[1]"),
        (["x" * 2000, 2**63], "E_VALUE", "[1]"),
    ],
)
def test_a_large_arg_that_breaks_the_rules_is_named_with_index_and_path(arg: Any, code: str, path: str) -> None:
    error = refusal(1, arg)
    assert (error.code, error.path) == (code, f"$.sends[1].arg{path}")


def test_a_member_says_all_that_is_wrong_with_its_claim_store_beside_the_rest() -> None:
    config = FleetConfig(
        "", ("t",), KafkaConfig("localhost"), claim_store="http://127.0.0.1:1/x", claim_check_bytes_min=-1
    )
    with pytest.raises(ConfigError) as caught:
        config.check()
    named = {problem.split(":")[0] for problem in caught.value.problems}
    assert named == {"--group", "--claim-check-bytes-min", "--claim-store"}
