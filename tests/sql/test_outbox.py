"""Rows written in the commit's transaction, leased, published by exactly one relay at a time, acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from fanfold_sql import Conflict, OutboxRecord
from tests.sql.support import APPLIED, CLOSED, DUPLICATE, STALE, FanOutSpec, Tables, Worker
from tests.support.database import Database

F = FanOutSpec()


def _record(result: int | None = None, value: bytes = b"value") -> OutboxRecord:
    return OutboxRecord("out", b"key", value, b"headers", result)


def _claim(worker: Worker, limit: int = 100, lease_ms: int = 30_000) -> list[tuple[Any, ...]]:
    return worker.connection.execute(
        "select outbox_id, topic, key, value, fan_out_id, run from fanfold.claim_outbox(%s::int4, %s::int4)",
        (limit, lease_ms),
    ).fetchall()


def _enqueue(worker: Worker, *values: bytes, delay_ms: int = 0) -> None:
    count = len(values)
    worker.connection.execute(
        "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int4[])",
        (["out"] * count, [b"key"] * count, list(values), [b"headers"] * count, [delay_ms] * count),
    )


class TestWrittenByACommit:
    def test_records_are_written_with_the_result_they_depend_on(self, worker: Worker, tables: Tables) -> None:
        reply = worker.commit([F.result(0)], outbox=[_record(0)])
        assert tables.rows("select outbox_id, topic, key, value, headers from fanfold.outbox") == [
            (reply.outbox_ids[0], "out", b"key", b"value", b"headers")
        ]

    def test_only_applied_results_bring_their_records(self, worker: Worker, tables: Tables) -> None:
        quorum = FanOutSpec(id="q", size=3, quorum=1, base=(("side", 1),))
        worker.commit([F.result(0), quorum.result(0)])
        worker.commit([FanOutSpec(id="x", size=9, base=(("main", 2),)).result(0)])
        batch = [
            F.result(1),
            F.result(0),
            quorum.result(1),
            FanOutSpec(id="old", base=(("main", 1),)).result(0),
            F.result(1),
        ]
        records = [_record(position, b"%d" % position) for position in (4, 3, 2, 1, 0)] + [_record(None, b"any")]
        reply = worker.commit(batch, outbox=records)
        assert reply.outcomes == [APPLIED, DUPLICATE, CLOSED, STALE, DUPLICATE]
        assert [written is not None for written in reply.outbox_ids] == [False, False, False, False, True, True]
        written = tables.rows("select value from fanfold.outbox where value is not null order by outbox_id")
        assert written == [(b"0",), (b"any",)]

    def test_a_repeated_commit_writes_the_records_of_its_results_once(self, worker: Worker, tables: Tables) -> None:
        for expected in (1, 1):
            worker.commit([F.result(0)], outbox=[_record(0)])
            assert tables.value("select count(*) from fanfold.outbox") == expected

    def test_a_refused_batch_writes_no_records(self, worker: Worker, tables: Tables) -> None:
        with pytest.raises(Conflict):
            worker.commit([F.result(0), F.result(3)], outbox=[_record(0), _record(None)])
        assert tables.value("select count(*) from fanfold.outbox") == 0

    def test_records_and_folds_are_leased_to_whoever_committed(self, worker: Worker) -> None:
        worker.commit([*F.results()], outbox=[_record(0)], lease_ms=30_000)
        assert _claim(worker) == []

    def test_a_lease_of_nothing_leaves_them_to_any_relay(self, worker: Worker) -> None:
        reply = worker.commit([*F.results()], outbox=[_record(0)], lease_ms=0)
        rows = _claim(worker)
        assert [row[0] for row in rows] == sorted([reply.completed[0].outbox_id or 0, reply.outbox_ids[0] or 0])
        assert [row[3:] for row in rows] == [(None, "f1", 1), (b"value", None, None)]

    def test_a_fold_is_claimed_with_what_its_task_is_made_from(self, worker: Worker) -> None:
        spec = FanOutSpec(size=2, quorum=2, base=(("main", 4),), max_failures=1, deadline_ms=88, on_deadline="fold")
        worker.commit(spec.results(), lease_ms=0)
        row = worker.one(
            "select thread_id, size, base, fold, quorum, max_failures, deadline_ms, on_deadline"
            " from fanfold.claim_outbox(1, 1000)"
        )
        assert row == ("t1", 2, {"main": 4}, "sum", 2, 1, 88, "fold")


class TestEnqueue:
    def test_enqueued_records_are_due_at_once_and_in_order(self, worker: Worker) -> None:
        _enqueue(worker, b"1", b"2", b"3")
        assert [row[3] for row in _claim(worker)] == [b"1", b"2", b"3"]

    def test_a_delayed_record_is_not_due_yet(self, worker: Worker, tables: Tables) -> None:
        _enqueue(worker, b"later", delay_ms=3_600_000)
        _enqueue(worker, b"now")
        assert [row[3] for row in _claim(worker)] == [b"now"]
        assert tables.value(
            "select due_at between now() + '59 minutes' and now() + '61 minutes' from fanfold.outbox"
            " where value = 'later'"
        )

    def test_records_appear_only_with_the_callers_transaction(self, worker: Worker) -> None:
        with worker.connection.transaction(force_rollback=True):
            _enqueue(worker, b"never")
        with worker.connection.transaction():
            _enqueue(worker, b"yes")
        assert [row[3] for row in _claim(worker)] == [b"yes"]


class TestTheRelay:
    def test_a_claimed_record_is_leased_and_comes_back_when_the_lease_is_over(self, worker: Worker) -> None:
        _enqueue(worker, b"1")
        [first] = _claim(worker, lease_ms=30_000)
        assert _claim(worker) == []
        _enqueue(worker, b"2")
        [second] = _claim(worker, lease_ms=0)
        assert _claim(worker, lease_ms=0) == [second]
        assert first[0] != second[0]

    def test_at_most_the_limit_is_claimed_oldest_first(self, worker: Worker) -> None:
        _enqueue(worker, b"1", b"2", b"3")
        assert [row[3] for row in _claim(worker, limit=2)] == [b"1", b"2"]
        assert [row[3] for row in _claim(worker, limit=2)] == [b"3"]

    def test_acknowledged_records_are_gone_and_acknowledging_again_is_harmless(
        self, worker: Worker, tables: Tables
    ) -> None:
        _enqueue(worker, b"1", b"2")
        ids = [row[0] for row in _claim(worker)]
        for _ in range(2):
            worker.one("select fanfold.ack_outbox(%s::int8[])", ([ids[0], 10**9],))
        assert tables.rows("select value from fanfold.outbox") == [(b"2",)]

    def test_a_record_that_another_relay_is_claiming_is_skipped_without_waiting(
        self, worker: Worker, make_worker: Callable[[], Worker]
    ) -> None:
        _enqueue(worker, b"1", b"2", b"3")
        other = make_worker()
        with worker.connection.transaction():
            mine = _claim(worker, limit=2)
            other.connection.execute("set statement_timeout = '5s'")
            theirs = _claim(other)
        assert ([row[3] for row in mine], [row[3] for row in theirs]) == ([b"1", b"2"], [b"3"])

    def test_concurrent_relays_hand_out_disjoint_records(self, worker: Worker, database: Database) -> None:
        _enqueue(worker, *[b"%d" % number for number in range(600)])
        claimed: list[list[int]] = [[], [], [], []]
        start = threading.Barrier(len(claimed))

        def relay(mine: list[int]) -> None:
            with database.connect_as_worker() as connection:
                start.wait(10)
                while rows := _claim(Worker(connection), limit=7):
                    mine.extend(row[0] for row in rows)

        relays = [threading.Thread(target=relay, args=(mine,)) for mine in claimed]
        for thread in relays:
            thread.start()
        for thread in relays:
            thread.join(30)
        everything = [outbox_id for mine in claimed for outbox_id in mine]
        assert len(everything) == len(set(everything)) == 600

    def test_a_record_of_a_transaction_that_commits_late_is_not_missed(
        self, worker: Worker, make_worker: Callable[[], Worker]
    ) -> None:
        late = make_worker()
        with late.connection.transaction():
            _enqueue(late, b"late")
            _enqueue(worker, b"early")
            assert [row[3] for row in _claim(worker)] == [b"early"]
        assert [row[3] for row in _claim(worker)] == [b"late"]

    def test_stats_count_what_waits_and_how_long_the_oldest_due_has(self, worker: Worker, tables: Tables) -> None:
        stats = "select waiting, oldest_due_seconds from fanfold.outbox_stats()"
        assert worker.one(stats) == (0, 0.0)
        _enqueue(worker, b"later", delay_ms=3_600_000)
        assert worker.one(stats) == (1, 0.0)
        _enqueue(worker, b"now")
        tables.rows("update fanfold.outbox set due_at = now() - interval '1 minute' where value = 'now' returning 1")
        waiting, oldest = worker.one(stats)
        assert waiting == 2
        assert 60 <= oldest < 120


def test_a_record_needs_a_value_unless_it_is_a_fold(worker: Worker) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        _enqueue(worker, None)  # type: ignore[arg-type]  # the point of the test


def test_an_acknowledgement_from_before_a_failover_forgets_no_row_from_after_it(worker: Worker, tables: Tables) -> None:
    # What a replica that missed the end of the log stands at: without the row, and with the sequence before it.
    last, called = tables.rows("select last_value, is_called from fanfold.outbox_outbox_id_seq")[0]
    (published,) = worker.commit([F.result(0)], outbox=[_record(0)]).outbox_ids
    tables.connection.execute("delete from fanfold.outbox; delete from fanfold.result; delete from fanfold.fan_out")
    tables.connection.execute("select setval('fanfold.outbox_outbox_id_seq', %s, %s)", (last, called))
    worker.commit([F.result(1)], outbox=[_record(0)])
    worker.connection.execute("select fanfold.ack_outbox(%s::int8[])", ([published],))
    assert tables.value("select count(*) from fanfold.outbox") == 1
