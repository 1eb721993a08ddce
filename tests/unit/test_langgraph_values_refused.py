"""What a graph's values may not be is refused, at publish with what to do, and from Kafka before anything is made."""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from hypothesis import given

pytest.importorskip("langgraph", reason="needs the extra langgraph")

from langgraph.types import Send

from fanfold_consumer.errors import ConfigError
from fanfold_consumer.langgraph.annotations import classes_in
from fanfold_consumer.langgraph.values import Types
from fanfold_schemas import SchemaError, encode_payload, pack_value
from tests.unit import langgraph_types as user
from tests.unit.langgraph_values import PLAIN, TYPES


def test_an_undeclared_class_is_refused_with_its_path_its_name_and_what_to_do() -> None:
    with pytest.raises(SchemaError) as caught:
        TYPES.check({"docs": [{"found": user.Undeclared(secret="s3cret")}]})
    assert (caught.value.code, caught.value.path) == ("E_VALUE", "$.docs.found")
    assert "langgraph_types.Undeclared" in caught.value.detail
    assert "Types.adding(Undeclared)" in caught.value.detail
    assert "s3cret" not in str(caught.value)


def test_the_path_goes_through_the_fields_of_objects() -> None:
    with pytest.raises(SchemaError) as caught:
        TYPES.check(Send("node", {"report": user.Report(user.Plan(extra=user.Undeclared(secret="x")))}))  # type: ignore[call-arg]
    assert caught.value.path == "$.arg.report.plan.extra"


@pytest.mark.parametrize(
    "value",
    [
        user.StepAndMore(name="a"), OrderedDict(a=1), defaultdict(list), type("Text", (str,), {})("a"),
        type("Number", (float,), {})(1.0), type("Items", (list,), {})(), object(), len, ..., ValueError("x"), user.Step,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_exactly_in_the_table_is_refused_even_if_its_base_is(value: Any) -> None:
    with pytest.raises(SchemaError, match="not in this graph's table"):
        TYPES.check([value])


@pytest.mark.parametrize("parts", [None, [], ["a"], {"a": 1}])
def test_what_an_adapted_class_refuses_is_a_schema_error(parts: Any) -> None:
    types = Types().adapting(complex, lambda number: [number.real, number.imag], lambda parts: complex(*parts))
    tag = types.dump(1j)[0]
    with pytest.raises(SchemaError, match="no complex can be made"):
        types.load([tag, parts, parts])


def test_a_class_whose_validator_changes_its_own_result_is_refused_at_publish() -> None:
    with pytest.raises(SchemaError, match="another value after a round trip") as caught:
        TYPES.check({"a": [user.Shouting(text="hey")]})
    assert caught.value.path == "$.a.text"


def test_a_value_that_its_own_class_would_not_take_is_refused_at_publish() -> None:
    step = user.Step.model_construct(name=["no text"])
    with pytest.raises(SchemaError, match="could not be read again") as caught:
        TYPES.check(step)
    assert "name: string_type" in caught.value.detail


def test_an_attribute_beside_the_fields_of_a_dataclass_is_refused_rather_than_lost() -> None:
    report = user.Report()
    report.beside = 1  # type: ignore[attr-defined]
    with pytest.raises(SchemaError, match="attribute 'beside', which is no field"):
        TYPES.check(report)


@pytest.mark.parametrize("convert", [TYPES.dump, TYPES.load, TYPES.check])
def test_what_is_nested_without_end_is_refused(convert: Callable[[Any], Any]) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(SchemaError) as caught:
        convert(endless)
    assert caught.value.code == "E_LIMIT"


def test_two_classes_of_one_name_in_one_module_are_a_configuration_error() -> None:
    one, two = (type("Twin", (user.Step,), {"__module__": "mine"}) for _ in range(2))
    with pytest.raises(ConfigError, match=r"mine\.Twin"):
        Types().adding(one, two)


@given(PLAIN)
def test_whatever_comes_from_kafka_is_a_value_or_a_schema_error(plain: Any) -> None:
    for tag in ("", "~Plan", "~Send", "~set", "~dict", "~datetime"):
        with contextlib.suppress(SchemaError):
            TYPES.load([tag, *plain] if tag and type(plain) is list else plain)


BAD_PARTS: list[list[Any]] = [
    [], [None], ["x"], [1], [b"x"], [[]], [{}], ["name"], [1, 2], ["name", 1], ["name", "a", "name", "b"], ["nope", 1],
    ["name", "a", "nope", 1], [["~list"], 1], ["~unset", 1], ["name", "a", "~unset", [[]]], ["a", 1, "~private", 1],
    ["name", "a", "~private", {"__class__": 1}], [None] * 4, ["2026-13-01"], [10**9, 0, 0, 0], ["../../etc/passwd"],
    [True, False], [["~set"], ["~dict", 1]], [float("1e300")], ["9" * 9, "9" * 9], [{"a": {"b": []}}, "a", 1],
]  # fmt: skip


@pytest.mark.parametrize("tag", sorted(TYPES._by_tag))
def test_parts_of_the_wrong_shape_are_a_schema_error_and_never_another(tag: str) -> None:
    refused = 0
    for parts in BAD_PARTS:
        try:
            made = TYPES.load([tag, *parts])
        except SchemaError:
            refused += 1
        else:
            # What is taken is one of its type, and nothing else.
            assert type(made) is TYPES._by_tag[tag].cls
    assert refused or tag in ("~list", "~tuple")


@pytest.mark.parametrize(
    "plain",
    [
        ["~os.system", "true"], ["~builtins.eval", "1"], ["~subprocess.Popen", ["true"]], ["~Undeclared", "x", 1],
        ["~tests.unit.langgraph_types.Undeclared", "secret", "x"], ["~object"], ["~"], ["~~tuple"], ["~Codec"],
        [{"a": ["~colorsys.rgb_to_hsv", 1, 2, 3]}],
    ],
)  # fmt: skip
def test_a_tag_that_is_not_in_the_table_is_refused_and_nothing_is_imported(plain: Any) -> None:
    sys.modules.pop("colorsys", None)
    with pytest.raises(SchemaError, match="not in this graph's table") as caught:
        TYPES.load(plain)
    assert caught.value.code == "E_SCHEMA"
    assert "colorsys" not in sys.modules


@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(["~Step", "name", "a", "nope", 1], id="a field that the model would ignore"),
        pytest.param(["~Step", "name", "a", "name", "b"], id="a field that comes twice"),
        pytest.param(["~Step", "name", "a", "~private", {"tags": 1}], id="a field as a private attribute, unvalidated"),
        pytest.param(["~Plan", "~private", {"_other": 1}], id="a private attribute that is not there"),
        pytest.param(["~Turning", "text", "a"], id="a model that becomes another one"),
        pytest.param(["~Box", "inside", 1, "beside", 2], id="a field that the dataclass does not have"),
        pytest.param(["~set", 1, 1], id="a member that comes twice"),
        pytest.param(["~dict", 1, 2, 1, 3], id="a key that comes twice"),
    ],
)
def test_what_would_be_taken_in_part_is_refused_as_a_whole(plain: Any) -> None:
    with pytest.raises(SchemaError, match="can be made of its parts"):
        TYPES.load(plain)


def test_what_a_constructor_says_about_a_value_is_not_shown() -> None:
    with pytest.raises(SchemaError, match="no Positive can be made of its parts: ValueError") as caught:
        TYPES.load(["~Positive", "number", -4111])
    assert "4111" not in str(caught.value)


def test_a_tag_that_is_no_name_is_not_shown() -> None:
    with pytest.raises(SchemaError) as caught:
        TYPES.load(["~\x1b[2J", 1])
    assert "\x1b" not in str(caught.value)


def test_what_a_class_says_about_bad_fields_is_shown_without_what_is_in_them() -> None:
    with pytest.raises(SchemaError) as caught:
        TYPES.load({"a": ["~Step", "name", "n", "tags", ["ok", {"s3cret": "s3cret"}]]})
    assert caught.value.path == "$.a"
    assert "tags: string_type" in caught.value.detail
    assert "s3cret" not in str(caught.value)


def test_numbers_chosen_to_have_one_hash_are_refused_before_they_slow_a_set_down() -> None:
    modulus = sys.hash_info.modulus
    numbers = [["~int", (number * modulus).to_bytes(12, "big")] for number in range(20_000)]
    for plain in (["~set", *numbers], ["~dict", *(part for number in numbers for part in (number, 0))]):
        with pytest.raises(SchemaError, match="the same hash"):
            TYPES.load(plain)


def test_an_annotation_that_cannot_be_read_is_named_when_its_type_is_refused() -> None:
    class Late(TypedDict):
        item: NotThere  # type: ignore[name-defined]  # noqa: F821

    found, unresolved = classes_in([Late])
    with pytest.raises(SchemaError, match=r"Late .*NotThere"):
        Types(found, (), unresolved).dump(user.Undeclared(secret="x"))


def test_what_is_refused_when_it_is_packed_is_refused_at_publish() -> None:
    with pytest.raises(SchemaError):
        encode_payload(TYPES.check({"a": "x" * 300_000}))
    assert pack_value(TYPES.check([1])) == b"\x91\x01"
