"""The records that travel: a Send as its caller writes it, and the task and its fan-out as they are on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from fanfold_schemas.claim_check import ClaimCheck
from fanfold_schemas.ids import ID_PATTERN, check_id
from fanfold_schemas.limits import FAN_OUT_SIZE_MAX, INT64_MAX, RUN_MAX

Id = Annotated[str, "1 to 200 of [A-Za-z0-9._:-]"]
"""Checked after all else, in one search: msgspec would call back into Python for each, and take longer than for all the
rest of the task. `STRICT_TASK` says so in types."""
Run = Annotated[int, msgspec.Meta(ge=1, le=RUN_MAX)]


WIRE_VERSION = 1
FOLD_INDEX = -1
"""The index of a fold among its own fan-out's tasks, which are 0 .. size - 1."""


class Send(msgspec.Struct, frozen=True):
    """One map task as its caller asks for it: the handler's name, its argument and, if the caller cares, its id.

    The first two fields are those of `langgraph.types.Send`, which is accepted wherever this is.
    """

    node: str
    arg: Any = None
    task_id: str | None = None


class FanOut(msgspec.Struct, frozen=True, gc=False):
    """What all tasks of one fan-out agree on; a task that disagrees with its siblings is refused.

    Attributes:
        size: number of tasks, 1 to 100,000.
        fold: name of a built-in fold or of a handler declared with `@fold`; none: the results stand for themselves.
        quorum: so many successes complete the fan-out, 1 to size; none: all tasks do, failed ones included.
        deadline_ms: unix time in milliseconds at which it ends, complete or not; none: never.
        max_failures: more failed tasks than this end it as failed; none: it completes with as many as there are.
        on_deadline: `fold`: its deadline completes it with the results it has; none: its deadline fails it.
    """

    id: Id
    size: Annotated[int, msgspec.Meta(ge=1, le=FAN_OUT_SIZE_MAX)]
    fold: Id | None = None
    quorum: Annotated[int, msgspec.Meta(ge=1, le=FAN_OUT_SIZE_MAX)] | None = None
    deadline_ms: Annotated[int, msgspec.Meta(ge=1, le=INT64_MAX)] | None = None
    max_failures: Annotated[int, msgspec.Meta(ge=0, le=FAN_OUT_SIZE_MAX)] | None = None
    on_deadline: Literal["fold"] | None = None


class Task(msgspec.Struct, frozen=True, gc=False):
    """One record of the topic.

    Attributes:
        arg: what the handler gets; None also when `arg_check` stands for it.
        arg_check: the claim check of an arg that is too large for a record.
        base: the thread's clock that this task was derived from; empty: it can never be stale.
        index: 0 .. size - 1, or -1 for the fold itself.
        run: replay generation, from 1. A higher run may overwrite a result, the same run never does.
        attempt: how often this run was tried, from 1.
    """

    task_id: Id
    thread_id: Id
    fan_out: FanOut
    index: Annotated[int, msgspec.Meta(ge=FOLD_INDEX, lt=FAN_OUT_SIZE_MAX)]
    node: Id
    arg: Any = None
    base: dict[str, int] = {}
    run: Run = 1
    attempt: Annotated[int, msgspec.Meta(ge=1, le=RUN_MAX)] = 1
    arg_check: ClaimCheck | None = None
    v: int = WIRE_VERSION

    @property
    def is_fold(self) -> bool:
        return self.index == FOLD_INDEX


def _strict(struct: type[msgspec.Struct], **nested: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same struct with what an id is in its types."""
    pattern = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
    types = {Id: pattern, Id | None: pattern | None}
    hints = get_type_hints(struct, include_extras=True)
    fields: list[Any] = []
    for field in msgspec.structs.fields(struct):
        hint = nested.get(field.name) or types.get(hints[field.name], hints[field.name])
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        fields.append((field.name, hint) if field.required else (field.name, hint, default))
    return msgspec.defstruct(struct.__name__, fields, namespace={"__doc__": struct.__doc__}, frozen=True)


STRICT_TASK = _strict(Task, fan_out=_strict(FanOut))


def to_send(value: object, path: str = "$") -> Send:
    """Make a `Send` of what callers pass: ours, LangGraph's, or a `(node, arg)` pair.

    Raises:
        SchemaError: the node or the brought task_id is no identifier.
        TypeError: it is none of the three.
    """
    if isinstance(value, Send):
        send = value
    elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        send = Send(value[0], value[1])
    elif hasattr(value, "node") and hasattr(value, "arg"):
        # LangGraph's Send, recognised by shape so that langgraph stays an optional dependency.
        send = Send(value.node, value.arg)
    else:
        raise TypeError(f"{path}: expected a Send or a (node, arg) pair, got {type(value).__name__}")
    check_id(send.node, f"{path}.node")
    if send.task_id is not None:
        check_id(send.task_id, f"{path}.task_id")
    return send
