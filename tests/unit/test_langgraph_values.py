"""Values of a graph cross Kafka as plain msgpack: they come back as what they were, or are refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

pytest.importorskip("langgraph", reason="needs the extra langgraph")

import langchain_core.messages as messages
from langchain_core.documents import Document
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Interrupt, Overwrite, Send

from fanfold_consumer.errors import ConfigError
from fanfold_consumer.langgraph.values import Types, declared_types
from fanfold_schemas import SchemaError, pack_value
from tests.unit import langgraph_types as user
from tests.unit.langgraph_values import PLAIN, TYPES, VALUES, exact, through_kafka


@given(PLAIN.filter(lambda value: "~" not in repr(value)))
def test_a_plain_value_is_its_own_encoding_and_not_even_copied(value: Any) -> None:
    assert TYPES.check(value) is value
    assert TYPES.load(value) is value


@given(VALUES)
def test_whatever_is_in_the_table_comes_back_as_it_was(value: Any) -> None:
    assert exact(through_kafka(value)) == exact(value)


@given(PLAIN)
def test_a_value_that_looks_like_a_tagged_one_comes_back_as_it_was(value: Any) -> None:
    assert exact(through_kafka(value)) == exact(value)


@pytest.mark.parametrize(
    "message",
    [
        messages.HumanMessage("hello", id="1", name="me"),
        messages.HumanMessage([{"type": "text", "text": "hello"}, {"type": "image", "base64": "AAAA"}]),
        messages.AIMessage(
            "",
            tool_calls=[{"name": "f", "args": {"a": [1, None]}, "id": "c1", "type": "tool_call"}],
            invalid_tool_calls=[
                {"name": "g", "args": "{", "id": "c2", "error": "no JSON", "type": "invalid_tool_call"}
            ],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            response_metadata={"model": "m"},
            additional_kwargs={"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
        ),
        messages.AIMessageChunk(
            content="he",
            tool_call_chunks=[{"name": "f", "args": '{"a":', "id": "c1", "index": 0, "type": "tool_call_chunk"}],
        ),
        messages.AIMessageChunk(content="he") + messages.AIMessageChunk(content="llo"),
        messages.SystemMessage("be brief"),
        messages.SystemMessageChunk(content="be"),
        messages.ChatMessage(content="hello", role="critic"),
        messages.ChatMessageChunk(content="hel", role="critic"),
        messages.FunctionMessage(content="1", name="f"),
        messages.FunctionMessageChunk(content="1", name="f"),
        messages.ToolMessage("1", tool_call_id="c1", status="error", artifact={"rows": (1, 2)}),
        messages.ToolMessageChunk(content="1", tool_call_id="c1"),
        messages.HumanMessageChunk(content="hel"),
        messages.RemoveMessage(id="1"),
        messages.BaseMessage("x", type="mine"),
        messages.AIMessage("x", something_of_the_providers=[1]),
        Document("text", metadata={"page": 3}, id="d1"),
        messages.AIMessage("hello").text,
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_langchain_has_travels_without_being_declared(message: Any) -> None:
    back = through_kafka([message], Types())[0]
    assert exact(back) == exact(message)


def test_every_message_class_of_the_installed_release_is_in_the_table() -> None:
    found = (getattr(messages, name) for name in messages.__all__)
    for cls in (cls for cls in found if isinstance(cls, type)):
        if issubclass(cls, messages.BaseMessage):
            assert cls in Types()._by_class, cls


@pytest.mark.parametrize(
    "value",
    [
        Command(update={"a": (1,)}, goto=[Send("node", {1: 2})], graph=Command.PARENT),
        Command(resume={"id": None}),
        Interrupt({"ask": UUID(int=7)}, id="abc"),
        Overwrite([Decimal("1.10")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_node_may_write_of_langgraphs_own_travels(value: Any) -> None:
    back = through_kafka(value, Types())
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        user.Plan(Title="t", steps={"a": user.Step(name="n")}, source="https://a.example/b"),  # type: ignore[arg-type]
        user.Plan(Title="t", extra_field=(1, 2)),  # type: ignore[call-arg]
        user.Steps([user.Step(name="a", color=user.Color.GREEN)]),
        user.Report(user.Plan(), user.Point(1, 2)),
        [user.Color.RED, user.Level.LOW, user.Access.READ | user.Access.WRITE, user.Access(0)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_declared_classes_travel_with_what_is_in_them(value: Any) -> None:
    back = through_kafka(value)
    assert back == value
    assert exact(back) == exact(value)


def test_which_fields_of_a_model_were_set_is_kept_because_langgraph_writes_those() -> None:
    changed = user.Step(name="a")
    changed.tags.append("changed in place, which does not set it")
    for step in (user.Step(name="a"), user.Step(name="a", tags=[]), changed):
        back = through_kafka(step)
        assert back.model_fields_set == step.model_fields_set
        assert back == step


def test_private_attributes_of_a_model_are_kept() -> None:
    plan = user.Plan()
    plan._seen = 7
    assert through_kafka(plan)._seen == 7


def test_a_field_that_is_not_set_by_the_constructor_is_kept() -> None:
    box = user.Box([1])
    object.__setattr__(box, "weight", 9)
    assert through_kafka(box).weight == 9


def test_what_a_cached_property_remembers_does_not_travel() -> None:
    report = user.Report()
    assert report.summary
    assert "summary" not in vars(through_kafka(report))


def test_all_classes_of_all_schemas_are_declared_at_any_depth() -> None:
    assert TYPES.declared >= {
        user.Report, user.Plan, user.Step, user.Steps, user.Point, user.Color, user.Access, user.Level, user.Context,
        user.Box, user.Shouting,
    }  # fmt: skip
    assert not TYPES.unresolved
    assert user.Undeclared not in TYPES.declared


def test_the_schemas_of_a_graph_that_is_a_node_are_declared() -> None:
    inner = user.make_builder().add_edge(START, "node").compile()
    outer = StateGraph(user.NodeInput).add_node("inner", inner)
    assert user.Plan in declared_types(outer).declared


def test_a_class_that_was_added_travels_with_the_classes_in_its_fields() -> None:
    types = Types().adding(dict[str, user.Report | None])
    report = user.Report(user.Plan(steps={"a": user.Step(name="a", color=user.Color.RED)}))
    assert through_kafka(report, types) == report
    with pytest.raises(SchemaError):
        Types().check(report)


def test_a_class_of_no_known_kind_is_not_added_but_adapted() -> None:
    with pytest.raises(ConfigError, match="adapting"):
        Types().adding(complex)
    types = Types().adapting(complex, lambda number: [number.real, number.imag], lambda parts: complex(*parts))
    assert through_kafka({"z": 1 + 2j}, types) == {"z": 1 + 2j}


def test_a_set_has_the_same_bytes_whatever_order_a_process_keeps_it_in() -> None:
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert pack_value(TYPES.check(one)) == pack_value(TYPES.check(other))


def test_an_object_takes_no_more_depth_than_a_list() -> None:
    nested: Any = 1
    for _ in range(32):
        nested = (nested,)
    assert through_kafka(nested) == nested


def test_two_classes_of_one_name_are_told_apart_by_their_modules() -> None:
    other = type("Step", (user.Step,), {"__module__": "other"})
    types = TYPES.adding(other)
    assert type(through_kafka(other(name="a"), types)) is other
    assert type(through_kafka(user.Step(name="a"), types)) is user.Step


def test_a_class_with_the_name_of_one_of_ours_does_not_take_its_place() -> None:
    send = type("Send", (user.Step,), {"__module__": "mine"})
    types = TYPES.adding(send)
    assert type(through_kafka(send(name="a"), types)) is send
    assert type(through_kafka(Send("a", 1), types)) is Send


def test_a_program_that_is_run_and_one_that_is_imported_write_the_same_tag() -> None:
    in_main = type("Step", (user.Step,), {"__module__": "__main__", "__qualname__": "Step"})
    assert Types().adding(in_main).dump(in_main(name="a")) == TYPES.dump(user.Step(name="a"))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, microseconds=1))),
        time(12, 30, 0, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
        date.max,
        timedelta.min,
    ],
    ids=repr,
)
def test_a_moment_keeps_its_zone_and_which_of_two_it_is(moment: Any) -> None:
    assert exact(through_kafka(moment)) == exact(moment)
    assert getattr(through_kafka(moment), "tzinfo", None) == getattr(moment, "tzinfo", None)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**70_000, math.inf, -math.inf], ids=lambda _: "number")
def test_numbers_that_the_wire_has_none_for_travel(number: float) -> None:
    assert through_kafka(number) == number


def test_the_table_is_not_changed_by_adding_to_it() -> None:
    before = TYPES.declared
    TYPES.adding(user.Undeclared)
    assert TYPES.declared == before
    with pytest.raises(SchemaError):
        TYPES.dump(user.Undeclared(secret="x"))
