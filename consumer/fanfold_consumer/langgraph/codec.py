"""One row of the table of types: how an object is taken apart, and made of its parts again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanfold_consumer.langgraph.refused import Unfit

MARK = "~"
"""Begins a tag, and so the list of an object's parts."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Parts are values of any type in the table; whoever holds the table takes them apart in turn.

    Attributes:
        cls: of exactly this type; what a subclass adds would be lost.
        tag: what stands for the type on the wire. Only a key of the table: nothing is ever imported by it.
        take: the parts of an object. All that `make` cannot restore must be refused here, by any exception.
        make: an object of its parts. They come from Kafka: it may be given anything, and refuses by any exception.
        named: parts are names and values in turn, so that an error can tell the path.
        unordered: the order of the parts means nothing and differs between processes; they are sorted, because a task
            with another arg under the same task_id is a conflict.
    """

    cls: type
    tag: str
    take: Callable[[Any], Sequence[Any]]
    make: Callable[[Sequence[Any]], Any]
    named: bool = False
    unordered: bool = False


def in_turn(fields: Mapping[str, Any]) -> list[Any]:
    """Names and values as parts."""
    return [part for field in fields.items() for part in field]


def by_name(parts: Sequence[Any]) -> dict[str, Any]:
    """Parts as names and values.

    Raises:
        Unfit: they are not that, or a name comes twice.
    """
    names = parts[::2]
    if len(parts) % 2 or any(type(name) is not str for name in names) or len(set(names)) < len(names):
        raise Unfit("parts that are not names and values in turn")
    return dict(zip(names, parts[1::2], strict=True))


def only(kind: type, parts: Sequence[Any]) -> Any:
    """The one part there is, of exactly this type.

    Raises:
        Unfit: it is not that.
    """
    (part,) = parts
    if type(part) is not kind:
        raise Unfit(f"a part that is no {kind.__name__}")
    return part
