"""The records that move through the fleet: a task on its way to a handler, and one that needs nothing but a commit.

They are msgspec structs because each task makes one of each: a frozen dataclass takes six times as long to make. The
garbage collector need not look at them (`gc=False`, as for what is on the wire): nothing they hold leads back to them,
and thousands in flight were a seventh of a member's processor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import methodcaller
from typing import cast

import msgspec
from confluent_kafka import Message

from fanfold_consumer.assignment import Partition
from fanfold_consumer.relay import Publication
from fanfold_schemas import Task
from fanfold_sql import DeadLetter, Finished, OutboxRecord

HeaderList = list[tuple[str, bytes | None]]
NOWHERE = -1
# The client sets an error and returns a list all the same. A plain call lets that pass once the interpreter has
# specialised it, and the error comes up wherever one is looked for next; this call looks at once.
_ask_for_headers = methodcaller("headers")


def readable_headers(message: Message) -> HeaderList | None:
    """A record's headers as they are on the wire: names may repeat, values are bytes or absent.

    None: one of the names is no UTF-8, and the client gives none of them.
    """
    try:
        headers = cast("HeaderList", _ask_for_headers(message) or [])
    except (SystemError, UnicodeDecodeError):
        return None
    # Asked a second time, the client gives pairs without the names that it could not read: nothing at all where an
    # object should be, which ends the process as soon as somebody touches it.
    return None if any(repr(pair).startswith("(<NULL>") for pair in headers) else list(headers)


def header_list(message: Message) -> HeaderList:
    """The same, with none where they cannot be read."""
    return readable_headers(message) or []


class _AsMessage:
    def __init__(self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> None:
        self._key, self._value, self._headers = key, value, list(headers)

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> HeaderList:
        return self._headers


def as_message(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> Message:
    """A record that no client delivered, as one would have, as far as anybody looks."""
    return cast("Message", _AsMessage(key, value, headers))


class Delivery(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A record as it came, under the claim it came under; or a fold in place, which came from nowhere.

    `in_place`: the row of a fold that runs where its fan-out was completed. Its claim is one of that commit, its offset
    `NOWHERE`, and its message the record that it becomes if it comes to anything but a result.
    """

    partition: Partition
    offset: int
    message: Message
    size: int
    in_place: Publication | None = None


class Work(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A decoded task that its handler must run."""

    delivery: Delivery
    task: Task
    arg_hash: int


class Completion(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A delivery that is finished: with a result, a dead letter, both, or neither (known already, refused).

    `dropped`: it is not finished at all. Its partition goes to another member, who runs it.
    """

    delivery: Delivery
    result: Finished | None = None
    dead_letter: DeadLetter | None = None
    outbox: tuple[OutboxRecord, ...] = ()
    dropped: bool = False

    @property
    def payload_bytes(self) -> int:
        size = 0
        if self.result is not None and self.result.payload is not None:
            size = len(self.result.payload)
        if self.outbox:
            size += sum(len(record.value or b"") for record in self.outbox)
        if self.dead_letter is not None:
            size += len(self.dead_letter.value or b"")
        return size
