"""The values of a graph as plain msgpack, by a table of exact types: never by a name that bytes bring along.

What JSON could hold stays as it is. Anything else becomes a list that begins with a tag, `["~UUID", bytes]` or
`["~AIMessage", "content", "hello"]`: one level, as the thing itself has. A list of the user's that begins like one gets
a tag of its own, so nothing can be mistaken for it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import is_not
from typing import Any, TypeVar

from langgraph.graph import StateGraph
from typing_extensions import is_typeddict

from fanfold_consumer.errors import ConfigError
from fanfold_consumer.langgraph.annotations import classes_in, schemas_of
from fanfold_consumer.langgraph.builtin_codecs import BUILTIN_CODECS
from fanfold_consumer.langgraph.class_codecs import class_codec, is_class
from fanfold_consumer.langgraph.codec import MARK, Codec
from fanfold_consumer.langgraph.difference import difference
from fanfold_consumer.langgraph.langchain_codecs import LANGCHAIN_CODECS
from fanfold_consumer.langgraph.refused import Refused
from fanfold_schemas import SchemaError, pack_value
from fanfold_schemas.limits import DEPTH_MAX, INT64_MAX, INT64_MIN

T = TypeVar("T")

_ALWAYS = {codec.cls: codec for codec in (*BUILTIN_CODECS, *LANGCHAIN_CODECS)}
_TAGS = frozenset(codec.tag for codec in _ALWAYS.values())
_is_tag = re.compile(r"~[A-Za-z_][A-Za-z0-9_.\[\], <>]{0,199}\Z").match


@dataclass(frozen=True)
class Types:
    """What may be in the values of one graph: the same on both sides, if both have the same graph.

    Attributes:
        declared: classes of the graph's schemas, and those that were added.
        adapted: types with functions of the user's own.
        unresolved: annotations that could not be read, and why. It matters if a type that they name is refused.
    """

    declared: frozenset[type] = frozenset()
    adapted: tuple[Codec, ...] = ()
    unresolved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = Counter(map(_full_name, self.classes))
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ConfigError([f"two different classes are named {name}: rename one of them" for name in twice])

    def adding(self, *annotations: Any) -> Types:
        """The same table and more classes: models, dataclasses, named tuples, enums, and those in their fields.

        Args:
            annotations: classes, or whatever else may be the type of a field.

        Raises:
            ConfigError: one is a class of another kind, or has the name of another one.
        """
        found, unresolved = classes_in(annotations, known=_ALWAYS)
        others = [cls for cls in annotations if isinstance(cls, type) and not is_typeddict(cls)]
        if others := [cls for cls in others if cls not in found and cls not in _ALWAYS]:
            what = "is no model, dataclass, named tuple or enum: say how it travels, with adapting(...)"
            raise ConfigError([f"{cls!r} {what}" for cls in others])
        return replace(self, declared=self.declared | found, unresolved=(*self.unresolved, *unresolved))

    def adapting(self, cls: type[T], dump: Callable[[T], Any], load: Callable[[Any], T]) -> Types:
        """The same table and one more class of any kind.

        Args:
            dump: an object as one value of types in the table.
            load: the object again. Its argument comes from Kafka: refuse what is no such value, by any exception.
        """

        def make(parts: Sequence[Any]) -> Any:
            (part,) = parts
            return load(part)

        codec = Codec(cls, "", lambda value: [dump(value)], make)
        others = tuple(other for other in self.adapted if other.cls is not cls)
        return replace(self, declared=self.declared - {cls}, adapted=(*others, codec))

    @property
    def classes(self) -> frozenset[type]:
        """Every class beyond those that are always in the table."""
        return self.declared | {codec.cls for codec in self.adapted}

    def dump(self, value: Any) -> Any:
        """The value as what msgpack has types for. One that is plain already is returned as it is, not a copy.

        Raises:
            SchemaError: a type that is not in the table (`E_VALUE`; `path` says where), or nested too deep (`E_LIMIT`).
        """
        return _outermost(self._dump, value)

    def load(self, plain: Any) -> Any:
        """What `dump` made the plain value of. It may be anything: it comes from Kafka.

        Raises:
            SchemaError: a tag that is not in the table, or parts that its type refuses (`E_SCHEMA`); nested too deep
                (`E_LIMIT`). The record belongs to the dead letters.
        """
        return _outermost(self._load, plain)

    def check(self, value: Any) -> Any:
        """As `dump`, and certain that the other side will have the same value: it is loaded and dumped once more.

        Raises:
            SchemaError: as `dump`; or something of it would be lost on the way (`E_VALUE`).
        """
        plain = self.dump(value)
        if plain is value:
            return plain
        try:
            again = self.dump(self.load(plain))
        except SchemaError as error:
            raise SchemaError("E_VALUE", error.path, f"it could not be read again: {error.detail}") from error
        if pack_value(again) != pack_value(plain):
            named = {tag for tag, codec in self._by_tag.items() if codec.named}
            raise difference(plain, again, named).error()
        return plain

    @cached_property
    def _by_class(self) -> dict[type, Codec]:
        names = Counter(cls.__qualname__ for cls in self.classes)
        adapted = {codec.cls: codec for codec in self.adapted}
        table = dict(_ALWAYS)
        for cls in self.classes:
            name = cls.__qualname__
            # Without its module where that is enough: a program that is run has `__main__`, one that is imported not.
            tag = name if names[name] == 1 and name not in _TAGS else _full_name(cls)
            table[cls] = replace(adapted[cls], tag=tag) if cls in adapted else class_codec(cls, tag)
        return table

    @cached_property
    def _by_tag(self) -> dict[str, Codec]:
        return {MARK + codec.tag: codec for codec in self._by_class.values()}

    def _dump(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return value if _is_wire_text(value) else self._dump_parts(value)
        if kind is dict:
            return self._dump_dict(value)
        if kind is list:
            dumped = [self._dump(item) for item in value]
            if dumped and type(dumped[0]) is str and dumped[0].startswith(MARK):
                return [MARK + "list", *dumped]
            return dumped if any(map(is_not, dumped, value)) else value
        if value is None or kind is bool or kind is bytes:
            return value
        if kind is int:
            return value if INT64_MIN <= value <= INT64_MAX else self._dump_parts(value)
        if kind is float:
            return value if math.isfinite(value) else self._dump_parts(value)
        return self._dump_parts(value)

    def _dump_dict(self, value: dict[Any, Any]) -> Any:
        if not all(type(key) is str and _is_wire_text(key) for key in value):
            return self._dump_parts(value)
        dumped = {}
        for key, item in value.items():
            try:
                dumped[key] = self._dump(item)
            except Refused as refused:
                refused.keys.append(key)
                raise
        return dumped if any(map(is_not, dumped.values(), value.values())) else value

    def _dump_parts(self, value: Any) -> list[Any]:
        codec = self._by_class.get(type(value))
        if codec is None:
            raise Refused("E_VALUE", self._unknown(type(value)))
        try:
            parts = codec.take(value)
        except Exception as error:
            raise Refused.by(error, "E_VALUE", f"a {codec.tag} that cannot travel") from error
        dumped = list(_keyed(self._dump, parts, codec))
        if codec.unordered:
            dumped.sort(key=pack_value)
        return [MARK + codec.tag, *dumped]

    def _load(self, plain: Any) -> Any:
        kind = type(plain)
        if kind is list:
            if plain and type(plain[0]) is str and plain[0].startswith(MARK):
                return self._load_parts(*plain)
            loaded = [self._load(item) for item in plain]
            return loaded if any(map(is_not, loaded, plain)) else plain
        if kind is dict:
            return self._load_dict(plain)
        if plain is None or kind in (str, int, float, bool, bytes):
            return plain
        raise Refused("E_SCHEMA", f"a {kind.__name__}, which no record holds")

    def _load_dict(self, plain: dict[Any, Any]) -> Any:
        loaded = {}
        for key, item in plain.items():
            if type(key) is not str:
                raise Refused("E_SCHEMA", "a map key that is no text")
            try:
                loaded[key] = self._load(item)
            except Refused as refused:
                refused.keys.append(key)
                raise
        return loaded if any(map(is_not, loaded.values(), plain.values())) else plain

    def _load_parts(self, tag: str, *parts: Any) -> Any:
        codec = self._by_tag.get(tag)
        if codec is None:
            raise Refused(
                "E_SCHEMA",
                f"type {tag[1:] if _is_tag(tag) else '[...]'}, which is not in this graph's table: declare it in a "
                "schema of the graph that the member runs, or run the release of the graph that published it",
            )
        loaded = list(_keyed(self._load, parts, codec))
        try:
            return codec.make(loaded)
        except Exception as error:
            raise Refused.by(error, "E_SCHEMA", f"no {codec.tag} can be made of its parts") from error

    def _unknown(self, cls: type) -> str:
        """What to do about a type that is not in the table. It is not dumped as its base, which would lose the rest."""
        base = next((base for base in cls.__mro__[1:] if base in self._by_class), None)
        more = "" if base is None else f", but only its base {base.__qualname__}"
        name = cls.__qualname__
        if is_class(cls):
            what = f"declare it as the type of a field in a schema of the graph, or with Types.adding({name})"
        else:
            what = f"let the node make something plain of it, or say how it travels, with Types.adapting({name}, ...)"
        unread = f"; these annotations could not be read: {', '.join(self.unresolved)}" if self.unresolved else ""
        return f"a {_full_name(cls)}, which is not in this graph's table{more}: {what}, for both sides{unread}"


def declared_types(builder: StateGraph[Any, Any, Any, Any]) -> Types:
    """The table of a graph: what its schemas declare, of state, input, output, context and of its nodes.

    Graphs that are nodes are looked into. What a node calls inside itself does not travel as such.
    """
    found, unresolved = classes_in(schemas_of(builder), known=_ALWAYS)
    return Types(found, (), unresolved)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_wire_text(text: str) -> bool:
    """Whether a record may hold it: no NUL, and no half of a character, which UTF-8 has no bytes for."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _outermost(convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except Refused as refused:
        raise refused.error() from refused.__cause__
    except RecursionError:
        raise SchemaError("E_LIMIT", "$", f"nested deeper than {DEPTH_MAX}, or within itself") from None


def _keyed(convert: Callable[[Any], Any], parts: Sequence[Any], codec: Codec) -> Iterator[Any]:
    """Each part converted. One that is refused learns the name it has."""
    for position, part in enumerate(parts):
        try:
            yield convert(part)
        except Refused as refused:
            if codec.named and position % 2:
                refused.keys.append(parts[position - 1])
            raise
