"""claim, renew, release, reset and list: who holds a partition and from where it is read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fanfold_sql import Fenced
from tests.sql.support import CLUSTER, TOPIC, TOPIC_ID, Held, Tables, Worker
from tests.support.wait import eventually


def _renew(worker: Worker, *held: Held) -> dict[int, bool]:
    rows = worker.connection.execute(
        "select progress_id, vacant from fanfold.renew_partitions(%s, %s::int8[], %s::int8[])",
        (worker.owner, [one.progress_id for one in held], [one.epoch for one in held]),
    ).fetchall()
    return dict(rows)


def _release(worker: Worker, *held: Held) -> None:
    worker.one(
        "select fanfold.release_partitions(%s, %s::int8[], %s::int8[])",
        (worker.owner, [one.progress_id for one in held], [one.epoch for one in held]),
    )


def _reset(worker: Worker, partition: int, epoch: int, next_offset: int) -> bool:
    return bool(
        worker.one(
            "select fanfold.reset_partition('g', %s, %s, %s, %s::int4, %s::int8, %s::int8)",
            (CLUSTER, TOPIC, TOPIC_ID, partition, epoch, next_offset),
        )[0]
    )


def _stop(worker: Worker, held: Held, stopped: str = "gone") -> bool:
    return bool(
        worker.one(
            "select fanfold.stop_partition(%s, %s::int8, %s::int8, %s, 'why')",
            (worker.owner, held.progress_id, held.epoch, stopped),
        )[0]
    )


def _begin(worker: Worker, *next_offsets: int, group: str = "g", topic_id: str = TOPIC_ID) -> None:
    worker.one(
        "select fanfold.begin_group(%s, %s, %s, %s, %s::int8[])", (group, CLUSTER, TOPIC, topic_id, list(next_offsets))
    )


def _owner(tables: Tables, held: Held) -> Any:
    return tables.value("select owner from fanfold.partition_progress where progress_id = %s", held.progress_id)


class TestClaim:
    def test_every_claim_raises_the_epoch_and_keeps_the_progress(self, worker: Worker) -> None:
        held = worker.claim()
        worker.commit(partitions=[held.at(5, ((6, 7),))])
        for epoch in (2, 3):
            claim = worker.claim_in_full()
            assert (claim.epoch, claim.next_offset, claim.islands, claim.commit_seq) == (epoch, 5, ((6, 7),), 1)

    def test_groups_partitions_and_topic_ids_have_progress_of_their_own(self, worker: Worker) -> None:
        ids = {
            worker.claim(0).progress_id,
            worker.claim(1).progress_id,
            worker.claim(0, group="other").progress_id,
            worker.claim(0, topic_id="recreated").progress_id,
        }
        assert len(ids) == 4

    def test_a_partition_has_the_same_id_after_the_database_forgot_it(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim(0)
        tables.rows("delete from fanfold.partition_progress returning 1")
        worker.claim(1)
        assert worker.claim(0).progress_id == held.progress_id

    def test_a_recreated_topic_starts_from_its_beginning_and_says_so(self, worker: Worker) -> None:
        held = worker.claim()
        worker.commit(partitions=[held.at(100)])
        claim = worker.claim_in_full(topic_id="recreated")
        assert (claim.next_offset, claim.commit_seq, claim.previous_topic_id) == (None, 0, TOPIC_ID)
        assert worker.claim_in_full().previous_topic_id == "recreated"

    def test_a_topic_that_was_never_recreated_has_no_previous_id(self, worker: Worker) -> None:
        worker.claim(1)
        worker.claim(0, group="other")
        assert worker.claim_in_full(0).previous_topic_id is None


class TestRenew:
    def test_an_owner_that_lives_loses_nothing(self, worker: Worker, tables: Tables) -> None:
        held = [worker.claim(partition) for partition in range(2)]
        tables.rows("update fanfold.partition_progress set seen_at = now() - interval '1 hour' returning 1")
        assert _renew(worker, *held) == {}
        assert tables.value("select bool_and(seen_at > now() - interval '1 minute') from fanfold.partition_progress")

    def test_a_partition_that_somebody_else_claimed_is_lost(
        self, worker: Worker, make_worker: Callable[[], Worker]
    ) -> None:
        kept, lost = worker.claim(0), worker.claim(1)
        make_worker().claim(1)
        assert _renew(worker, kept, lost) == {lost.progress_id: False}

    def test_a_partition_that_an_operator_reset_is_lost_and_vacant(self, worker: Worker) -> None:
        held = worker.claim()
        assert _reset(worker, 0, 1, 0)
        assert _renew(worker, held) == {held.progress_id: True}

    def test_a_partition_that_the_database_forgot_is_lost_and_vacant(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        tables.rows("delete from fanfold.partition_progress returning 1")
        assert _renew(worker, held) == {held.progress_id: True}

    def test_an_owner_of_nothing_loses_nothing(self, worker: Worker) -> None:
        assert _renew(worker) == {}


class TestRelease:
    def test_a_released_partition_has_no_owner_and_keeps_its_progress(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        worker.commit(partitions=[held.at(5)])
        _release(worker, held)
        assert _owner(tables, held) is None
        claim = worker.claim_in_full()
        assert (claim.epoch, claim.next_offset) == (2, 5)

    def test_a_partition_that_somebody_else_holds_by_now_is_left_alone(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        held, other = worker.claim(), make_worker()
        other.claim()
        _release(worker, held)
        assert _owner(tables, held) == other.owner


class TestReset:
    def test_a_reset_moves_back_forgets_the_islands_and_fences_the_owner(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        held = held.after(worker.commit(partitions=[held.at(50, ((60, 70),))]))
        assert _reset(worker, 0, 1, 10)
        with pytest.raises(Fenced):
            worker.commit(partitions=[held.at(51)])
        claim = worker.claim_in_full()
        assert (claim.epoch, claim.next_offset, claim.islands, claim.commit_seq) == (3, 10, (), 1)

    def test_a_reset_on_an_old_picture_is_refused(self, worker: Worker, tables: Tables) -> None:
        worker.claim()
        worker.claim()
        before = tables.fingerprint()
        assert not _reset(worker, 0, 1, 10)
        assert tables.fingerprint() == before

    def test_a_partition_without_progress_is_reset_only_if_there_is_still_none(self, worker: Worker) -> None:
        assert _reset(worker, 0, -1, 10)
        assert not _reset(worker, 0, -1, 20)
        claim = worker.claim_in_full()
        assert (claim.epoch, claim.next_offset) == (2, 10)

    def test_a_partition_nobody_knows_has_no_epoch_to_match(self, worker: Worker) -> None:
        assert not _reset(worker, 7, 1, 10)


class TestStop:
    def test_a_log_that_lost_the_offset_is_read_by_no_later_owner_until_a_reset(self, worker: Worker) -> None:
        assert _stop(worker, worker.claim())
        assert worker.claim_in_full().stopped_because == "why"
        assert worker.claim_in_full().stopped_because == "why"
        assert _reset(worker, 0, 3, 10)
        assert worker.claim_in_full().stopped_because is None

    def test_a_batch_that_cannot_be_read_is_tried_again_by_the_next_owner(self, worker: Worker) -> None:
        assert _stop(worker, worker.claim(), "unreadable")
        assert worker.claim_in_full().stopped_because is None
        assert worker.one("select stopped, stopped_because from fanfold.list_partitions('g', null)") == (None, None)

    def test_only_the_owner_says_that_a_partition_stopped(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        held, other = worker.claim(), make_worker()
        other.claim()
        before = tables.fingerprint()
        assert not _stop(worker, held)
        assert tables.fingerprint() == before

    def test_what_was_in_flight_when_it_stopped_can_still_be_committed(self, worker: Worker) -> None:
        held = worker.claim()
        _stop(worker, held)
        worker.commit(partitions=[held.at(5)])
        claim = worker.claim_in_full()
        assert (claim.next_offset, claim.stopped_because) == (5, "why")


class TestBegin:
    def test_all_partitions_begin_together_and_one_that_is_added_later_has_no_offset(self, worker: Worker) -> None:
        worker.claim(1)
        _begin(worker, 7, 8, 9)
        assert [worker.claim_in_full(number).next_offset for number in range(4)] == [7, 8, 9, None]

    def test_claims_made_before_are_fenced(self, worker: Worker) -> None:
        held = worker.claim()
        _begin(worker, 7)
        with pytest.raises(Fenced):
            worker.commit(partitions=[held.at(8)])

    @pytest.mark.parametrize("topic_id", [TOPIC_ID, "recreated"])
    def test_a_group_that_has_progress_in_a_topic_of_this_name_does_not_begin_again(
        self, worker: Worker, topic_id: str
    ) -> None:
        worker.commit(partitions=[worker.claim(1).at(3)])
        _begin(worker, 7, 8, topic_id=topic_id)
        assert worker.claim_in_full(0, topic_id=topic_id).next_offset is None

    def test_the_progress_of_other_groups_is_none_of_its_business(self, worker: Worker) -> None:
        worker.commit(partitions=[worker.claim(1, group="other").at(3)])
        _begin(worker, 7, 8)
        assert worker.claim_in_full(0).next_offset == 7

    def test_of_two_that_begin_at_once_the_first_decides(
        self, worker: Worker, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        other = make_worker()
        with ThreadPoolExecutor(1) as pool:
            with worker.connection.transaction():
                _begin(worker, 7, 8)
                later = pool.submit(_begin, other, 70, 80)
                eventually(lambda: tables.value("select count(*) from pg_locks where not granted"))
            later.result(20)
        assert [worker.claim_in_full(number).next_offset for number in (0, 1)] == [7, 8]


class TestList:
    def _list(self, worker: Worker, group: str | None, topic: str | None) -> list[tuple[Any, ...]]:
        return worker.connection.execute(
            "select group_id, partition, epoch, owner, next_offset, islands, idle_seconds"
            " from fanfold.list_partitions(%s::text, %s::text)",
            (group, topic),
        ).fetchall()

    def test_partitions_are_listed_with_their_owners_in_order(self, worker: Worker) -> None:
        for partition, group in ((1, "g"), (0, "g"), (0, "a")):
            worker.claim(partition, group=group)
        rows = self._list(worker, None, None)
        assert [row[:2] for row in rows] == [("a", 0), ("g", 0), ("g", 1)]
        assert {row[3] for row in rows} == {worker.owner}
        assert all(0 <= row[6] < 60 for row in rows)

    def test_filters_narrow_the_list(self, worker: Worker) -> None:
        worker.claim(0, group="a")
        worker.claim(0, group="g")
        assert [row[0] for row in self._list(worker, "a", None)] == ["a"]
        assert len(self._list(worker, None, TOPIC)) == 2
        assert self._list(worker, "a", "other") == []

    def test_a_partition_without_an_owner_is_not_idle_but_vacant(self, worker: Worker) -> None:
        held = worker.claim()
        worker.commit(partitions=[held.at(5, ((7, 9),))])
        _release(worker, held)
        assert self._list(worker, "g", None) == [("g", 0, 1, None, 5, "{[7,9)}", None)]
