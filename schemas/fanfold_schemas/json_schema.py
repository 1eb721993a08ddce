"""The JSON Schema of a record value, for producers in other languages: made of the types that the codec checks by.

It is about the map that msgpack decodes to. What no schema can say is said in its description.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fanfold_schemas.ids import NAMESPACE
from fanfold_schemas.limits import (
    BRANCH_CHARS_MAX,
    BRANCHES_MAX,
    DEPTH_MAX,
    INT64_MAX,
    NODES_MAX,
    RECORD_BYTES_MAX,
    STRING_BYTES_MAX,
)
from fanfold_schemas.task import FOLD_INDEX, STRICT_TASK, WIRE_VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What it means to a producer, where the attributes in the docstrings tell a handler.
_ABOUT = {
    "Task": f"""\
The value of one record, a msgpack map. Fields that are not named here may be there: a reader that does not know them \
ignores them, and keeps them where it sends the record on.

What a schema cannot say: a record has at most {RECORD_BYTES_MAX} bytes, {DEPTH_MAX} levels and {NODES_MAX} values, \
keys included; text is UTF-8 without NUL; text and bytes have at most {STRING_BYTES_MAX} bytes; keys are text and come \
once; integers fit int64 and are written as integers, never as floats; there are no extension types (timestamps are \
one), no NaN, no infinities, and no bytes after the map. index is below fan_out.size, fan_out.quorum at most \
fan_out.size, and the node of a fold is fan_out.fold. All tasks of a fan-out agree on fan_out, thread_id and base.""",
    "Task.v": "Version of the format. A reader refuses any other.",
    "Task.task_id": "What makes it the same task when it comes again: the UUIDv5 of the name `<fan_out.id>/<index>` in "
    f"the namespace {NAMESPACE}, or an id of your own that is the same each time.",
    "Task.thread_id": "The thread (conversation, graph run, job) it belongs to.",
    "Task.fan_out": "The fan-out it belongs to; a lone task is a fan-out of size 1.",
    "Task.index": f"Position in the fan-out, from 0, each of them once. {FOLD_INDEX} is the fold itself, which Fanfold "
    "publishes.",
    "Task.node": "Name of the handler.",
    "Task.arg": "What the handler gets: any msgpack value within the limits.",
    "Task.base": "The thread's clock that it was derived from, `{branch: counter}`; empty: it can never be stale.",
    "Task.run": "Replay generation. 1, but for records that a rerun publishes.",
    "Task.attempt": "Which attempt of this run it is.",
    "Task.arg_check": "In place of arg: the arg is an object in the claim store.",
    "FanOut": "What all tasks of one fan-out agree on. A task that disagrees with its siblings is refused.",
    "FanOut.id": "Unique among all fan-outs of all threads. Published again under the same id it is the same work.",
    "FanOut.size": "Number of tasks. The fan-out is complete when each of them has a result or has failed.",
    "FanOut.fold": "Built-in fold or handler that gets the results when it is complete; null: none.",
    "FanOut.quorum": "So many successes complete it, at most size; null: all tasks do.",
    "FanOut.deadline_ms": "Unix time in milliseconds at which it ends, complete or not; null: never.",
    "FanOut.max_failures": "More failed tasks than this end it as failed; null: any number may fail.",
    "FanOut.on_deadline": "`fold`: its deadline completes it with the results it has; null: it fails.",
    "ClaimCheck": "Stands for a value in the claim store.",
    "ClaimCheck.sha256": "SHA-256 of the encoded value, in lower-case hex.",
    "ClaimCheck.bytes": "Size of the encoded value.",
}

_NOTHING: dict[str, Any] = {"type": "null"}


def task_schema() -> dict[str, Any]:
    """The schema of version 1, draft 2020-12. The same for the same types."""
    _, definitions = msgspec.json.schema_components([STRICT_TASK], ref_template="#/$defs/{name}")
    for name, definition in definitions.items():
        definition["description"] = _ABOUT[name]
        for field, schema in definition["properties"].items():
            _adapt(schema)
            schema["description"] = _ABOUT[f"{name}.{field}"]
    task = definitions.pop("Task")
    properties = task["properties"]
    properties["v"] = {"const": WIRE_VERSION, "description": _ABOUT["Task.v"]}
    properties["base"] |= {
        "maxProperties": BRANCHES_MAX,
        "propertyNames": {"maxLength": BRANCH_CHARS_MAX, "pattern": r"^[^\x00]*$"},
        "additionalProperties": {"type": "integer", "format": "int64", "minimum": 0, "maximum": INT64_MAX},
    }
    return {
        "$schema": DIALECT,
        "$id": f"urn:fanfold:schema:task.v{WIRE_VERSION}",
        **task,
        "title": "Fanfold task",
        "properties": {"v": properties.pop("v"), **properties},
        "required": ["v", *task["required"]],
        "allOf": [
            {
                "description": "A fold task belongs to a fan-out with a fold.",
                "if": {"properties": {"index": {"const": FOLD_INDEX}}},
                "then": {"properties": {"fan_out": {"properties": {"fold": {"not": _NOTHING}}, "required": ["fold"]}}},
            },
            {
                "description": "A task has an arg or a claim check for it.",
                "not": {
                    "properties": {"arg": {"not": _NOTHING}, "arg_check": {"not": _NOTHING}},
                    "required": ["arg", "arg_check"],
                },
            },
        ],
        "$defs": definitions,
    }


def task_schema_text() -> str:
    """The same as indented JSON, as `fanfold schema` prints it."""
    return msgspec.json.format(msgspec.json.encode(task_schema()), indent=2).decode() + "\n"


def _adapt(schema: dict[str, Any]) -> None:
    """Python's dialect to JSON Schema's, for the schema of one field."""
    for part in (schema, *schema.get("anyOf", ())):
        if "pattern" in part:
            part["pattern"] = part["pattern"].replace("\\Z", "$")
        if part.get("type") == "integer":
            part["format"] = "int64"
