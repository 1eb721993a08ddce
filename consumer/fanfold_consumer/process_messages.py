"""What a member and its handler processes say to each other: typed msgpack in frames, nothing pickled.

A frame is the length of its message, then the message. In order: `Start` once; then for each call `Call`, answered by
`Began` and one of `Returned` or `Failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from fanfold_consumer.context import TaskContext
from fanfold_schemas import VectorClock
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX

LENGTH_BYTES = 4
FRAME_BYTES_MAX = 4 * CLAIM_CHECK_BYTES_MAX
"""Room for the largest value there is and for Sends beside it, or for the values of a fold. Both ends hold it whole."""


class FrameTooLarge(ValueError):
    """The message must not be sent. `size` is what it would take."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes, at most {FRAME_BYTES_MAX} go to or from a process")


class Start(msgspec.Struct, frozen=True):
    """How the process comes to see the same modules, and to log in the same way. `logs`: format and level."""

    path: list[str]
    logs: tuple[bool, str] | None


class Call(msgspec.Struct, frozen=True):
    """Which handler to run: its name, the module that declares it, and the function's name there."""

    name: str
    module: str
    qualname: str
    arg: Any
    context: TaskContext | None


class Began(msgspec.Struct, frozen=True, tag=True):
    """The handler is there and has its call: from here on it is its own time."""


class Sent(msgspec.Struct, frozen=True):
    """A `Sends`: (node, place in `args`, task_id) each. An arg that many share comes once."""

    sends: list[tuple[str, int, str | None]]
    args: list[Any]
    fold: str | None
    base: dict[str, int] | None
    quorum: int | None
    max_failures: int | None


class Returned(msgspec.Struct, frozen=True, tag=True):
    """What the handler returned; `value` is encoded as it will be stored."""

    value: bytes
    sent: Sent | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """How it failed. `E_HANDLER`: it raised a `kind`, of which its `retry_on` says `again` or not.

    `after_s`: it was a RetryAfter, and `text` is its reason alone.
    """

    code: Literal["E_ARG", "E_RESULT", "E_HANDLER"]
    text: str
    kind: str = ""
    again: bool = False
    after_s: float | None = None


Answer = Began | Returned | Failed


def _plain(value: Any) -> Any:
    if isinstance(value, VectorClock):
        return dict(value)
    raise TypeError(f"{type(value).__name__} does not travel")


def _from_plain(kind: type[Any], value: Any) -> Any:
    return VectorClock(value) if kind is VectorClock else value


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
decode_start = msgspec.msgpack.Decoder(Start).decode
decode_call = msgspec.msgpack.Decoder(Call, dec_hook=_from_plain).decode
decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder[Answer](Answer).decode


def frame(message: Start | Call | Answer) -> bytearray:
    """A message as it is sent. Raises `FrameTooLarge`."""
    # Encoded behind room for its length: a large message is not copied to get it in front.
    data = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, data, LENGTH_BYTES)
    size = len(data) - LENGTH_BYTES
    if size > FRAME_BYTES_MAX:
        raise FrameTooLarge(size)
    data[:LENGTH_BYTES] = size.to_bytes(LENGTH_BYTES, "big")
    return data
