"""Folds in place: the member that completed a fan-out runs its fold at once, which spares it the way through Kafka.

The fold's row stays in the outbox meanwhile, leased to us. The commit that stores its result takes it out, or that of
the next attempt, which takes its place there. After anything else it is published like any other row, by us, or by
others when we died and the lease is over.
"""

from __future__ import annotations

import asyncio

from fanfold_consumer.assignment import Partition
from fanfold_consumer.execute import Executor
from fanfold_consumer.patience import Patience
from fanfold_consumer.relay import Publication, Relay, fold_record, fold_task
from fanfold_consumer.work import NOWHERE, Delivery, Work, as_message
from fanfold_schemas import arg_hash
from fanfold_sql import FoldOf, Store

RENEWALS = 3
"""In the time of a lease, so that one may come late."""


class FoldsInPlace:
    """The folds that run where their fan-outs were completed."""

    def __init__(self, store: Store, patience: Patience, executor: Executor, relay: Relay, *, lease_ms: int) -> None:
        self._store = store
        self._patience = patience
        self._executor = executor
        self._relay = relay
        self._lease_ms = lease_ms
        self._rows: set[int] = set()

    def begin(self, outbox_id: int, fold: FoldOf, partition: Partition) -> None:
        """Run a fold here if it would not wait for anything, else publish it.

        Args:
            partition: one of the commit that completed the fan-out. The fold is committed under its claim, as if it had
                come from there: a database that lost that commit refuses the result of what it saw.
        """
        task, record = fold_task(fold), fold_record(partition.topic, fold)
        publication = Publication(outbox_id, record)
        if not partition.may_begin or not self._executor.takes_in_place(task):
            self._relay.publish([publication])
            return
        self._rows.add(outbox_id)
        partition.in_flight += 1
        message = as_message(record.key, record.value, record.headers)
        self._executor.submit(Work(Delivery(partition, NOWHERE, message, 0, publication), task, arg_hash(task)))

    def end(self, publication: Publication, *, stored: bool) -> None:
        """Hear whether the result of a fold in place is stored, or its next attempt."""
        self._rows.discard(publication.outbox_id)
        if not stored:
            self._relay.publish([publication])

    async def renew(self) -> None:
        """Renew the leases of those that take longer, for as long as the fleet lives."""
        while True:
            before = frozenset(self._rows)
            await asyncio.sleep(self._lease_ms / 1000 / RENEWALS)
            await self._renew(sorted(self._rows & before))

    async def _renew(self, rows: list[int]) -> None:
        if rows:
            await self._patience.call("renew_outbox", lambda: self._store.renew_outbox(rows, self._lease_ms))
