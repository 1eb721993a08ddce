"""Breakpoints stand before everything that can meet another session, and change nothing else."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import psycopg
import pytest

from fanfold_sql.migrate import Script, scripts
from tests.property.interleave.instrument import (
    LOCKS,
    CannotInstrument,
    Footprint,
    instrument,
    statements,
    without_breakpoints,
)
from tests.property.interleave.session import INSTALL
from tests.sql.episodes import play
from tests.sql.support import Tables, Worker, assert_invariants
from tests.support.database import Database

_OURS = scripts()
_INSTRUMENTED = instrument(_OURS)
_STEPPED = sorted({label.split(":")[0] for label in _INSTRUMENTED.steps})


def test_without_its_breakpoints_every_procedure_is_what_is_shipped() -> None:
    shipped = {script.name: script.text for script in _OURS if script.kind == "procedure"}
    assert {name: without_breakpoints(text) for name, text in _INSTRUMENTED.texts.items()} == shipped


def test_the_steps_of_a_commit_are_those_of_its_description() -> None:
    touched = [
        (footprint.reads - footprint.writes, footprint.writes)
        for label, footprint in _INSTRUMENTED.steps.items()
        if label.startswith("commit_results:")
    ]
    read, written = frozenset({"fan_out", "thread"}), frozenset[str]
    assert touched == [
        (frozenset(), written({"partition_progress"})),  # 1 fence
        (frozenset(), written({LOCKS})),  # 2 lock, without waiting
        (frozenset(), written({LOCKS})),  # or with
        (read, frozenset()),  # 3 clock; what moves it is a step of advance_clocks
        (frozenset(), written({"fan_out", "deadline"})),  # open
        (read - {"thread"}, frozenset()),  # was it cancelled
        (read - {"thread"}, frozenset()),  # compare
        (frozenset({"fan_out", "result"}), frozenset()),  # admit
        (frozenset(), written({"result"})),  # 4 upsert
        (frozenset(), written({"result"})),  # again, around what was there; that is a step of settle_results
        (frozenset(), written({"fan_out", "outbox"})),  # 5 count down, 6 complete
        (frozenset(), written({"outbox"})),  # Sends
        (frozenset(), written({"outbox"})),  # rows of folds that ran in place
        (frozenset({"partition_progress"}), written({"dead_letter"})),
        (frozenset(), written({"partition_progress"})),  # 7 progress
    ]


@pytest.mark.parametrize("name", _STEPPED)
def test_every_statement_that_names_a_table_or_a_lock_has_a_breakpoint(name: str) -> None:
    # Told apart by their lines, unlike the instrumenter does it: a statement begins after a line that ends one.
    body = _INSTRUMENTED.texts[name].split("\nbegin\n", 1)[1]
    body = re.sub(r"--[^\n]*", "", body)
    tables = re.compile(r"fanfold\.(thread|fan_out|result|partition_progress|outbox|dead_letter)\b|advisory")
    for statement in re.split(r"(?:;|\bthen|\belse|\bloop|\bbegin)\s*\n", body):
        code = re.sub(r"'(?:[^']|'')*'", "''", without_breakpoints(statement))
        if tables.search(code):
            assert statement.lstrip().startswith("if stepping.stop("), statement


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("begin if a then null; elsif exists (select from fanfold.thread) then null; end if; end", "elsif"),
        ("begin while exists (select from fanfold.thread) loop null; end loop; end", "while"),
        ("declare v text := (select clock from fanfold.thread); begin null; end", "declare"),
        ("begin case when a then delete from fanfold.thread; end case; end", "case"),
        ("begin delete from fanfold.thread; delete from fanfold.thread; end", "two statements"),
    ],
)
def test_a_body_that_cannot_be_stepped_everywhere_is_refused(body: str, complaint: str) -> None:
    text = f"create function fanfold.bad() returns void language plpgsql as $$\n{body} $$;"
    table = Script("migration", "0001", "create table fanfold.thread (clock text);")
    with pytest.raises(CannotInstrument, match=complaint):
        instrument([table, Script("procedure", "bad", text)])


def test_statements_end_where_plpgsql_ends_them() -> None:
    body = """
        declare v integer := 1;
        begin
            -- a comment; with then and loop
            if case when a then b else c end then
                v := case when x then ';' else 'it''s; so' end;
            else
                for r in select f(1; 2) loop call(v); end loop;
            end if;
        end"""
    assert [first for first, _, _ in statements(body)] == [
        "declare", "if", "v", "else", "for", "call", "end", "end",
    ]  # fmt: skip


def test_steps_commute_unless_one_writes_what_both_touch_and_the_other_could_tell() -> None:
    reads, writes = Footprint(reads=frozenset({"thread"})), Footprint(writes=frozenset({"thread"}))
    ends = Footprint(ends=frozenset({"thread"}))
    assert reads.commutes_with(reads)
    assert reads.commutes_with(writes), "what is not committed is not seen"
    assert not writes.commutes_with(writes)
    assert not ends.commutes_with(reads)
    assert not writes.commutes_with(ends)
    assert ends.commutes_with(ends)


@pytest.fixture
def instrumented(database: Database) -> Iterator[psycopg.Connection]:
    with database.connect() as connection:
        connection.execute(INSTALL)
        for text in _INSTRUMENTED.texts.values():
            connection.execute(text.encode())
        yield connection


def test_with_breakpoints_the_procedures_do_what_the_oracle_says(
    instrumented: psycopg.Connection, database: Database
) -> None:
    with database.connect_as_worker() as connection:
        # Breakpoints are open to whoever has no number, but they are executed.
        for episode in range(15):
            play(random.Random(episode), Worker(connection), Tables(instrumented), f"i{episode}")
    assert_invariants(instrumented)
