"""One exception for everything that may not be on the wire, with a code a program can rely on."""

from __future__ import annotations

from typing import Literal

Code = Literal["E_FRAME", "E_LIMIT", "E_VALUE", "E_EXT", "E_SCHEMA", "E_CONFLICT"]


class SchemaError(ValueError):
    """A record, argument or result that breaks the wire contract.

    Attributes:
        code: stable name of the kind of refusal: `E_FRAME` (not one whole msgpack map), `E_LIMIT` (too big, deep,
            many or long), `E_VALUE` (NaN, infinity, NUL, an integer beyond int64), `E_EXT` (an extension type),
            `E_SCHEMA` (a field is missing or of the wrong type), `E_CONFLICT` (contradicts what is stored already).
        path: where in the record, as in `$.fan_out.size`; `$` is the record itself. It leaves out positions in lists,
            and keys that do not look like a field's name: they may be data.
        detail: what is wrong there, with the value and the limit; never the payload.
    """

    def __init__(self, code: Code, path: str, detail: str) -> None:
        super().__init__(f"{code} at {path}: {detail}")
        self.code = code
        self.path = path
        self.detail = detail

    def __reduce__(self) -> tuple[type[SchemaError], tuple[Code, str, str]]:
        return type(self), (self.code, self.path, self.detail)
