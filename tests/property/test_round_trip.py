"""Whatever can be written can be read, and is the same; whatever cannot be read cannot be written."""

from __future__ import annotations

from typing import Any

import msgspec
import ormsgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanfold_schemas import (
    FOLD_INDEX,
    FanOut,
    SchemaError,
    Task,
    arg_hash,
    decode_payload,
    decode_task,
    encode_payload,
    encode_task,
    header_text,
    pack_headers,
    task_headers,
    unpack_headers,
)
from fanfold_schemas.limits import FAN_OUT_SIZE_MAX, INT64_MAX, INT64_MIN, RUN_MAX
from tests.property.wire_properties import check, may_travel

_SLOW = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)

ids = st.text(st.sampled_from("abzAZ09._:-"), min_size=1, max_size=200)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def trees(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
    )


values = trees(
    st.none()
    | st.booleans()
    | st.integers(INT64_MIN, INT64_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=20),
    texts,
)
# Plain Python values of any kind, allowed or not.
anything = trees(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.complex_numbers()
    | st.dates()
    | st.uuids()
    | st.frozensets(st.integers(), max_size=3),
    st.text(max_size=5) | st.integers() | st.none(),
)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    size = draw(st.integers(1, FAN_OUT_SIZE_MAX))
    fold = draw(st.none() | ids)
    fan_out = FanOut(
        draw(ids), size, fold, draw(st.none() | st.integers(1, size)), draw(st.none() | st.integers(1, INT64_MAX))
    )
    is_fold = fold is not None and draw(st.booleans())
    return Task(
        draw(ids),
        draw(ids),
        fan_out,
        FOLD_INDEX if is_fold else draw(st.integers(0, size - 1)),
        fold if is_fold and fold is not None else draw(ids),
        draw(values),
        draw(st.dictionaries(texts, st.integers(0, INT64_MAX), max_size=4)),
        draw(st.integers(1, RUN_MAX)),
        draw(st.integers(1, RUN_MAX)),
    )


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: in Python 1, 1.0 and True are equal, too."""
    return ormsgpack.packb(one) == ormsgpack.packb(other)


@given(tasks())
@_SLOW
def test_a_task_comes_back_equal_and_its_bytes_are_stable(task: Task) -> None:
    record = encode_task(task)
    again = decode_task(record)
    assert again == task
    assert same(again.arg, task.arg)
    assert encode_task(again) == record


@given(anything)
@_SLOW
def test_any_arg_is_refused_when_it_is_written_or_comes_back(arg: Any) -> None:
    task = Task("task-1", "thread-1", FanOut("fan-out-1", 1), 0, "work", arg)
    try:
        record = encode_task(task)
    except SchemaError:
        assert not (_is_plain(arg) and may_travel(arg))
        return
    # A date or a UUID comes back as the text it became: what is written the same came back.
    assert same(decode_task(record).arg, arg)


@given(anything)
@_SLOW
def test_any_result_is_refused_when_it_is_stored_or_comes_back(value: Any) -> None:
    try:
        stored = encode_payload(value)
    except SchemaError:
        assert not (_is_plain(value) and may_travel(value))
        return
    assert same(decode_payload(stored), value)


@given(tasks(), st.randoms())
@_SLOW
def test_a_fingerprint_is_the_same_in_any_order_of_keys_and_after_the_wire(task: Task, chance: Any) -> None:
    shuffled = msgspec.structs.replace(task, arg=_shuffled(task.arg, chance))
    assert arg_hash(shuffled) == arg_hash(task)
    assert arg_hash(decode_task(encode_task(shuffled))) == arg_hash(task)
    assert INT64_MIN <= arg_hash(task) <= INT64_MAX


@given(values, values)
@_SLOW
def test_two_args_have_one_fingerprint_only_if_they_are_one(one: Any, other: Any) -> None:
    first, second = (Task("t", "t", FanOut("f", 1), 0, "work", arg) for arg in (one, other))
    sorted_one, sorted_other = (ormsgpack.packb(arg, option=ormsgpack.OPT_SORT_KEYS) for arg in (one, other))
    assert (arg_hash(first) == arg_hash(second)) == (sorted_one == sorted_other)


@given(tasks(), st.dictionaries(ids, texts, max_size=3))
@_SLOW
def test_the_headers_of_a_task_come_back_and_name_it(task: Task, extra: dict[str, str]) -> None:
    headers = task_headers(task, extra=extra)
    assert unpack_headers(pack_headers(headers)) == headers
    if "ce_id" not in extra:
        assert header_text(headers, "ce_id") == task.task_id


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.binary()), max_size=8))
@_SLOW
def test_any_headers_come_back_to_the_byte(headers: list[tuple[str, bytes | None]]) -> None:
    assert unpack_headers(pack_headers(headers)) == headers


@given(st.binary(max_size=100))
@settings(max_examples=500, deadline=None)
def test_the_properties_of_the_wire_hold_for_any_bytes(data: bytes) -> None:
    check(data)


def _is_plain(value: Any) -> bool:
    """Made of nothing but what msgpack has."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return value is None or isinstance(value, bool | int | float | bytes)


def _shuffled(value: Any, chance: Any) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: _shuffled(value[key], chance) for key in keys}
    if isinstance(value, list):
        return [_shuffled(item, chance) for item in value]
    return value
