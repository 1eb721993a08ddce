"""The real database of a replayed behaviour: looked at as the model sees it, copied, and set back to the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from fanfold_schemas import decode_task
from tests.property.spec_traces import Picture

_TABLES = """
    select c.relname from pg_class c
    where c.relnamespace = 'fanfold'::regnamespace and c.relkind = 'r' and c.relname not like '%migration%'"""
_SEQUENCES = """
    select c.oid::regclass::text from pg_class c where c.relnamespace = 'fanfold'::regnamespace and c.relkind = 'S'"""


class SpecDatabase:
    """As the owner of the schema.

    Args:
        partitions: by number, what the model calls them.
    """

    def __init__(self, connection: psycopg.Connection[Any], partitions: list[str]) -> None:
        self._connection = connection
        self._partitions = partitions
        self._tables = [name for (name,) in self._rows(_TABLES)]
        self._sequences = [name for (name,) in self._rows(_SEQUENCES)]
        self._copied: dict[str, tuple[int, bool]] = {}
        self._connection.execute("create schema if not exists older")

    def clear(self) -> None:
        """Begin anew. Sequences go on: nothing may depend on where they stand."""
        for table in self._tables:
            self._execute(f"delete from fanfold.{table}")

    def copy(self) -> None:
        """Keep a copy of every table, and of what the sequences have given out."""
        for table in self._tables:
            self._execute(f"drop table if exists older.{table}")
            self._execute(f"create table older.{table} as table fanfold.{table}")
        self._copied = {name: self._rows(f"select last_value, is_called from {name}")[0] for name in self._sequences}

    def set_back(self) -> None:
        """Be that copy from here on, as a promoted replica that lagged: numbers given out since are free again."""
        with self._connection.transaction():
            for table in self._tables:
                self._execute(f"delete from fanfold.{table}")
                self._execute(f"insert into fanfold.{table} overriding system value select * from older.{table}")
            for name, (last_value, is_called) in self._copied.items():
                self._connection.execute("select setval(%s, %s, %s)", (name, last_value, is_called))

    def picture(
        self, sizes: Mapping[str, int], partitions: Sequence[str], owners: Mapping[str, str]
    ) -> tuple[Picture, list[int]]:
        """What the model would call this state, and the outbox ids in its order.

        Args:
            sizes: of the fan-outs, those included that have no row yet.
            partitions: those of this world.
            owners: {UUID: name}.
        """
        fans: dict[str, list[Any]] = {f: [False, size, 1, False, False] for f, size in sizes.items()}
        results = {f: [[0, False] for _ in range(size + 1)] for f, size in sizes.items()}
        parts: dict[str, list[Any]] = {p: [0, None, 1, [], 0] for p in partitions}
        clock: dict[str, int] = next((found for (found,) in self._rows("select clock from fanfold.thread")), {})
        for f, size, remaining, run, complete, cancelled in self._rows(
            "select fan_out_id, size, remaining, run, completed_at is not null, cancelled_at is not null"
            " from fanfold.fan_out"
        ):
            # Of a fan-out that was cancelled before its first result only that is known.
            fans[f] = [size > 0, remaining if size else sizes[f], run, complete, cancelled]
        for f, index, run, pending in self._rows(
            "select fan_out_id, index, run, status = 'pending' from fanfold.result"
        ):
            results[f][index + 1] = [run, pending]
        for number, epoch, owner, next_offset, islands, commit_seq in self._rows(
            "select partition, epoch, owner::text, coalesce(next_offset, 1), array(select o from unnest(islands) r,"
            " generate_series(lower(r), upper(r) - 1) o order by o), commit_seq from fanfold.partition_progress"
        ):
            parts[self._partitions[number]] = [
                epoch,
                owners.get(owner, owner) if owner else None,
                next_offset,
                islands,
                commit_seq,
            ]
        outbox = self._rows("select outbox_id, fan_out_id, run, value from fanfold.outbox order by outbox_id")
        rows = [[f, 0, run] if value is None else _task_row(value) for _, f, run, value in outbox]
        return (
            {"clock": clock, "fan": fans, "res": results, "part": parts, "out": rows},
            [outbox_id for outbox_id, *_ in outbox],
        )

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode()).fetchall()

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())


def _task_row(value: bytes) -> list[Any]:
    task = decode_task(value)
    return [task.fan_out.id, task.index + 1, task.run]
