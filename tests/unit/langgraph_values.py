"""Values as graphs have them, the way over Kafka and back, and what it means that one is the same again."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import langchain_core.messages as messages
from hypothesis import strategies as st
from langchain_core.documents import Document
from langgraph.types import Overwrite, Send

from fanfold_consumer.langgraph.values import Types, declared_types
from fanfold_schemas import decode_value, encode_payload
from tests.unit import langgraph_types as user

TYPES = declared_types(user.make_builder())

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
ZONES = st.none() | st.sampled_from(
    [UTC, timezone(timedelta(hours=-3, seconds=7)), timezone(timedelta(hours=1), "CET"), ZoneInfo("Europe/Berlin")]
)
TAGS = st.sampled_from(["~", "~x", "~tuple", "~list", "~dict", "~Step", "~unset", "~private"])
PLAIN = st.recursive(
    SCALARS | TEXT | TAGS | st.binary(max_size=8),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXT | TAGS, values, max_size=4),
    max_leaves=12,
)
HASHABLE = st.recursive(
    SCALARS
    | st.text(st.characters(), max_size=8)
    | TAGS
    | st.binary(max_size=8)
    | st.integers()
    | st.floats()
    | st.datetimes(timezones=ZONES)
    | st.times(timezones=ZONES)
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.sampled_from([*user.Color, *user.Level, user.Access.READ, user.Access.READ | user.Access.WRITE])
    | st.sampled_from([Path("a/b"), Path("/")]),
    lambda values: (
        st.tuples(values, values) | st.frozensets(values, max_size=3) | st.builds(user.Point, values, values)
    ),
    max_leaves=6,
)
STEPS = st.builds(user.Step, name=TEXT) | st.builds(
    user.Step, name=TEXT, tags=st.lists(TEXT, max_size=2), color=st.sampled_from([None, *user.Color])
)
VALUES = st.recursive(
    HASHABLE | STEPS | st.builds(bytearray, st.binary(max_size=3)),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(TEXT | TAGS, values, max_size=4)
        | st.dictionaries(HASHABLE, values, max_size=3)
        | st.builds(user.Box, values)
        | st.builds(Send, TEXT, values)
        | st.builds(Overwrite, values)
        | st.builds(messages.ToolMessage, content=TEXT, tool_call_id=TEXT, artifact=values)
        | st.builds(Document, page_content=TEXT, metadata=st.dictionaries(TEXT, values, max_size=2))
    ),
    max_leaves=12,
)


def exact(value: Any) -> Any:
    """A value as something that compares equal to the same value only: 1 is no True, and NaN is NaN."""
    kind = type(value)
    if kind is dict:
        return kind, [(exact(key), exact(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind, sorted((exact(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return kind, [exact(item) for item in value]
    if hasattr(value, "model_fields_set"):
        return kind, exact(dict(value)), sorted(value.model_fields_set), exact(value.__pydantic_private__)
    if kind in (user.Box, Overwrite):
        return kind, exact([getattr(value, name) for name in kind.__slots__])
    if kind is Send:
        return kind, value.node, exact(value.arg)
    if kind in (datetime, time):
        return kind, value.isoformat(), repr(value.tzinfo), value.fold
    return kind, repr(value)


def through_kafka(value: Any, types: Types = TYPES) -> Any:
    return types.load(decode_value(encode_payload(types.check(value))))
