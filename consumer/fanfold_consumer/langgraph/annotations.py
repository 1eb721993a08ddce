"""Which classes a graph's schemas declare, at any depth of their fields' types."""

from __future__ import annotations

import typing
from collections.abc import Container, Iterable, Iterator
from typing import Any

from langgraph.graph import StateGraph
from pydantic import BaseModel
from typing_extensions import is_typeddict

from fanfold_consumer.langgraph.class_codecs import is_class


def classes_in(annotations: Iterable[Any], known: Container[type] = ()) -> tuple[frozenset[type], tuple[str, ...]]:
    """Classes that can travel, and why the fields of some could not be read.

    Args:
        known: classes that need no declaration; nothing is looked for in them.
    """
    found: set[type] = set()
    unresolved: list[str] = []
    left = list(annotations)
    seen: dict[int, Any] = {}  # by identity, as not all can be hashed; kept, so that no id is used again
    while left:
        annotation = left.pop()
        if id(annotation) in seen:
            continue
        seen[id(annotation)] = annotation
        try:
            left += _within(annotation, found, known)
        except Exception as error:
            unresolved.append(f"{getattr(annotation, '__qualname__', annotation)} ({error})")
    return frozenset(found), tuple(unresolved)


def schemas_of(builder: StateGraph[Any, Any, Any, Any]) -> Iterator[Any]:
    """Every schema of a graph, its nodes and the graphs that are its nodes."""
    yield from builder.schemas
    yield builder.context_schema
    for node in builder.nodes.values():
        yield node.input_schema
        inner = getattr(node.runnable, "builder", None)
        if isinstance(inner, StateGraph):
            yield from schemas_of(inner)


def _within(annotation: Any, found: set[type], known: Container[type]) -> Iterable[Any]:
    """The annotations that one is made of; raises whatever a name in them raises that does not exist."""
    if isinstance(annotation, list | tuple):
        return annotation  # the arguments in Callable[[...], ...]
    if isinstance(annotation, str | typing.ForwardRef):
        raise NameError(f"{annotation!r} was never resolved")
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return [annotation.__origin__]
    if origin is typing.Literal:
        return [type(choice) for choice in typing.get_args(annotation)]
    if origin is not None:
        return [origin, *typing.get_args(annotation)]
    if isinstance(annotation, typing.TypeVar):
        return [annotation.__bound__, *annotation.__constraints__]
    if not isinstance(annotation, type):
        # NewType, and `type X = ...` of Python 3.12
        return [getattr(annotation, "__supertype__", None), getattr(annotation, "__value__", None)]
    if annotation in known:
        return []
    if is_class(annotation):
        found.add(annotation)
    elif not is_typeddict(annotation):
        return []
    if issubclass(annotation, BaseModel):
        return [field.annotation for field in annotation.model_fields.values()]
    return typing.get_type_hints(annotation, include_extras=True).values()
