"""Classes that a graph declares: pydantic models and their URLs, dataclasses, named tuples and enums."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import Enum, Flag
from functools import cached_property, partial
from typing import Any, cast

from pydantic import AnyUrl, BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from fanfold_consumer.langgraph.codec import MARK, Codec, by_name, in_turn, only
from fanfold_consumer.langgraph.refused import Unfit

# No field of a model can have such a name; an extra one that has is refused.
_UNSET, _PRIVATE = f"{MARK}unset", f"{MARK}private"
_SCALARS = (type(None), bool, int, float, str)
_EMPTY = (list, dict, set)


def is_class(cls: type) -> bool:
    """Whether it is of a kind that can travel once it is declared."""
    if cls in (BaseModel, RootModel):
        return False  # nothing is an instance of just these
    kinds = (BaseModel, Enum, AnyUrl)
    return issubclass(cls, kinds) or dataclasses.is_dataclass(cls) or is_named_tuple(cls)


def is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def class_codec(cls: type, tag: str) -> Codec:
    """The codec of a class that `is_class`."""
    if issubclass(cls, Flag):
        return Codec(cls, tag, lambda value: [value.value], lambda parts: cls(only(int, parts)))
    if issubclass(cls, Enum):
        return Codec(cls, tag, lambda value: [value.name], lambda parts: cls[only(str, parts)])
    if issubclass(cls, AnyUrl):
        return Codec(cls, tag, lambda value: [str(value)], lambda parts: cls(only(str, parts)))
    if issubclass(cls, BaseModel):
        return Codec(cls, tag, _take_model, partial(_make_model, cls), named=True)
    if is_named_tuple(cls):
        return Codec(cls, tag, lambda value: in_turn(value._asdict()), lambda parts: cls(**by_name(parts)), named=True)
    return Codec(cls, tag, _take_dataclass, partial(_make_dataclass, cls), named=True)


def _take_dataclass(value: Any) -> list[Any]:
    cls = type(value)
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in getattr(value, "__dict__", {}).keys() - fields.keys():
        # What a cached property remembers is found again; what was set beside the fields would be lost.
        if not name.startswith("__") and not isinstance(getattr(cls, name, None), cached_property):
            raise Unfit(f"attribute {name!r}, which is no field")
    return in_turn(fields)


def _make_dataclass(cls: Any, parts: Sequence[Any]) -> Any:
    """By its constructor, so that what `__post_init__` checks is checked."""
    fields = by_name(parts)
    inits = {field.name: field.init for field in dataclasses.fields(cls)}
    if unknown := fields.keys() - inits.keys():
        raise Unfit(f"{len(unknown)} fields that it does not have")
    after = {name: fields.pop(name) for name in list(fields) if not inits[name]}
    made = cls(**fields)
    for name, value in after.items():
        object.__setattr__(made, name, value)  # it may be frozen
    return made


def _take_model(value: BaseModel) -> list[Any]:
    """All that makes a model what it is: LangGraph writes the fields of a state that were *set*, and only those."""
    fields: dict[str, Any] = {}
    unset: list[str] = []
    for name, field in type(value).model_fields.items():
        item = value.__dict__[name]
        if name not in value.model_fields_set:
            if _is_default(field, item):
                continue
            unset.append(name)
        fields[name] = item
    for name, item in (value.model_extra or {}).items():
        if name.startswith(MARK):
            raise Unfit(f"an extra field whose name begins with {MARK}")
        fields[name] = item
    if unset:
        fields[_UNSET] = unset
    if value.__pydantic_private__:
        fields[_PRIVATE] = dict(value.__pydantic_private__)
    return in_turn(fields)


def _is_default(field: FieldInfo, item: Any) -> bool:
    """Whether a reader's own default is sure to be the same. A factory of the user's is not called to find out."""
    factory = field.default_factory
    default = cast(type, factory)() if factory in _EMPTY else field.default
    return type(item) is type(default) and bool(item == default) and (type(item) in _SCALARS or not item)


def _make_model(cls: type[BaseModel], parts: Sequence[Any]) -> BaseModel:
    """By its validators: what comes from Kafka is a model only if its class takes it for one."""
    fields = by_name(parts)
    unset: list[str] = fields.pop(_UNSET, [])
    private: dict[str, Any] = fields.pop(_PRIVATE, {})
    if cls.model_config.get("extra") != "allow" and (unknown := fields.keys() - cls.model_fields.keys()):
        raise Unfit(f"{len(unknown)} fields that it does not have")
    if private.keys() - cls.__private_attributes__.keys():
        raise Unfit("private attributes that it does not have")
    try:
        made = cls.model_validate(
            fields["root"] if issubclass(cls, RootModel) else fields, by_alias=False, by_name=True
        )
    except ValidationError as error:
        raise Unfit(_problems(cls, error)) from error
    if type(made) is not cls:
        raise Unfit(f"its validators make a {type(made).__name__} of it")
    object.__setattr__(made, "__pydantic_fields_set__", fields.keys() - set(unset))  # it may be frozen
    for name, item in private.items():
        setattr(made, name, item)
    return made


def _problems(cls: type[BaseModel], error: ValidationError) -> str:
    """Which fields are wrong, without what is in them."""
    problems = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        problems.append(f"{name}: {problem['type']}" if name in cls.model_fields else problem["type"])
    return ", ".join(problems[:5])
