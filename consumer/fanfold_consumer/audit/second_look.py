"""What the first look could not account for is asked for again, and looked for in what the groups have not passed.

A task may have been passed because its next attempt is a record of its own, further on or published while we read; a
fan-out may be there in part because the rest was published meanwhile. So the tables are asked once more, and only then
the log is read, to an end that is measured after that. What was published before we asked is in there; what was
not was still in the outbox when we asked. What is in neither is lost.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from fanfold_consumer.audit import advice
from fanfold_consumer.audit.judge import Fate, Read, known_fate
from fanfold_consumer.audit.ledger import SUSPECTS_MAX, Ledger
from fanfold_consumer.audit.scope import Scope
from fanfold_consumer.audit.seen import CompactSet, InPart, bits_of, ranges_text
from fanfold_consumer.audit.tables import ASK_MAX, Suspect, Tables
from fanfold_consumer.replay.plan import LogRange
from fanfold_sql import AuditedFanOut

PUBLISHING_S = 60.0
"""A fan-out whose newest record is younger may still be on its way: its producer may use no transaction."""
LISTED = 1000
_FOLDS: dict[str, Fate] = {"duplicate": "done", "conflict": "done", "stale": "refused", "closed": "refused"}


class SecondLook:
    """First `ask`, then `take` what is read of `ranges`, then `conclude`."""

    def __init__(
        self, tables: Tables, scope: Scope, ledger: Ledger, known: CompactSet, in_part: dict[str, InPart]
    ) -> None:
        self._tables = tables
        self._scope = scope
        self._ledger = ledger
        self._known = known
        self._in_part = in_part
        self._left: dict[tuple[str, str], Suspect] = {}
        self._queued: set[str] = set()
        self._stored: dict[str, AuditedFanOut] = {}
        self._absent: dict[str, AuditedFanOut] = {}

    async def ask(self) -> None:
        """Ask the tables again about all that is not accounted for."""
        await self._ask_fan_outs()
        # After the fan-outs, for those of them that lack a fold are suspects from then on.
        suspects = list(self._ledger.suspects.values())
        for start in range(0, len(suspects), ASK_MAX):
            await self._ask_again(suspects[start : start + ASK_MAX])

    @property
    def is_needed(self) -> bool:
        """Whether the log can still account for anything."""
        return bool(self._left or self._in_part or self._absent)

    def ranges(self, logs: Mapping[int, LogRange]) -> dict[int, tuple[int, int]]:
        """What is to be read once more: all that may not be passed, if there are suspects; else what has come since."""
        scope = self._scope
        ranges = {}
        for partition, log in logs.items():
            _, high = scope.ranges.get(partition, (0, 0))
            low = scope.passed.first_open(partition, log.low) if self._left else max(high, log.low)
            ranges[partition] = (low, log.high)
        return ranges

    def take(self, read: Read) -> None:
        """A record that is read once more."""
        task = read.task
        if task is None:
            return
        suspect = self._left.get((task.thread_id, task.task_id))
        if suspect is not None and not self._scope.passed.passed(read.partition, read.offset):
            del self._left[suspect.key]
            self._ledger.clear(suspect, "waiting")
        part = self._in_part.get(task.fan_out.id)
        if part is not None and 0 <= task.index < part.size:
            part.note(task.index, read.timestamp_ms)
        self._absent.pop(task.fan_out.id, None)

    def conclude(self) -> None:
        """Report what nothing accounts for."""
        for suspect in self._left.values():
            self._ledger.clear(suspect, "open")
        for fan_out_id, part in self._in_part.items():
            self._conclude_in_part(fan_out_id, part)
        for found in self._absent.values():
            results = found.done + found.failed_results + found.pending
            what = f"{results} results, and none of its tasks is in the log"
            self._ledger.report.add(advice.surplus(found.thread_id, found.id, what))

    async def _ask_again(self, suspects: list[Suspect]) -> None:
        seen = [suspect for suspect in suspects if suspect.read is not None]
        answers = await self._tables.of_records([suspect.read for suspect in seen if suspect.read is not None])
        now: dict[tuple[str, str], Fate | None] = {
            suspect.key: known_fate(suspect.read, verdict, stored, pruned=self._scope.pruned)
            for suspect, (stored, verdict) in zip(seen, answers, strict=True)
            if suspect.read is not None
        }
        unseen = [suspect for suspect in suspects if suspect.read is None]
        verdicts = await self._tables.store.check_tasks([s.task for s in unseen], [0] * len(unseen)) if unseen else []
        for suspect, verdict in zip(unseen, verdicts, strict=True):
            # Its hash is not known, so a fold that is there by now looks like a conflict.
            now[suspect.key] = _FOLDS.get(verdict or "")
        waits = await self._tables.in_outbox(suspects)
        for suspect, waiting in zip(suspects, waits, strict=True):
            fate = now[suspect.key] or ("waiting" if waiting else None)
            if fate is None:
                self._left[suspect.key] = suspect
            else:
                self._ledger.clear(suspect, fate)

    async def _ask_fan_outs(self) -> None:
        """Those of which only some tasks were seen, and those that none was seen of."""
        if self._scope.incomplete is not None:
            return
        sizes = {fan_out_id: part.size for fan_out_id, part in self._in_part.items()}
        for found in await self._tables.fan_outs(sizes):
            self._stored[found.id] = found
            self._ledger.check(found)
        ids = list(sizes)
        for start in range(0, len(ids), ASK_MAX):
            page = ids[start : start + ASK_MAX]
            waits = await self._tables.store.audit_outbox(self._scope.topic, [(None, name) for name in page])
            self._queued.update(name for name, waiting in zip(page, waits, strict=True) if waiting)
        await self._find_absent()

    async def _find_absent(self) -> None:
        scope = self._scope
        if scope.earlier_topic:
            self._ledger.report.notes.append(
                f"there was another topic named {scope.topic} before: fan-outs of which this one has no task "
                "are not looked for"
            )
            return
        after = ""
        while page := await self._tables.store.list_topic_fan_outs(
            scope.topic, thread_id=scope.thread_id, after=after, limit=LISTED
        ):
            after = page[-1]
            unknown = [
                name
                for name in page
                if name not in self._known and name not in self._in_part and scope.fan_out_id in (None, name)
            ]
            for found in await self._tables.fan_outs(dict.fromkeys(unknown, LISTED)):
                if found.done + found.failed_results + found.pending == 0:
                    continue
                if len(self._absent) < SUSPECTS_MAX:
                    self._absent[found.id] = found
                else:
                    self._ledger.report.not_followed += 1

    def _conclude_in_part(self, fan_out_id: str, part: InPart) -> None:
        report, scope = self._ledger.report, self._scope
        stored = self._stored.get(fan_out_id)
        results = 0 if stored is None else bits_of(stored.indexes)
        seen = part.bits()
        fed_from_here = stored is not None and stored.topic == scope.topic and not scope.earlier_topic
        if fed_from_here and (surplus := results & ~seen):
            what = f"results of indexes {ranges_text(surplus)}, whose tasks are not in the log"
            report.add(advice.surplus(part.thread_id, fan_out_id, what))
        if stored is not None and (stored.complete or stored.ended_by is not None):
            return  # nobody waits for the rest
        lacking = ((1 << part.size) - 1) & ~seen & ~results
        if not lacking or fan_out_id in self._queued or time.time() - part.newest_ms / 1000 < PUBLISHING_S:
            return
        text = ranges_text(lacking)
        report.add(advice.unpublished(scope, part.thread_id, fan_out_id, part.size, text))
