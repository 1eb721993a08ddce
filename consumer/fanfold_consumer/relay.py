"""From the outbox to Kafka, each record at least once: our own after the commit, others' when their lease ran out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from fanfold_consumer.events import log
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_producer.errors import ProducerError
from fanfold_producer.record import Record
from fanfold_producer.sender import Sender
from fanfold_schemas import (
    FOLD_INDEX,
    Task,
    derive_fold_task_id,
    encode_task,
    task_headers,
    unpack_headers,
)
from fanfold_sql import FoldOf, OutboxRecord, OutboxRow, Store

CLAIM_MAX = 500
SEND_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Publication:
    """A leased outbox row as a record."""

    outbox_id: int
    record: Record


class Relay:
    """Publishes outbox rows and acknowledges them.

    Args:
        interval_s: how often rows that others left are looked for.
        lease_ms: how long a claimed row is ours.
    """

    def __init__(
        self,
        store: Store,
        sender: Sender,
        patience: Patience,
        metrics: Metrics,
        *,
        interval_s: float,
        lease_ms: int,
    ) -> None:
        self._store = store
        self._sender = sender
        self._patience = patience
        self._metrics = metrics
        self._interval_s = interval_s
        self._lease_ms = lease_ms
        self._own: deque[Publication] = deque()
        self._arrived = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()

    def publish(self, publications: list[Publication]) -> None:
        """Publish rows of our own commit, which are leased to us."""
        self._own.extend(publications)
        self._arrived.set()
        self._settled.clear()

    async def settle(self, bound_s: float) -> None:
        """Wait until our own rows are published, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), bound_s)

    async def work_own(self) -> None:
        """Publish what our commits wrote, at once."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._own:
                await self._deliver([self._own.popleft() for _ in range(min(CLAIM_MAX, len(self._own)))])
            self._settled.set()

    async def work_left(self) -> None:
        """Publish what is due and nobody's: delayed records, `enqueue`, and rows of members that died."""
        while True:
            rows = await self._patience.call(
                "claim_outbox", lambda: self._store.claim_outbox(limit=CLAIM_MAX, lease_ms=self._lease_ms)
            )
            publications = [found for row in rows if (found := _publication(row)) is not None]
            if publications:
                await self._deliver(publications)
            if len(rows) < CLAIM_MAX:
                await asyncio.sleep(self._interval_s)

    async def _deliver(self, batch: list[Publication]) -> None:
        try:
            await self._sender.asend([publication.record for publication in batch], SEND_TIMEOUT_S)
            sent = batch
        except ProducerError:
            # One bad record (a topic that is gone) must not keep the others: each for itself.
            answers = await asyncio.gather(*(self._send_one(publication) for publication in batch))
            sent = [publication for publication, there in zip(batch, answers, strict=True) if there]
        if sent:
            self._metrics.published(len(sent))
            ids = [publication.outbox_id for publication in sent]
            await self._patience.call("ack_outbox", lambda: self._store.ack_outbox(ids))

    async def _send_one(self, publication: Publication) -> bool:
        try:
            await self._sender.asend([publication.record], SEND_TIMEOUT_S)
            return True
        except ProducerError as error:
            log.warning(
                "outbox.publish_failed",
                outbox_id=publication.outbox_id,
                topic=publication.record.topic,
                error=str(error),
            )
            return False


def fold_task(fold: FoldOf) -> Task:
    """The fold task of a complete fan-out."""
    assert fold.fan_out.fold is not None
    return Task(
        task_id=derive_fold_task_id(fold.fan_out.id),
        thread_id=fold.thread_id,
        fan_out=fold.fan_out,
        index=FOLD_INDEX,
        node=fold.fan_out.fold,
        base=fold.base,
        run=fold.run,
    )


def fold_record(topic: str, fold: FoldOf) -> Record:
    """The fold task as a record. Keyed by thread: folds of one thread stay in one partition."""
    task = fold_task(fold)
    return Record(topic, fold.thread_id.encode(), encode_task(task), tuple(task_headers(task)))


def row_record(row: OutboxRecord | OutboxRow) -> Record:
    """The record that an outbox row keeps."""
    return Record(row.topic, row.key, row.value, tuple(unpack_headers(row.headers)))


def _publication(row: OutboxRow) -> Publication | None:
    """None for a row that is no record: anybody may call `fanfold.enqueue`, and one bad row must not end each member
    that leases it, one after another. It stays, and is tried and named again when its lease is over."""
    try:
        record = row_record(row) if row.fold_of is None else fold_record(row.topic, row.fold_of)
        headers: Iterable[tuple[object, object]] = record.headers
        for name, value in headers:
            if not isinstance(name, str) or not isinstance(value, bytes | str | None):
                raise TypeError(f"a header is {type(name).__name__}: {type(value).__name__}, not text: bytes")
    except Exception as error:
        log.warning("outbox.publish_failed", outbox_id=row.outbox_id, topic=row.topic, error=f"no record: {error}")
        return None
    return Publication(row.outbox_id, record)
