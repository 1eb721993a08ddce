"""An audit: every record of a range is held against the tables, a batch at a time, and what is left is looked for once
more at the end (`second_look.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from fanfold_consumer.audit.errors import AuditRefused
from fanfold_consumer.audit.fan_outs import differs
from fanfold_consumer.audit.findings import Report
from fanfold_consumer.audit.judge import Read, judge
from fanfold_consumer.audit.ledger import Ledger
from fanfold_consumer.audit.scope import Scope
from fanfold_consumer.audit.second_look import SecondLook
from fanfold_consumer.audit.seen import CompactSet, InPart
from fanfold_consumer.audit.tables import Suspect, Tables
from fanfold_consumer.replay.log_reader import LogReader, LogRecord
from fanfold_consumer.replay.plan import LogRange
from fanfold_schemas import SchemaError, arg_hash, decode_task
from fanfold_sql import Store

IN_PART_MAX = 200_000


class Auditor:
    """Audits one range.

    Memory: 8 to 32 bytes a fan-out; some 1,500 bytes and a bit a task for each of which only some tasks were seen so
    far, at most `IN_PART_MAX`; as much for a suspect, at most `SUSPECTS_MAX` (the rest is counted, not followed).

    Args:
        open_reader: makes a reader of the topic, for one pass.
        measure: the bounds of all partitions of the topic, as of now; blocks.
    """

    def __init__(
        self,
        store: Store,
        scope: Scope,
        report: Report,
        *,
        open_reader: Callable[[], LogReader],
        measure: Callable[[], Mapping[int, LogRange]],
    ) -> None:
        self._scope = scope
        self._ledger = Ledger(scope, report)
        self._tables = Tables(store, scope)
        self._open_reader = open_reader
        self._measure = measure
        self._known = CompactSet()
        self._in_part: dict[str, InPart] = {}

    async def run(self, on_read: Callable[[LogReader], None] = lambda _: None) -> None:
        """Fill the report.

        Raises:
            StoreUnavailable: Postgres went away. Nothing was changed; begin again.
            BrokerUnavailable, BrokerRefused, ReplayRefused: from the reader.
            AuditRefused: it would need too much memory.
        """
        async for records in self._read(self._scope.ranges, on_read):
            await self._take(records)
        self._ledger.report.fan_outs = len(self._known) + len(self._in_part)
        second = SecondLook(self._tables, self._scope, self._ledger, self._known, self._in_part)
        await second.ask()
        if second.is_needed:
            logs = await asyncio.to_thread(self._measure)
            async for records in self._read(second.ranges(logs), on_read):
                for record in records:
                    if (read := decoded(self._scope, record)) is not None:
                        second.take(read)
            second.conclude()

    async def _read(
        self, ranges: Mapping[int, tuple[int, int]], on_read: Callable[[LogReader], None]
    ) -> AsyncIterator[list[LogRecord]]:
        if not any(low < high for low, high in ranges.values()):
            return
        with self._open_reader() as reader:
            reader.start(ranges)
            while records := await asyncio.to_thread(reader.read):
                yield records
                on_read(reader)

    async def _take(self, records: Sequence[LogRecord]) -> None:
        scope, ledger = self._scope, self._ledger
        ledger.report.records += len(records)
        wanted = [(record, read) for record in records if (read := decoded(scope, record)) is not None]
        if not wanted:
            return
        answers = await self._tables.of_records([read for _, read in wanted])
        suspects: list[Suspect] = []
        to_check: dict[str, int] = {}
        for (record, read), (stored, verdict) in zip(wanted, answers, strict=True):
            first = self._note(read, to_check)
            passed = scope.passed.passed(read.partition, read.offset)
            fate = judge(record, read, verdict, stored, passed=passed, pruned=scope.pruned)
            if fate == "open":
                assert read.task is not None
                suspects.append(Suspect(read.task, read, first))
            else:
                ledger.settle(read, fate, first=first)
        await self._sort(suspects)
        for found in await self._tables.fan_outs(to_check):
            ledger.check(found)

    def _note(self, read: Read, to_check: dict[str, int]) -> bool:
        """Remember the fan-out of a record, and put it into `to_check` when it is time. Whether the task is new."""
        task = read.task
        if task is None or task.is_fold:
            return True
        fan_out_id, size = task.fan_out.id, task.fan_out.size
        if self._scope.incomplete is not None:
            # Nobody knows which of its tasks ought to be here.
            if self._known.add(fan_out_id):
                to_check[fan_out_id] = size
            return True
        part = self._in_part.get(fan_out_id)
        if part is None:
            if fan_out_id in self._known:
                return False
            if len(self._in_part) >= IN_PART_MAX:
                raise AuditRefused(
                    f"{IN_PART_MAX} fan-outs of {self._scope.topic} were seen only in part so far, and their state is "
                    "kept in memory; audit the topic in ranges (--partitions, --from-offset): then each task is looked "
                    "at by itself"
                )
            part = self._in_part[fan_out_id] = InPart(task.thread_id, size)
        if task.index >= part.size:  # it says another size than its siblings, so it is none of them
            return True
        first = part.note(task.index, read.timestamp_ms)
        if part.is_whole:
            del self._in_part[fan_out_id]
            self._known.add(fan_out_id)
            to_check[fan_out_id] = size
        return first

    async def _sort(self, suspects: Sequence[Suspect]) -> None:
        """Tasks that nothing accounts for at first sight: those that wait in the outbox, contradict, or were pruned."""
        if not suspects:
            return
        scope, ledger = self._scope, self._ledger
        waits = await self._tables.in_outbox(suspects)
        found = await self._tables.fan_outs({s.task.fan_out.id: s.task.fan_out.size for s in suspects})
        fan_outs = {fan_out.id: fan_out for fan_out in found}
        for suspect, waiting in zip(suspects, waits, strict=True):
            read, known = suspect.read, fan_outs.get(suspect.task.fan_out.id)
            assert read is not None
            if waiting:
                ledger.settle(read, "waiting", first=suspect.first)
            elif known is None and scope.pruned is not None and read.timestamp_ms < scope.pruned.timestamp() * 1000:
                ledger.settle(read, "pruned", first=suspect.first)
            elif known is not None and differs(suspect.task, known):
                ledger.settle(read, "conflicting", first=suspect.first)
            else:
                ledger.suspect(suspect)


def decoded(scope: Scope, record: LogRecord) -> Read | None:
    """A record of those asked for; None: of others, or, where not all are asked for, of nobody knows whom."""
    if not scope.may_want(record):
        return None
    partition, offset, at = record.partition, record.offset, record.timestamp_ms
    try:
        task = decode_task(record.value)
    except SchemaError as error:
        if not scope.wants_all:
            return None
        return Read(partition, offset, at, record.key, None, 0, f"{error.code} at {error.path}")
    if not scope.wants(task):
        return None
    # Without its arg, of which the hash is enough: suspects are kept.
    bare = msgspec.structs.replace(task, arg=None, arg_check=None)
    return Read(partition, offset, at, record.key, bare, arg_hash(task))
