"""Names of things: which strings are identifiers, and how identifiers that nobody chose are derived."""

from __future__ import annotations

import os
import re
import string
import time
import uuid
from collections.abc import Sequence

from fanfold_schemas.errors import SchemaError
from fanfold_schemas.limits import ID_CHARS_MAX

ID_PATTERN = rf"^[A-Za-z0-9._:\-]{{1,{ID_CHARS_MAX}}}\Z"
_is_id = re.compile(ID_PATTERN).match
_ID_CHARACTERS = f"{string.ascii_letters}{string.digits}._:-".encode()

NAMESPACE = uuid.UUID("8f1f5a5e-5f0e-5f6a-9a55-fa0f01d00001")
"""Namespace of every derived id. Changing it would make every redelivery look like new work."""


def check_id(value: object, path: str) -> str:
    """Return `value` if it is an identifier: 1 to 200 of `[A-Za-z0-9._:-]`.

    Raises:
        SchemaError: `E_SCHEMA` if it is no string, `E_LIMIT` if it is empty, too long, or has another character.
    """
    if not isinstance(value, str):
        raise SchemaError("E_SCHEMA", path, f"expected a string, got {type(value).__name__}")
    if not _is_id(value):
        raise SchemaError(
            "E_LIMIT",
            path,
            f"an id has 1 to {ID_CHARS_MAX} characters of [A-Za-z0-9._:-]; this one has {len(value)}: {value[:40]!r}",
        )
    return value


def are_ids(values: Sequence[str]) -> bool:
    """Whether all of these are identifiers, in half the time of a search in each."""
    for value in values:
        if not 1 <= len(value) <= ID_CHARS_MAX:
            return False
    characters = "".join(values)
    return characters.isascii() and not characters.encode().translate(None, _ID_CHARACTERS)


def new_fan_out_id() -> str:
    """A fresh fan-out id: a UUIDv7 (RFC 9562), so that ids made one after another lie side by side in an index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def derive_task_id(fan_out_id: str, index: int) -> str:
    """The id of task `index` if its caller brought none: the same on every publish, so publishing twice is harmless."""
    return str(uuid.uuid5(NAMESPACE, f"{fan_out_id}/{index}"))


def derive_fold_task_id(fan_out_id: str) -> str:
    """The id of the fold of a fan-out. A later run folds again under the same id and a higher run."""
    return str(uuid.uuid5(NAMESPACE, f"{fan_out_id}/fold"))


def derive_child_fan_out_id(task_id: str, run: int) -> str:
    """The id of the fan-out that task `task_id` opened by returning Sends in run `run`."""
    return str(uuid.uuid5(NAMESPACE, f"{task_id}/sends/{run}"))
