"""Claim checks: a small token in place of a large value, which waits in an object store (Hohpe & Woolf).

A token names no place. Where its object lies follows from the fan-out and the hash of its bytes, so no record can make
anybody read a path or a URL of its choice.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec

from fanfold_schemas.errors import SchemaError
from fanfold_schemas.ids import ID_PATTERN
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]

# A payload that is one ext value of code 1 with 40 bytes of body, and nothing else. Values of users have no ext types,
# so none of them can be taken for it.
_PAYLOAD_PREFIX = b"\xc7\x28\x01"
_SHA256_BYTES = 32
_SIZE_BYTES = 8
_PAYLOAD_BYTES = len(_PAYLOAD_PREFIX) + _SHA256_BYTES + _SIZE_BYTES

# One character for one, both outside an id's own: a segment of a path with neither dots nor colons, no longer than the
# id, from which the id comes back.
_TO_SEGMENT = str.maketrans(".:", ",=")
_FROM_SEGMENT = str.maketrans(",=", ".:")
_is_segment = re.compile(ID_PATTERN.replace("._:", ",_=")).match
_is_sha256 = re.compile(r"^[0-9a-f]{64}\Z").match


class ClaimCheck(msgspec.Struct, frozen=True):
    """Stands for a value of so many encoded bytes with this SHA-256, in lower-case hex."""

    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=1, le=CLAIM_CHECK_BYTES_MAX)]


def claim_check_for(data: bytes) -> ClaimCheck:
    """The claim check of an encoded value."""
    return ClaimCheck(hashlib.sha256(data).hexdigest(), len(data))


def object_key(fan_out_id: str, check: ClaimCheck) -> str:
    """Where the object of a fan-out lies, below the root of the store."""
    return f"{fan_out_id.translate(_TO_SEGMENT)}/{check.sha256}"


def fan_out_of_key(key: str) -> str | None:
    """Whose object this is; None: no claim check leads here, so it is none of ours."""
    segment, _, sha256 = key.partition("/")
    return segment.translate(_FROM_SEGMENT) if _is_segment(segment) and _is_sha256(sha256) else None


def encode_check(check: ClaimCheck) -> bytes:
    """The payload of a result whose value is behind a claim check."""
    return _PAYLOAD_PREFIX + bytes.fromhex(check.sha256) + check.bytes.to_bytes(_SIZE_BYTES, "big")


def payload_check(payload: bytes) -> ClaimCheck | None:
    """The claim check that a stored payload is; None: it is a value itself.

    Raises:
        SchemaError: a claim check over more bytes than there may be (`E_LIMIT`).
    """
    if len(payload) != _PAYLOAD_BYTES or not payload.startswith(_PAYLOAD_PREFIX):
        return None
    size = int.from_bytes(payload[-_SIZE_BYTES:], "big")
    if not 1 <= size <= CLAIM_CHECK_BYTES_MAX:
        raise SchemaError("E_LIMIT", "$", f"a claim check of {size} bytes, 1 to {CLAIM_CHECK_BYTES_MAX} can be")
    return ClaimCheck(payload[len(_PAYLOAD_PREFIX) : -_SIZE_BYTES].hex(), size)
