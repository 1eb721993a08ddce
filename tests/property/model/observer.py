"""The database as its owner sees it: every table at once, the guarantees as queries, copies put aside and put back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from fanfold_sql.records import islands_to_text
from tests.property.model.ledger import Ledger
from tests.support.tree import ROOT

# Each table, and the sequences that number rows, with the temporary table that keeps its copy.
TABLES = {
    f"aside_{name}": f"fanfold.{name}"
    for name in ("thread", "fan_out", "deadline", "result", "partition_progress", "outbox", "dead_letter")
}
SEQUENCES = {f"aside_{name}": f"fanfold.{name}" for name in ("outbox_outbox_id_seq", "dead_letter_dead_letter_id_seq")}

_STATE = """
select json_build_object(
    'clocks', (select json_object_agg(thread_id, clock) from fanfold.thread),
    'fan_outs', (select json_object_agg(fan_out_id, json_build_array(thread_id, size, remaining, failed, run,
        completed_at is not null, folded_at is not null, cancelled_by)) from fanfold.fan_out),
    'deadlines', (select json_object_agg(fan_out_id, due_at <= now()) from fanfold.deadline),
    'rows', (select json_object_agg(thread_id || '/' || task_id, json_build_array(fan_out_id, index, run, status,
        arg_hash, case when status <> 'pending' then encode(payload, 'hex') end)) from fanfold.result),
    'partitions', (select json_object_agg(progress_id, json_build_array(epoch, owner, next_offset, islands::text,
        commit_seq, timeline = fanfold.timeline())) from fanfold.partition_progress),
    'outbox', (select json_object_agg(outbox_id, json_build_array(md5(value), fan_out_id, run, due_at <= now()))
        from fanfold.outbox),
    'letters', (select json_object_agg(progress_id || '/' || record_offset, json_build_array(code, md5(d.value)))
        from fanfold.dead_letter d join fanfold.partition_progress p using (group_id, cluster_id, topic_id, partition)))
"""


def _page() -> dict[int, list[str]]:
    """The queries of docs/guarantees.md by the number of their guarantee, so that the page and the checks are one."""
    found: dict[int, list[str]] = {}
    for section in re.split(r"^## (?=\d)", (ROOT / "docs/guarantees.md").read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r'```sql\n(.*?);\s*```|\$ psql -Atc "(select .*?)"\n', section, re.DOTALL)
        found[int(section.split(".")[0])] = [query or shown for query, shown in blocks]
    return found


PAGE = _page()
(LOOKED,) = (query for query in PAGE[6] if query.startswith("create temporary table"))
# What must hold after every step. Those that wait five minutes for something hold when all has come to rest.
ALWAYS: Mapping[str, str] = {
    "1 one effect per task": PAGE[1][0],
    "3 remaining = size - (done or failed)": PAGE[3][0],
    "4 one fold, if and only if complete": PAGE[4][0],
    "6 offsets never go back": PAGE[6][1],
    "10 no accepted base is ahead of its thread": PAGE[10][0],
    "11 a dead letter is behind its partition": PAGE[11][0],
}
AT_REST: Mapping[str, str] = {
    "4 every complete fan-out is folded": PAGE[4][1].replace("interval '5 minutes'", "interval '0'"),
    "14 nothing stands still": PAGE[14][0].replace("interval '5 minutes'", "interval '0'"),
}
DEAD_LETTERS = "11 a dead letter is behind its partition"
EFFECTS = PAGE[12][0]


@dataclass(frozen=True, slots=True)
class View:
    """What every table holds, in the form of `expected`, and which guarantees of `ALWAYS` are broken."""

    tables: dict[str, Any]
    broken: list[str]

    def outbox_ids(self) -> list[int]:
        return sorted(int(outbox_id) for outbox_id in self.tables["outbox"])


class Observer:
    """A connection as the owner of the tables, with temporary tables of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        queries = ", ".join(f"exists ({query})" for query in ALWAYS.values())
        self._look = f"select ({_STATE}), array[{queries}]".encode()
        self._refresh = f"delete from looked; insert into looked {LOOKED[LOOKED.index('select') :]}".encode()
        self._truncate = f"truncate {', '.join(['looked', *TABLES, *TABLES.values()])} restart identity".encode()
        self._empty = "; ".join(f"delete from {table}" for table in ["looked", *TABLES.values()]).encode()
        self._episodes = 0
        self._aside = "; ".join(
            f"delete from {aside}; insert into {aside} table {of}" for aside, of in {**TABLES, **SEQUENCES}.items()
        ).encode()
        # Numbers go back with the rows, as those of a replica do that missed the end of the log.
        self._back = "; ".join(
            [f"delete from {table}" for table in ["looked", *TABLES.values()]]
            + [f"insert into {t} overriding system value table {a}" for a, t in TABLES.items()]
            + [f"select setval('{s}', last_value, is_called) from {a}" for a, s in SEQUENCES.items()]
        ).encode()
        connection.execute(LOOKED.encode())
        for aside, table in {**TABLES, **SEQUENCES}.items():
            connection.execute(f"create temporary table {aside} as table {table} with no data".encode())

    def empty(self) -> None:
        """For a new episode. Deleting is ten times faster than truncating, until what was deleted piles up."""
        self._connection.execute(self._empty if self._episodes % 20 else self._truncate)
        self._episodes += 1

    def view(self) -> View:
        row = self._connection.execute(self._look, prepare=True).fetchone()
        assert row is not None
        tables = {name: found or {} for name, found in row[0].items()}
        return View(tables, [name for name, broken in zip(ALWAYS, row[1], strict=True) if broken])

    def look(self) -> None:
        """Note offsets and commit_seq, which must not go back from here on."""
        self._connection.execute(self._refresh)

    def at_rest(self) -> list[tuple[str, str]]:
        """(guarantee, fan-out) of what does not hold although nothing is on its way any more."""
        return [(name, row[0]) for name, query in AT_REST.items() for row in self._connection.execute(query.encode())]

    def effects(self) -> tuple[Any, ...] | None:
        """Guarantee 12: the same before and after a replay."""
        return self._connection.execute(EFFECTS.encode()).fetchone()

    def end_leases(self) -> None:
        """Let the time pass after which leased outbox rows are anybody's."""
        self._connection.execute("update fanfold.outbox set due_at = now() where due_at > now()")

    def put_aside(self) -> None:
        self._connection.execute(self._aside)

    def put_back(self, *, promoted: bool) -> None:
        """Become the copy put aside, which missed what was committed since.

        The server stays on its timeline, so if a standby is to be promoted, the claims become those of an earlier one.
        """
        self._connection.execute(self._back)
        if promoted:
            self._connection.execute("update fanfold.partition_progress set timeline = '00000000'")


def expected(ledger: Ledger) -> dict[str, Any]:
    """What every table should hold, in the form of `View.tables`."""
    oracle = ledger.oracle
    return {
        "clocks": {
            thread_id: {branch: count for branch, count in clock.items() if count}
            for thread_id, clock in oracle.clocks.items()
        },
        "fan_outs": {
            name: [
                barrier.thread_id,
                oracle.size(name),
                oracle.remaining(name),
                oracle.failed(name),
                barrier.run,
                barrier.complete,
                barrier.folded,
                barrier.cancelled_by,
            ]
            for name, barrier in oracle.barriers.items()
        },
        "deadlines": dict.fromkeys(oracle.deadlines, True),
        "rows": {
            "/".join(key): [
                row.fan_out_id,
                row.index,
                row.run,
                row.status,
                row.arg_hash,
                row.payload.hex() if row.payload is not None and row.status != "pending" else None,
            ]
            for key, row in oracle.rows.items()
        },
        "partitions": {
            str(progress_id): [
                held.epoch,
                None if held.owner is None else str(held.owner),
                held.next_offset,
                islands_to_text(held.islands),
                held.commit_seq,
                held.current,
            ]
            for progress_id, held in ledger.partitions.items()
        },
        "outbox": {
            str(outbox_id): [_md5(row.value), *(row.fold_of or (None, None)), row.due is not None]
            for outbox_id, row in ledger.outbox.items()
        },
        "letters": {
            f"{progress_id}/{offset}": [letter.code, _md5(letter.value)]
            for (progress_id, offset), letter in ledger.letters.items()
        },
    }


def _md5(value: bytes | None) -> str | None:
    return None if value is None else hashlib.md5(value).hexdigest()
