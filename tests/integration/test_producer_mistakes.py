"""Records of producers that do not do all that ours does: taken if they can be, else parked with their code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import ormsgpack
import pytest

from fanfold_producer import Record
from fanfold_producer.fan_out import build_fan_out
from fanfold_schemas import derive_task_id, new_fan_out_id
from tests.support.foreign import args, registry
from tests.support.kafka import Topic
from tests.support.rig import Rig


def test_records_without_key_and_headers_are_tasks_like_others(rig: Rig, topic: Topic) -> None:
    built = rig.build(topic, [("square", n) for n in range(8)], fold="sum")
    rig.write([Record(topic.name, None, record.value) for record in built.records])
    rig.start_here(topic)

    assert rig.handle(built).result(20) == sum(n * n for n in range(8))
    rig.assert_sound()


# What programs in other languages are known to do: the change of a good record, and the code that its dead letter has.
MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "JSON": (lambda task: json.dumps({**task, "arg": 1}).encode(), "E_FRAME"),
    "nothing": (lambda _: b"", "E_FRAME"),
    "two tasks in one record": (lambda task: ormsgpack.packb(task) * 2, "E_FRAME"),
    "keys that are numbers": (lambda _: b"\x81\x01\x01", "E_FRAME"),
    "an id of another alphabet": (lambda task: {**task, "task_id": "lines/1"}, "E_LIMIT"),
    "a whole number as a float": (lambda task: {**task, "index": 1.0}, "E_SCHEMA"),
    "milliseconds as a float": (
        lambda task: {**task, "fan_out": {**task["fan_out"], "deadline_ms": 1.9e12}},
        "E_SCHEMA",
    ),
    "a number as text": (lambda task: {**task, "run": "1"}, "E_SCHEMA"),
    "text as bytes": (lambda task: {**task, "thread_id": b"t1"}, "E_SCHEMA"),
    "no version": (lambda task: {name: value for name, value in task.items() if name != "v"}, "E_SCHEMA"),
    "counting from one": (lambda task: {**task, "index": task["fan_out"]["size"]}, "E_SCHEMA"),
    "a timestamp": (lambda task: with_arg(task, b"\xd6\xff\x00\x00\x00\x00"), "E_EXT"),
    "an unsigned integer": (lambda task: with_arg(task, b"\xcf" + b"\xff" * 8), "E_VALUE"),
    "not a number": (lambda task: with_arg(task, b"\xcb\x7f\xf8" + bytes(6)), "E_VALUE"),
    "a NUL in text": (lambda task: {**task, "arg": "a\0b"}, "E_VALUE"),
    "an unknown handler": (lambda task: lone(task, node="no_such"), "E_NODE"),
    "bytes where the handler wants text": (lambda task: lone(task, arg={**task["arg"], "text": b"x"}), "E_ARG"),
    "hex where the handler wants bytes": (lambda task: lone(task, arg={**task["arg"], "sha256": "abc"}), "E_ARG"),
    "another size than its siblings": (lambda task: {**task, "fan_out": {**task["fan_out"], "size": 99}}, "E_CONFLICT"),
    "the id of a sibling": (lambda task: {**task, "task_id": derive_task_id("good", 0)}, "E_CONFLICT"),
    "the index of a sibling": (lambda task: {**task, "task_id": "another", "index": 0}, "E_CONFLICT"),
}


def lone(task: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A task like this in a fan-out of its own."""
    name = new_fan_out_id()
    return {**task, "task_id": name, "fan_out": {"id": name, "size": 1}, "index": 0, **changes}


def with_arg(task: dict[str, Any], raw: bytes) -> bytes:
    """A record of `task` whose arg is these very bytes."""
    head = ormsgpack.packb({name: value for name, value in task.items() if name != "arg"})
    return bytes([head[0] + 1]) + head[1:] + ormsgpack.packb("arg") + raw


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_each_mistake_that_a_producer_can_make_is_parked_with_its_code(rig: Rig, topic: Topic) -> None:
    good = build_fan_out("t1", [("count_line", args()[0])] * 2, topic=topic.name, fan_out_id="good")
    first, second = good.records
    rig.write([first])
    rig.start_here(topic, registry=registry())
    rig.await_value("good", 0)

    task: dict[str, Any] = ormsgpack.unpackb(second.value or b"")
    records = [change(task) for change, _ in MISTAKES.values()]
    values = [record if isinstance(record, bytes) else ormsgpack.packb(record) for record in records]
    rig.write([Record(topic.name, None, value) for value in values])

    letters = sorted(rig.await_dead_letters(len(MISTAKES)), key=lambda letter: letter.offset)
    assert {name: letter.code for name, letter in zip(MISTAKES, letters, strict=True)} == {
        name: code for name, (_, code) in MISTAKES.items()
    }
    assert [letter.value for letter in letters] == values
    rig.write([second])
    rig.await_value("good", 1)
    rig.assert_sound()
