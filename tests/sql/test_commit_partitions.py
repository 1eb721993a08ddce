"""Steps 1 and 7: the fence, the rewind, the isolation level, progress, islands and dead letters."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import psycopg
import pytest

from fanfold_sql import Conflict, DeadLetter, Fenced, Rewound, StoreRejected
from tests.sql.support import APPLIED, DUPLICATE, TOPIC, FanOutSpec, Held, Tables, Worker
from tests.support.database import Database

F = FanOutSpec()


def _progress(tables: Tables, held: Held) -> tuple[int | None, str, int]:
    """(next_offset, islands, commit_seq)"""
    row = tables.rows(
        "select next_offset, islands::text, commit_seq from fanfold.partition_progress where progress_id = %s",
        held.progress_id,
    )[0]
    return row[0], row[1], row[2]


def _letter(held: Held, offset: int = 4, error: str = "boom") -> DeadLetter:
    return DeadLetter(held.progress_id, offset, b"key", b"\xff\x00raw", b"headers", "E_FRAME", error)


def test_progress_islands_and_the_commit_seq_move_with_the_results(worker: Worker, tables: Tables) -> None:
    held = worker.claim()
    reply = worker.commit([F.result(0)], partitions=[held.at(7, ((9, 12), (20, 21)))])
    assert reply.commit_seqs == [1]
    assert _progress(tables, held) == (7, "{[9,12),[20,21)}", 1)


def test_islands_come_back_from_the_next_claim(worker: Worker) -> None:
    held = worker.claim()
    worker.commit(partitions=[held.at(7, ((9, 12), (20, 21)))])
    claim = worker.claim_in_full()
    assert (claim.epoch, claim.next_offset, claim.islands, claim.commit_seq) == (2, 7, ((9, 12), (20, 21)), 1)


def test_an_unread_partition_is_claimed_without_a_next_offset(worker: Worker) -> None:
    claim = worker.claim_in_full()
    assert (claim.epoch, claim.next_offset, claim.islands, claim.commit_seq) == (1, None, (), 0)


def test_progress_alone_is_a_commit(worker: Worker, tables: Tables) -> None:
    held = worker.claim()
    reply = worker.commit(partitions=[held.at(3)])
    assert (reply.outcomes, reply.commit_seqs) == ([], [1])
    assert _progress(tables, held) == (3, "{}", 1)


def test_commit_seqs_come_in_the_order_of_the_partitions(worker: Worker) -> None:
    zero, one, two = (worker.claim(partition) for partition in range(3))
    one = one.after(worker.commit(partitions=[one.at(1)]))
    assert worker.commit(partitions=[two.at(1), one.at(2), zero.at(1)]).commit_seqs == [1, 2, 1]


def test_many_partitions_and_threads_move_in_one_commit(worker: Worker, tables: Tables) -> None:
    held = [worker.claim(partition) for partition in range(30)]
    results = [FanOutSpec(id=f"f{n}", thread_id=f"t{n}", size=1).result(0) for n in range(30)]
    reply = worker.commit(results, partitions=[one.at(10 + n) for n, one in enumerate(held)])
    assert (set(reply.outcomes), reply.commit_seqs) == ({APPLIED}, [1] * 30)
    assert [_progress(tables, one)[0] for one in held] == list(range(10, 40))


class TestTheFence:
    def test_a_superseded_epoch_is_fenced_and_writes_nothing(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        old = worker.claim()
        make_worker().claim()
        before = tables.fingerprint()
        with pytest.raises(Fenced) as caught:
            worker.commit([F.result(0)], partitions=[old.at(5)], dead_letters=[_letter(old)])
        assert caught.value.progress_ids == {old.progress_id}
        assert tables.fingerprint() == before

    def test_another_owner_under_the_same_epoch_is_fenced(self, worker: Worker) -> None:
        # A database that went back mints the same epoch again, for somebody else.
        held = worker.claim()
        with pytest.raises(Fenced):
            worker.commit(partitions=[held.at(5)], owner=uuid4())

    def test_a_released_partition_fences_its_owner(self, worker: Worker) -> None:
        held = worker.claim()
        worker.one("select fanfold.release_partitions(%s, %s, %s)", (worker.owner, [held.progress_id], [1]))
        with pytest.raises(Fenced):
            worker.commit(partitions=[held.at(5)])

    def test_a_caller_without_an_owner_does_not_hold_a_partition_without_one(
        self, worker: Worker, tables: Tables
    ) -> None:
        held = worker.claim()
        worker.one("select fanfold.release_partitions(%s, %s, %s)", (worker.owner, [held.progress_id], [1]))
        row = (
            "select fanfold.commit_results(null, array[%s::int8], '{1}', '{0}', '{5}', '{\"{}\"}', '{}', '{}', '{}',"
            " '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',"
            " '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', 0)"
        )
        with pytest.raises(Fenced):
            worker.one(row, (held.progress_id,))
        assert _progress(tables, held) == (None, "{}", 0)

    def test_one_fenced_partition_stops_the_whole_batch_and_is_named(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        kept, lost = worker.claim(0), worker.claim(1)
        make_worker().claim(1)
        with pytest.raises(Fenced, match="1 of 2 partitions have a newer owner") as caught:
            worker.commit([F.result(0)], partitions=[kept.at(5), lost.at(5)])
        assert caught.value.progress_ids == {lost.progress_id}
        assert tables.fan_out() is None
        assert worker.commit([F.result(0)], partitions=[kept.at(5)]).outcomes == [APPLIED]

    def test_fenced_comes_before_rewound_and_conflict(self, worker: Worker, make_worker: Callable[[], Worker]) -> None:
        lost, gone = worker.claim(0), Held(10**9, 1, 0)
        make_worker().claim(0)
        with pytest.raises(Fenced):
            worker.commit([F.result(99)], partitions=[lost.at(5), gone.at(5)])


class TestTheRewind:
    """The database lost commits that it had acknowledged: an asynchronous standby took over."""

    def test_a_missing_row_is_a_rewind(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        tables.rows("delete from fanfold.partition_progress returning 1")
        before = tables.fingerprint()
        with pytest.raises(Rewound) as caught:
            worker.commit([F.result(0)], partitions=[held.at(5)])
        assert caught.value.progress_ids == {held.progress_id}
        assert tables.fingerprint() == before

    def test_a_lower_epoch_is_a_rewind(self, worker: Worker, tables: Tables) -> None:
        worker.claim()
        held = worker.claim()
        tables.rows("update fanfold.partition_progress set epoch = 1 returning 1")
        with pytest.raises(Rewound):
            worker.commit(partitions=[held.at(5)])

    def test_a_lower_commit_seq_under_the_same_epoch_is_a_rewind(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        held = held.after(worker.commit(partitions=[held.at(5)]))
        tables.rows("update fanfold.partition_progress set commit_seq = 0, next_offset = null returning 1")
        with pytest.raises(Rewound, match="1 of 1 partitions are behind"):
            worker.commit([F.result(0)], partitions=[held.at(6)])
        assert tables.fan_out() is None

    def test_after_a_new_claim_work_goes_on_from_where_the_database_stands(
        self, worker: Worker, tables: Tables
    ) -> None:
        held = worker.claim()
        held = held.after(worker.commit(partitions=[held.at(5)]))
        tables.rows("update fanfold.partition_progress set commit_seq = 0, next_offset = 2 returning 1")
        with pytest.raises(Rewound):
            worker.commit(partitions=[held.at(6)])
        claim = worker.claim_in_full()
        assert claim.next_offset == 2
        again = Held(claim.progress_id, claim.epoch, claim.commit_seq)
        assert worker.commit(partitions=[again.at(3)]).commit_seqs == [1]


def test_a_commit_whose_answer_was_lost_may_be_sent_again_and_answers_the_next_seq(
    worker: Worker, tables: Tables
) -> None:
    held = worker.claim()
    assert worker.commit([F.result(0)], partitions=[held.at(5)]).commit_seqs == [1]
    # The answer never arrived, so the client still believes in seq 0.
    again = worker.commit([F.result(0)], partitions=[held.at(5)])
    assert (again.outcomes, again.commit_seqs) == ([DUPLICATE], [2])
    held = held.after(again)
    assert worker.commit([F.result(1)], partitions=[held.at(6)]).commit_seqs == [3]
    assert _progress(tables, held) == (6, "{}", 3)


def test_progress_that_would_go_back_is_refused_and_nothing_is_stored(worker: Worker, tables: Tables) -> None:
    other, held = worker.claim(1), worker.claim(0)
    held = held.after(worker.commit(partitions=[held.at(5)]))
    before = tables.fingerprint()
    with pytest.raises(StoreRejected, match=f"progress of partition {held.progress_id} would go back") as caught:
        worker.commit([F.result(0)], partitions=[other.at(9), held.at(4)])
    assert caught.value.sqlstate == "ZF005"
    assert tables.fingerprint() == before


def test_progress_may_stand_still(worker: Worker, tables: Tables) -> None:
    held = worker.claim()
    held = held.after(worker.commit(partitions=[held.at(5)]))
    worker.commit(partitions=[held.at(5, ((7, 8),))])
    assert _progress(tables, held) == (5, "{[7,8)}", 2)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_snapshot_older_than_the_lock_is_refused(worker: Worker, tables: Tables, level: str) -> None:
    worker.connection.execute(f"set default_transaction_isolation = '{level}'".encode())
    with pytest.raises(StoreRejected, match=f"needs READ COMMITTED, not {level}") as caught:
        worker.commit([F.result(0)])
    assert caught.value.sqlstate == "ZF004"
    assert tables.fan_out() is None


def test_a_commit_inside_the_callers_own_transaction_goes_with_it(worker: Worker, tables: Tables) -> None:
    with worker.connection.transaction(force_rollback=True):
        assert worker.commit([F.result(0)]).outcomes == [APPLIED]
    assert tables.fan_out() is None
    with worker.connection.transaction():
        worker.commit([F.result(0)])
    assert tables.fan_out() is not None


class TestDeadLetters:
    def test_a_dead_letter_and_its_progress_move_together_with_the_bytes_as_they_were(
        self, worker: Worker, tables: Tables
    ) -> None:
        held = worker.claim()
        worker.commit([F.result(0)], partitions=[held.at(5)], dead_letters=[_letter(held)])
        assert tables.rows(
            "select group_id, topic, topic_id, partition, record_offset, key, value, headers, code, error, task_id"
            " from fanfold.dead_letter"
        ) == [("g", TOPIC, "topic-id-1", 0, 4, b"key", b"\xff\x00raw", b"headers", "E_FRAME", "boom", None)]
        assert _progress(tables, held)[0] == 5

    def test_a_dead_letter_of_a_known_task_says_which(self, worker: Worker, tables: Tables) -> None:
        held, task = worker.claim(), F.task(0)
        letter = DeadLetter(held.progress_id, 4, None, None, None, "E_HANDLER", "boom", task)
        worker.commit(partitions=[held.at(5)], dead_letters=[letter])
        assert tables.rows("select thread_id, fan_out_id, task_id from fanfold.dead_letter") == [
            ("t1", "f1", task.task_id)
        ]

    def test_sent_twice_it_is_parked_once(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        for _ in range(2):
            worker.commit(partitions=[held.at(5)], dead_letters=[_letter(held), _letter(held)])
        assert tables.value("select count(*) from fanfold.dead_letter") == 1

    def test_a_fenced_owner_parks_nothing(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        held = worker.claim()
        make_worker().claim()
        with pytest.raises(Fenced):
            worker.commit(partitions=[held.at(5)], dead_letters=[_letter(held)])
        assert tables.value("select count(*) from fanfold.dead_letter") == 0

    def test_a_conflict_parks_nothing_yet(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        with pytest.raises(Conflict):
            worker.commit([F.result(3)], partitions=[held.at(5)], dead_letters=[_letter(held)])
        assert tables.value("select count(*) from fanfold.dead_letter") == 0

    def test_a_dead_letter_of_a_partition_outside_the_commit_is_refused_not_lost(
        self, worker: Worker, tables: Tables
    ) -> None:
        held, other = worker.claim(0), worker.claim(1)
        with pytest.raises(StoreRejected, match="a dead letter of a partition whose progress"):
            worker.commit(partitions=[held.at(5)], dead_letters=[_letter(other)])
        assert _progress(tables, held)[0] is None

    def test_an_error_text_that_postgres_cannot_take_is_made_storable(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        worker.commit(partitions=[held.at(5)], dead_letters=[_letter(held, error="a\0b\ud800c é")])
        assert tables.value("select error from fanfold.dead_letter") == "a\\0b\\ud800c é"


def test_every_refusal_has_its_own_sqlstate_and_none_of_them_passes_for_an_outage(database: Database) -> None:
    with database.connect_as_worker() as connection:
        for state in ("ZF001", "ZF002", "ZF003", "ZF004", "ZF005"):
            with pytest.raises(psycopg.DatabaseError) as caught:
                connection.execute(f"do $$ begin raise exception 'x' using errcode = '{state}'; end $$".encode())
            assert caught.value.sqlstate == state
            assert not isinstance(caught.value, psycopg.OperationalError)
