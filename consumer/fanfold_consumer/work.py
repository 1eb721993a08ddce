"""The records that move through the fleet: a task on its way to a handler, and one that needs nothing but a commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from confluent_kafka import Message

from fanfold_consumer.assignment import Partition
from fanfold_schemas import Task
from fanfold_sql import DeadLetter, Finished, OutboxRecord

HeaderList = list[tuple[str, bytes | None]]


def header_list(message: Message) -> HeaderList:
    """A record's headers as they are on the wire: names may repeat, values are bytes or absent."""
    return list(cast("HeaderList", message.headers() or []))


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A record as it came, under the claim it came under."""

    partition: Partition
    offset: int
    message: Message
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A decoded task that its handler must run."""

    delivery: Delivery
    task: Task
    arg_hash: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
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
        size = sum(len(record.value or b"") for record in self.outbox)
        if self.result is not None and self.result.payload is not None:
            size += len(self.result.payload)
        if self.dead_letter is not None:
            size += len(self.dead_letter.value or b"")
        return size
