"""A database with the instrumented procedures: scenarios are prepared in it, run, and what is left is written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from fanfold_sql.migrate import Script
from tests.property.interleave.driver import Driver
from tests.property.interleave.instrument import instrument
from tests.property.interleave.scenario import Answer, End, Scenario
from tests.property.interleave.session import INSTALL, Failed
from tests.sql.support import assert_invariants
from tests.support.database import Server

SESSIONS_MAX = 3
_TABLES = ("thread", "fan_out", "result", "partition_progress", "outbox", "dead_letter")
_EMPTY = "; ".join(f"delete from fanfold.{table}" for table in _TABLES)


def _rows_of(table: str) -> str:
    # Ids from a sequence differ from run to run; so do times, of which only counts whether there is one.
    row = "to_jsonb(t) - 'outbox_id' - 'dead_letter_id'"
    if table == "outbox":
        row += " - 'due_at' || jsonb_build_object('leased', t.due_at > t.created_at + interval '1 second')"
    return f"'{table}', (select coalesce(jsonb_agg({row}), '[]') from fanfold.{table} t)"


_LOOK = f"select jsonb_build_object({', '.join(map(_rows_of, _TABLES))})"
# Dead rows of thousands of schedules slow down every look at a table; vacuum now and then.
_VACUUM_EVERY = 250


class Laboratory:
    """One database and the sessions that are stepped through it."""

    def __init__(self, dsn: str, scripts: Sequence[Script]) -> None:
        instrumented = instrument(scripts)
        self._owner = psycopg.connect(dsn, autocommit=True)
        self._owner.execute(INSTALL)
        for text in instrumented.texts.values():
            self._owner.execute(text.encode())
        self.driver = Driver(dsn, SESSIONS_MAX, instrumented)
        self._prepared = 0

    def prepare(self, scenario: Scenario) -> None:
        self._prepared += 1
        if self._prepared % _VACUUM_EVERY == 0:
            for table in _TABLES:
                self.driver.control.run(f"vacuum fanfold.{table}")
        self.driver.control.run("; ".join((_EMPTY, *scenario.setup)))

    def run_serially(self, scenario: Scenario, order: Sequence[int]) -> End:
        """The transactions one after another, taken from the sessions in this order."""
        self.prepare(scenario)
        control = self.driver.control
        answers: list[list[Answer]] = [[] for _ in scenario.sessions]
        for number in order:
            transaction = scenario.sessions[number][len(answers[number])]
            statement = transaction.sql(answers[number])
            if statement is None:
                continue
            try:
                reply = control.run(f"begin isolation level {transaction.isolation}; {statement}")
                control.run(transaction.ends)
                answers[number].append(transaction.answer(reply, None))
            except Failed as failure:
                control.run("rollback")
                answers[number].append(transaction.answer(None, failure.sqlstate))
        return self.end(answers)

    def broken_guarantees(self) -> list[str]:
        """What the queries of the guarantees find in what was run last."""
        try:
            assert_invariants(self._owner)
        except AssertionError as broken:
            return [str(broken)]
        return []

    def end(self, answers: Sequence[Sequence[Answer]]) -> End:
        tables: dict[str, list[dict[str, Any]]] = json.loads(self.driver.control.run(_LOOK) or "{}")
        held = {
            name: sorted(json.dumps(_timeless(row), sort_keys=True) for row in rows) for name, rows in tables.items()
        }
        return End(tuple(tuple(given) for given in answers), json.dumps(held, sort_keys=True))

    def close(self) -> None:
        self.driver.close()
        self._owner.close()


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value is not None if name.endswith("_at") else value for name, value in row.items()}


@contextmanager
def open_laboratory(server: Server, template: str, scripts: Sequence[Script]) -> Iterator[Laboratory]:
    """A laboratory in a new database copied from a migrated one; `scripts` may differ from what was migrated."""
    with server.temporary_database(template) as name:
        laboratory = Laboratory(server.dsn_for(name), scripts)
        try:
            yield laboratory
        finally:
            laboratory.close()
