"""The queries of docs/guarantees.md: silent where all is well, and not silent where something is broken."""

from __future__ import annotations

import re

import psycopg
import pytest

from fanfold_schemas import Outcome
from fanfold_sql import DeadLetter
from tests.sql.support import FanOutSpec, Worker
from tests.support.database import Database
from tests.support.tree import ROOT

QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/guarantees.md").read_text(), re.DOTALL)
LOOKED = next(query for query in QUERIES if query.startswith("create temporary table"))

ONE_EFFECT, COUNTDOWN, FOLD, FOLD_LATE, OFFSETS, CLOCK, DEAD_LETTERS, STUCK = 0, 1, 2, 3, 5, 6, 7, 8
LONG_AGO = "now() - interval '1 hour'"

BROKEN = {
    "a result twice": (
        ONE_EFFECT,
        """alter table fanfold.result drop constraint result_pkey; drop index fanfold.result_index;
        insert into fanfold.result select * from fanfold.result limit 1""",
    ),
    "a result without a countdown": (COUNTDOWN, "delete from fanfold.result where index = 1"),
    "a fold of an open fan-out": (FOLD, "update fanfold.fan_out set completed_at = null"),
    "a completion without a fold": (
        FOLD_LATE,
        f"update fanfold.fan_out set completed_at = {LONG_AGO}; delete from fanfold.result where index = -1",
    ),
    "an offset that went back": (OFFSETS, "update fanfold.partition_progress set next_offset = next_offset - 1"),
    "a base ahead of its thread": (CLOCK, "update fanfold.fan_out set base = '{\"a\": 9}'"),
    "a dead letter ahead of its partition": (
        DEAD_LETTERS,
        "update fanfold.dead_letter set record_offset = record_offset + 100",
    ),
    "a fan-out that stands still": (
        STUCK,
        f"""update fanfold.fan_out set completed_at = null; delete from fanfold.outbox;
        update fanfold.result set committed_at = {LONG_AGO}""",
    ),
}


@pytest.fixture
def worked(database: Database) -> Database:
    """A database in which a fan-out was completed and folded, and a record was parked."""
    spec = FanOutSpec(base=(("a", 1),))
    with database.connect_as_worker() as connection:
        worker = Worker(connection)
        held = worker.claim()
        letter = DeadLetter(held.progress_id, 3, None, b"?", None, "E_FRAME", "no msgpack")
        reply = worker.commit(spec.results(), partitions=[held.at(4)], dead_letters=[letter])
        assert reply.outcomes == [Outcome.APPLIED] * spec.size
        assert worker.outcomes(spec.fold_result()) == [Outcome.APPLIED]
    return database


def test_every_query_runs_and_finds_nothing_where_all_is_well(worked: Database) -> None:
    with worked.connect() as connection:
        for query in QUERIES:
            assert answer(connection, query) == [], query


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(what: str, worked: Database) -> None:
    position, damage = BROKEN[what]
    with worked.connect() as connection:
        answer(connection, LOOKED)
        connection.execute(damage.encode())
        assert answer(connection, QUERIES[position]) != []


def answer(connection: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    cursor = connection.execute(query.encode())
    return cursor.fetchall() if cursor.description and not query.startswith("create") else []
