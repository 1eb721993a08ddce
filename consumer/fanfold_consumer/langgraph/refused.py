"""Why a value may not travel, and how that makes its way out of the recursion and learns its path."""

from __future__ import annotations

import re

from fanfold_schemas import SchemaError
from fanfold_schemas.errors import Code

_is_name = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}\Z").match


class Unfit(Exception):
    """An object, or its parts, that a codec refuses; the text has nothing in it that could be payload."""


class Refused(Exception):
    """Raised where the value is; every map or object around it adds its key, so a path costs nothing until then."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.keys: list[object] = []

    @classmethod
    def by(cls, error: Exception, code: Code, detail: str) -> Refused:
        """Because of an error of a codec or a class. Of any but our own only the kind: its text may quote the value."""
        return cls(code, f"{detail}: {error if isinstance(error, Unfit) else type(error).__name__}")

    def error(self) -> SchemaError:
        # As in the wire's own errors: a key that looks like no field's name may be data, so it is not shown.
        names = (f".{key}" if isinstance(key, str) and _is_name(key) else "[...]" for key in reversed(self.keys))
        return SchemaError(self.code, "$" + "".join(names), self.detail)
