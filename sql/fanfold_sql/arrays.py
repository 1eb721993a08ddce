"""Array parameters in Postgres' binary format, a whole column at once.

A driver encodes an array element by element, in Python: for the columns of a commit that took longer than everything
else the client does for it. The format is that of `array_recv`: five numbers (dimensions, whether there are nulls, the
element's type, length, lower bound), then each element behind its length in bytes; -1 is a null.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import Struct, pack
from typing import Any, ClassVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_header = Struct(">iiiii").pack
_length = Struct(">i").pack
_LENGTHS = [_length(size) for size in range(1024)]
_NULL = _length(-1)


class Column:
    """Values of one array parameter. Each subclass is a type of Postgres; the values may be None."""

    __slots__ = ("values",)
    element_oid: ClassVar[int]
    array_oid: ClassVar[int]

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values

    def binary(self) -> bytes:
        values = self.values
        if not values:
            return _header(0, 0, self.element_oid, 0, 0)[:12]
        has_null = None in values
        return _header(1, has_null, self.element_oid, len(values), 1) + self._elements(values, has_null)

    def _elements(self, values: Sequence[Any], has_null: bool) -> bytes:
        raise TypeError


class _Numbers(Column):
    __slots__ = ()
    width: ClassVar[int]
    code: ClassVar[str]

    def _elements(self, values: Sequence[Any], has_null: bool) -> bytes:
        width, code = self.width, self.code
        if has_null:
            number = Struct(f">i{code}").pack
            return b"".join([_NULL if value is None else number(width, value) for value in values])
        interleaved = [width] * (2 * len(values))
        interleaved[1::2] = values
        return pack(f">{f'i{code}' * len(values)}", *interleaved)


class Int4s(_Numbers):
    __slots__ = ()
    element_oid, array_oid, width, code = 23, 1007, 4, "i"


class Int8s(_Numbers):
    __slots__ = ()
    element_oid, array_oid, width, code = 20, 1016, 8, "q"


class Bools(_Numbers):
    __slots__ = ()
    element_oid, array_oid, width, code = 16, 1000, 1, "?"


class Byteas(Column):
    __slots__ = ()
    element_oid, array_oid = 17, 1001

    def _elements(self, values: Sequence[Any], has_null: bool) -> bytes:
        if has_null:
            return b"".join([_NULL if value is None else _length(len(value)) + value for value in values])
        lengths = [_LENGTHS[size] if (size := len(value)) < 1024 else _length(size) for value in values]
        return b"".join(chain.from_iterable(zip(lengths, values, strict=True)))


class Texts(Byteas):
    __slots__ = ()
    element_oid, array_oid = 25, 1009

    def _elements(self, values: Sequence[Any], has_null: bool) -> bytes:
        encoded = [None if value is None else value.encode() for value in values]
        return super()._elements(encoded, has_null)


class Jsonbs(Byteas):
    """JSON as text. Its binary form is that text behind the number of its version."""

    __slots__ = ()
    element_oid, array_oid = 3802, 3807

    def _elements(self, values: Sequence[Any], has_null: bool) -> bytes:
        encoded = [None if value is None else b"\1" + value.encode() for value in values]
        return super()._elements(encoded, has_null)


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Column) -> bytes:
        return obj.binary()


for _column in (Int4s, Int8s, Bools, Byteas, Texts, Jsonbs):
    # One class each, because psycopg reads a parameter's type off its dumper's class. The columns are our own types, so
    # nobody else's parameters change.
    psycopg.adapters.register_dumper(
        _column, type(f"{_column.__name__}Dumper", (_ColumnDumper,), {"oid": _column.array_oid})
    )
