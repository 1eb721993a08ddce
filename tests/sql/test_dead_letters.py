"""Dead letters in Postgres: listed by any filter, locked, judged and marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from fanfold_schemas import FOLD_INDEX, Task
from fanfold_sql import DeadLetter, DeadLetterFilter, Finished, StoreRejected
from fanfold_sql.dead_letters import COUNT_DEAD_LETTERS, LIST_DEAD_LETTERS, filter_parameters
from tests.sql.support import APPLIED, TOPIC, FanOutSpec, Held, Tables, Worker

F = FanOutSpec()
HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Parked:
    """Parks records of one partition, each with the progress past it; offset and id are the same."""

    worker: Worker
    held: Held
    offset: int = 1

    def park(self, code: str = "E_FRAME", task: Task | None = None, results: Sequence[Finished] = ()) -> int:
        letter = DeadLetter(self.held.progress_id, self.offset, b"k", b"value", b"h", code, "boom", task)
        reply = self.worker.commit(results, partitions=[self.held.at(self.offset + 1)], dead_letters=[letter])
        self.held = self.held.after(reply)
        self.offset += 1
        return self.offset - 1

    def fail(self, spec: FanOutSpec, index: int, *, run: int = 1, code: str = "E_HANDLER") -> int:
        """As a member does with a task that failed for good."""
        return self.park(code, spec.task(index, run=run), [spec.failure(index, run=run)])

    def listed(self, after: int = 0, limit: int = 9, with_bytes: bool = False, **where: Any) -> list[tuple[Any, ...]]:
        parameters = [*filter_parameters(DeadLetterFilter(**where)), with_bytes, after, limit]
        return self.worker.connection.execute(LIST_DEAD_LETTERS, parameters, binary=True).fetchall()

    def ids(self, **options: Any) -> list[int]:
        return [row[0] for row in self.listed(**options)]

    def judged(self, dead_letter_id: int) -> dict[str, Any]:
        names = "resolution, newer_id, ended_by, fan_out_run, complete, refused, status, run, index, arg_hash"
        row = self.worker.one(f"select {names} from fanfold.judge_dead_letters(%s::int8[])", ([dead_letter_id],))
        return dict(zip(names.split(", "), row, strict=True))

    def resolve(self, *ids: int, as_what: str = "dropped") -> list[int]:
        answer: list[int] = self.worker.one(
            "select fanfold.resolve_dead_letters(%s::int8[], %s)", (list(ids), as_what)
        )[0]
        return answer

    def reopen_fold(self, fan_out_id: str = "f1") -> int | None:
        run: int | None = self.worker.one("select fanfold.reopen_fold(%s)", (fan_out_id,))[0]
        return run


@pytest.fixture
def parked(worker: Worker) -> Parked:
    return Parked(worker, worker.claim())


class TestListing:
    def test_they_come_oldest_first_by_page(self, parked: Parked) -> None:
        for _ in range(5):
            parked.park()
        assert parked.ids(limit=2) == [1, 2]
        assert parked.ids(after=2, limit=2) == [3, 4]
        assert parked.ids(after=5) == []

    def test_each_filter_lets_through_what_it_says_and_they_combine(self, parked: Parked) -> None:
        other = F.but(id="f2", thread_id="t2")
        undecodable, first, second = parked.park(), parked.fail(F, 0), parked.fail(other, 1, code="E_ARG")
        assert parked.ids(codes=["E_FRAME"]) == [undecodable]
        assert parked.ids(codes=["E_ARG", "E_HANDLER"]) == [first, second]
        assert parked.ids(thread_id="t1") == [first]
        assert parked.ids(fan_out_id="f2") == [second]
        assert parked.ids(task_id=F.task(0).task_id) == [first]
        assert parked.ids(topic=TOPIC, group_id="g") == [1, 2, 3]
        assert parked.ids(topic="other") == parked.ids(group_id="other") == []
        assert parked.ids(ids=[second, 99]) == [second]
        assert parked.ids(codes=["E_ARG"], thread_id="t1") == []

    def test_a_time_lets_through_from_since_on_and_up_to_before_until(self, parked: Parked, tables: Tables) -> None:
        parked.park()
        at = tables.value("select created_at from fanfold.dead_letter")
        assert parked.ids(since=at) == [1]
        assert parked.ids(since=at + HOUR) == []
        assert parked.ids(until=at) == []
        assert parked.ids(until=at + HOUR) == [1]

    def test_bytes_are_given_on_request_only_and_their_size_always(self, parked: Parked) -> None:
        parked.park()
        ((*_, size, key, value, headers, _at, _resolved_at, _resolution),) = parked.listed()
        assert (size, key, value, headers) == (5, None, None, None)
        ((*_, size, key, value, headers, _at, _resolved_at, _resolution),) = parked.listed(with_bytes=True)
        assert (size, key, value, headers) == (5, b"k", b"value", b"h")

    def test_they_are_counted_by_code_with_the_newest_of_each(self, parked: Parked) -> None:
        parked.park("E_HANDLER")
        parked.park("E_FRAME")
        parked.park("E_HANDLER")
        count = filter_parameters(DeadLetterFilter())
        rows = parked.worker.connection.execute(COUNT_DEAD_LETTERS, count, binary=True).fetchall()
        assert rows == [("E_HANDLER", 2, 3), ("E_FRAME", 1, 2)]

    def test_what_was_resolved_is_left_out_on_request(self, parked: Parked) -> None:
        parked.park()
        parked.park()
        parked.resolve(1)
        assert parked.ids(unresolved=True) == [2]
        assert parked.ids() == [1, 2]


class TestResolving:
    def test_a_letter_is_marked_once_and_stays_as_it_was_marked(self, parked: Parked, tables: Tables) -> None:
        parked.park()
        assert parked.resolve(1, as_what="redriven") == [1]
        before = tables.rows("select resolution, resolved_at from fanfold.dead_letter")
        assert parked.resolve(1, as_what="dropped") == []
        assert tables.rows("select resolution, resolved_at from fanfold.dead_letter") == before
        assert before[0][0] == "redriven"

    def test_a_word_that_is_none_of_both_is_refused(self, parked: Parked) -> None:
        parked.park()
        with pytest.raises(StoreRejected, match="resolution"):
            parked.resolve(1, as_what="forgotten")

    def test_dropping_leaves_the_fan_out_and_the_bytes_alone(self, parked: Parked, tables: Tables) -> None:
        parked.fail(F, 0)
        before = tables.fingerprint()
        parked.resolve(1)
        assert tables.fingerprint() == before


class TestJudging:
    def test_a_record_that_did_not_decode_has_no_task_to_judge(self, parked: Parked) -> None:
        parked.park()
        assert {name: said for name, said in parked.judged(1).items() if said} == {}

    def test_a_failed_task_is_found_with_its_result(self, parked: Parked) -> None:
        parked.fail(F, 0)
        said = parked.judged(1)
        assert (said["status"], said["run"], said["index"], said["arg_hash"]) == ("failed", 1, 0, 7)
        assert (said["fan_out_run"], said["complete"], said["ended_by"]) == (1, False, None)

    def test_a_letter_of_a_fan_out_that_was_pruned_finds_none(self, parked: Parked) -> None:
        parked.park("E_HANDLER", F.task(0))
        assert parked.judged(1)["fan_out_run"] is None

    def test_a_later_letter_of_the_task_counts_until_it_is_resolved_and_an_impostors_never(
        self, parked: Parked
    ) -> None:
        first = parked.fail(F, 0)
        parked.worker.reopen("f1", F.task(0).task_id)
        second = parked.fail(F, 0, run=2)
        parked.park("E_CONFLICT", F.task(0))
        assert parked.judged(first)["newer_id"] == second
        assert parked.judged(second)["newer_id"] is None
        parked.resolve(second)
        assert parked.judged(first)["newer_id"] is None

    def test_what_ended_its_fan_out_for_good_is_named(self, parked: Parked) -> None:
        stale = F.but(id="stale", thread_id="t2", base=(("main", 1),))
        parked.fail(F, 0)
        parked.fail(stale, 0)
        parked.worker.cancel("f1")
        parked.worker.commit([F.but(id="later", thread_id="t2", base=(("main", 2),)).result(0)])
        assert (parked.judged(1)["ended_by"], parked.judged(2)["ended_by"]) == ("caller", "stale")

    def test_a_letter_that_names_another_threads_fan_out_finds_none(self, parked: Parked) -> None:
        parked.worker.commit([F.result(0)])
        parked.park("E_CONFLICT", F.but(thread_id="forged").task(0))
        assert parked.judged(1)["fan_out_run"] is None


class TestLocking:
    def test_another_can_neither_resolve_nor_lock_them_nor_commit_to_their_threads(
        self, parked: Parked, make_worker: Callable[[], Worker]
    ) -> None:
        parked.fail(F, 0)
        other = make_worker()
        other.connection.execute("set lock_timeout = '50ms'")
        with parked.worker.connection.transaction():
            parked.worker.one("select fanfold.lock_dead_letters('{1}')")
            for statement in (
                "select fanfold.lock_dead_letters('{1}')",
                "select fanfold.resolve_dead_letters('{1}', 'dropped')",
                "select fanfold.cancel_fan_out('f1', null)",
            ):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.connection.execute(statement.encode())
        assert other.one("select fanfold.resolve_dead_letters('{1}', 'dropped')") == ([1],)

    def test_prune_leaves_out_what_is_being_redriven_and_waits_for_nobody(
        self, parked: Parked, make_worker: Callable[[], Worker], tables: Tables
    ) -> None:
        parked.park()
        parked.park()
        other = make_worker()
        prune = "select dead_letters from fanfold.prune(%s, 10)"
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        with parked.worker.connection.transaction():
            parked.worker.one("select fanfold.lock_dead_letters('{1}')")
            assert other.one(prune, (tomorrow,)) == (1,)
        assert tables.rows("select dead_letter_id from fanfold.dead_letter") == [(1,)]
        assert other.one(prune, (tomorrow,)) == (1,)

    @pytest.mark.parametrize("procedure", ["lock_dead_letters('{1}')", "reopen_fold('f1')"])
    def test_a_snapshot_older_than_the_lock_is_refused(self, parked: Parked, procedure: str) -> None:
        parked.worker.connection.execute("set default_transaction_isolation = 'repeatable read'")
        with pytest.raises(StoreRejected, match="needs READ COMMITTED"):
            parked.worker.one(f"select fanfold.{procedure}")


class TestAFoldThatFailed:
    @pytest.fixture
    def failed(self, parked: Parked) -> Parked:
        parked.worker.commit(F.results())
        parked.worker.commit([F.fold_result(payload=None)])
        return parked

    def test_it_is_queued_once_more_under_a_new_run(self, failed: Parked, tables: Tables) -> None:
        assert failed.reopen_fold() == 2
        assert tables.queued_folds() == [("f1", 1), ("f1", 2)]
        assert tables.fan_out() == {"remaining": 0, "failed": 0, "run": 2, "complete": True}
        assert failed.worker.outcomes(F.fold_result(run=2)) == [APPLIED]
        assert tables.status(F.task(FOLD_INDEX).task_id) == (2, "done", b"\x06")

    def test_it_is_not_queued_twice_for_one_failure(self, failed: Parked, tables: Tables) -> None:
        assert failed.reopen_fold() == 2
        assert failed.reopen_fold() is None
        assert tables.queued_folds() == [("f1", 1), ("f1", 2)]

    def test_nothing_is_queued_for_a_fan_out_that_waits_for_a_rerun(self, failed: Parked, tables: Tables) -> None:
        failed.worker.reopen("f1", F.task(0).task_id)
        assert failed.reopen_fold() is None
        failed.worker.commit([F.result(0, run=2)])
        assert tables.queued_folds() == [("f1", 1), ("f1", 2)]

    def test_nothing_is_queued_for_one_that_is_stale_or_unknown(self, failed: Parked, tables: Tables) -> None:
        based = F.but(id="stale", thread_id="t2", base=(("main", 1),))
        failed.worker.commit(based.results())
        failed.worker.commit([based.fold_result(payload=None)])
        failed.worker.commit([F.but(id="later", thread_id="t2", base=(("main", 2),)).result(0)])
        before = tables.fingerprint()
        assert failed.reopen_fold("stale") is None
        assert failed.reopen_fold("unknown") is None
        assert tables.fingerprint() == before

    def test_a_fold_that_did_not_fail_stands(self, parked: Parked) -> None:
        parked.worker.commit(F.results())
        assert parked.reopen_fold() is None
        parked.worker.commit([F.fold_result()])
        assert parked.reopen_fold() is None
