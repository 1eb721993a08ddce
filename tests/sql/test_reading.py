"""Reading procedures: results by page, fan-outs by state, threads; pruning."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_schemas import FOLD_INDEX
from fanfold_sql import DeadLetter
from tests.sql.support import FanOutSpec, Tables, Worker

F = FanOutSpec()


def _page(worker: Worker, after: int, limit: int, fan_out_id: str = "f1") -> list[tuple[Any, ...]]:
    return worker.connection.execute(
        "select index, run, status, payload from fanfold.read_results(%s, %s::int4, %s::int4)",
        (fan_out_id, after, limit),
    ).fetchall()


def _fan_outs(
    worker: Worker,
    *,
    ids: list[str] | None = None,
    thread_id: str | None = None,
    state: str | None = None,
    limit: int = 50,
) -> list[tuple[Any, ...]]:
    return worker.connection.execute(
        "select fan_out_id, state from fanfold.list_fan_outs(%s::text[], %s::text, %s::text, %s::int4)",
        (ids, thread_id, state, limit),
    ).fetchall()


class TestResults:
    def test_results_come_in_index_order_whatever_order_they_arrived_in(self, worker: Worker) -> None:
        spec = F.but(size=12)
        for index in (7, 0, 11, 3, 1, 10, 2, 5, 4, 6, 9, 8):
            worker.commit([spec.result(index, payload=b"%d" % index)])
        assert [row[0] for row in _page(worker, -1, 100)] == list(range(12))

    def test_pages_of_any_size_give_everything_once(self, worker: Worker) -> None:
        worker.commit(F.but(size=10).results())
        for limit in (1, 3, 10, 11):
            seen: list[int] = []
            while page := _page(worker, seen[-1] if seen else -1, limit):
                seen += [row[0] for row in page]
            assert seen == list(range(10))

    def test_the_folds_own_result_is_read_from_minus_two(self, worker: Worker) -> None:
        worker.commit(F.results())
        worker.commit([F.fold_result(payload=b"sum")])
        assert [row[0] for row in _page(worker, -1, 9)] == [0, 1, 2]
        assert _page(worker, -2, 1) == [(FOLD_INDEX, 1, "done", b"sum")]

    def test_failures_are_read_without_a_payload(self, worker: Worker) -> None:
        worker.commit([F.failure(0), F.result(1)])
        assert _page(worker, -1, 9) == [(0, 1, "failed", None), (1, 1, "done", b"\x01")]

    def test_an_unknown_fan_out_has_no_results(self, worker: Worker) -> None:
        assert _page(worker, -1, 9, "unknown") == []


class TestFanOuts:
    @pytest.fixture
    def all_states(self, worker: Worker) -> Worker:
        """One fan-out in each state, named after it."""
        worker.commit([F.but(id="open").result(0), *F.but(id="folding").results()])
        for name, payload in (("done", b"42"), ("failed", None)):
            worker.commit(F.but(id=name).results())
            worker.commit([F.but(id=name).fold_result(payload=payload)])
        worker.commit(F.but(id="foldless", fold=None).results())
        return worker

    def test_each_state_is_named(self, all_states: Worker) -> None:
        assert dict(_fan_outs(all_states)) == {
            "open": "open",
            "folding": "folding",
            "done": "done",
            "failed": "failed",
            "foldless": "done",
        }

    def test_what_the_thread_moved_past_is_stale_unless_it_was_done(self, all_states: Worker) -> None:
        spec = FanOutSpec(id="superseded", thread_id="moved", base=(("", 1),))
        all_states.commit([spec.result(0), *spec.but(id="finished", fold=None).results()])
        all_states.commit([spec.but(id="newer", base=(("", 2),)).result(0)])
        assert dict(_fan_outs(all_states, thread_id="moved")) == {
            "superseded": "stale",
            "finished": "done",
            "newer": "open",
        }
        assert [row[0] for row in _fan_outs(all_states, state="stale")] == ["superseded"]

    def test_a_reopened_fan_out_is_open_then_folding_until_its_new_fold_is_in(self, all_states: Worker) -> None:
        spec = F.but(id="done")
        all_states.reopen("done", spec.task(0).task_id)
        assert _fan_outs(all_states, ids=["done"])[0][1] == "open"
        all_states.commit([spec.result(0, run=2)])
        assert _fan_outs(all_states, ids=["done"])[0][1] == "folding"
        all_states.commit([spec.fold_result(run=2, payload=b"43")])
        assert _fan_outs(all_states, ids=["done"])[0] == ("done", "done")

    def test_filters_combine(self, all_states: Worker) -> None:
        all_states.commit([FanOutSpec(id="elsewhere", thread_id="t2").result(0)])
        assert [row[0] for row in _fan_outs(all_states, thread_id="t2")] == ["elsewhere"]
        assert {row[0] for row in _fan_outs(all_states, state="open")} == {"open", "elsewhere"}
        assert [row[0] for row in _fan_outs(all_states, state="open", thread_id="t1")] == ["open"]
        assert {row[0] for row in _fan_outs(all_states, ids=["open", "failed", "unknown"])} == {"open", "failed"}
        assert _fan_outs(all_states, ids=[]) == []

    def test_the_newest_come_first_and_the_limit_holds(self, worker: Worker) -> None:
        for number in range(5):
            worker.commit([F.but(id=f"f{number}").result(0)])
        assert [row[0] for row in _fan_outs(worker, limit=3)] == ["f4", "f3", "f2"]


def test_a_thread_is_read_with_its_clock(worker: Worker) -> None:
    worker.commit([F.but(base=(("main", 4),)).result(0)])
    assert worker.one("select thread_id, clock from fanfold.read_thread('t1')") == ("t1", {"main": 4})
    assert worker.connection.execute("select * from fanfold.read_thread('unknown')").fetchall() == []


class TestPrune:
    PRUNE = "select fan_outs, results, threads, dead_letters from fanfold.prune(now() + interval '1 hour', %s::int4)"

    def test_finished_fan_outs_go_with_their_results_and_threads(self, worker: Worker, tables: Tables) -> None:
        worker.commit(F.results())
        worker.commit([F.fold_result()])
        worker.commit(F.but(id="foldless", thread_id="t2", fold=None).results())
        assert worker.one(self.PRUNE, (100,)) == (2, 7, 2, 0)
        assert tables.value("select count(*) from fanfold.result") == 0
        assert tables.queued_folds() == []
        assert worker.one(self.PRUNE, (100,)) == (0, 0, 0, 0)

    def test_open_folding_and_young_fan_outs_stay(self, worker: Worker, tables: Tables) -> None:
        worker.commit([F.but(id="open").result(0), *F.but(id="folding").results()])
        worker.commit(F.but(id="young", thread_id="t2", fold=None).results())
        before = tables.fingerprint()
        assert worker.one("select fan_outs from fanfold.prune(now() - interval '1 hour', 100)") == (0,)
        assert tables.fingerprint() == before
        assert worker.one(self.PRUNE, (100,)) == (1, 3, 1, 0)
        assert tables.rows("select fan_out_id from fanfold.fan_out order by 1") == [("folding",), ("open",)]

    def test_a_stale_fan_out_goes_although_it_never_completed(self, worker: Worker, tables: Tables) -> None:
        superseded = F.but(id="superseded", base=(("", 1),))
        worker.commit([superseded.result(0)])
        worker.commit([superseded.but(id="newer", base=(("", 2),)).result(0)])
        assert worker.one(self.PRUNE, (100,)) == (1, 1, 0, 0)
        assert tables.rows("select fan_out_id from fanfold.fan_out") == [("newer",)]

    def test_a_fan_out_that_waits_for_the_fold_of_a_rerun_stays(self, worker: Worker, tables: Tables) -> None:
        worker.commit(F.results())
        worker.commit([F.fold_result()])
        worker.reopen("f1", F.task(0).task_id)
        assert worker.one(self.PRUNE, (100,))[0] == 0
        worker.commit([F.result(0, run=2)])
        assert worker.one(self.PRUNE, (100,))[0] == 0
        worker.commit([F.fold_result(run=2)])
        assert worker.one(self.PRUNE, (100,))[0] == 1

    def test_a_call_deletes_no_more_than_its_limit_oldest_first(self, worker: Worker, tables: Tables) -> None:
        held = worker.claim()
        for number in range(5):
            worker.commit(F.but(id=f"f{number}", thread_id=f"t{number}", fold=None).results())
        letters = [DeadLetter(held.progress_id, n, None, None, None, "E", "e") for n in range(5)]
        worker.commit(partitions=[held.at(5)], dead_letters=letters)
        assert worker.one(self.PRUNE, (2,)) == (2, 6, 2, 2)
        left = tables.rows("select fan_out_id from fanfold.fan_out order by 1")
        assert left == [("f2",), ("f3",), ("f4",)]
        assert worker.one(self.PRUNE, (2,)) == (2, 6, 2, 2)
        assert worker.one(self.PRUNE, (2,)) == (1, 3, 1, 1)

    def test_a_thread_stays_while_another_of_its_fan_outs_does(self, worker: Worker, tables: Tables) -> None:
        worker.commit(F.but(id="done", fold=None, base=(("main", 3),)).results())
        worker.commit([F.but(id="open").result(0)])
        assert worker.one(self.PRUNE, (100,)) == (1, 3, 0, 0)
        assert tables.clock() == {"main": 3}

    def test_other_records_of_the_outbox_stay(self, worker: Worker, tables: Tables) -> None:
        worker.one("select fanfold.enqueue('{out}', '{k}', '{v}', '{h}', '{0}')")
        worker.commit(F.results())
        worker.commit([F.fold_result()])
        worker.one(self.PRUNE, (100,))
        assert tables.rows("select value from fanfold.outbox") == [(b"v",)]
