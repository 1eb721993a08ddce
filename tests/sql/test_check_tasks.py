"""check_tasks: what a member is told before a handler runs is what the commit would answer.

The random test of commit_results compares them too.
"""

from __future__ import annotations

from itertools import product

import pytest

from fanfold_sql import Conflict, Finished
from tests.sql.support import FanOutSpec, Tables, Worker

F = FanOutSpec(size=2, base=(("main", 4),))


def _committed(worker: Worker, result: Finished) -> str:
    """What a commit of this result alone answers, without doing it."""
    with worker.connection.transaction(force_rollback=True):
        try:
            return worker.outcomes(result)[0].value
        except Conflict:
            return "conflict"


def test_unknown_tasks_must_run(worker: Worker) -> None:
    assert worker.check(F.result(0), FanOutSpec(id="f2").result(0)) == [None, None]


def test_no_tasks_have_no_verdicts(worker: Worker) -> None:
    assert worker.check() == []


def test_a_check_changes_nothing(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    before = tables.fingerprint()
    worker.check(F.result(0), F.result(1), FanOutSpec(id="new", base=(("main", 9),)).result(0))
    assert tables.fingerprint() == before


def test_each_verdict(worker: Worker) -> None:
    quorum = FanOutSpec(id="q", size=3, quorum=1)
    worker.commit([F.result(0), quorum.result(0)])
    stale = FanOutSpec(id="old", base=(("main", 3),))
    batch = [F.result(1), F.result(0), F.result(0, arg_hash=8), stale.result(0), quorum.result(1), F.result(0, run=2)]
    assert worker.check(*batch) == [None, "duplicate", "conflict", "stale", "closed", None]


def test_a_stale_task_is_stale_before_it_is_a_conflict_so_that_it_is_not_parked(worker: Worker) -> None:
    worker.commit([F.result(0)])
    worker.commit([FanOutSpec(id="next", base=(("main", 5),)).result(0)])
    assert worker.check(F.result(0), F.result(0, arg_hash=8)) == ["stale", "stale"]


def test_a_fold_of_a_superseded_run_is_stale_not_a_duplicate(worker: Worker) -> None:
    worker.commit(F.results())
    worker.commit([F.fold_result()])
    worker.reopen("f1", F.task(0).task_id)
    worker.commit([F.result(0, run=2)])
    assert worker.check(F.fold_result(run=1), F.fold_result(run=2)) == ["stale", None]


# Every state that a small fan-out can be brought into, by what was committed before and in this order.
_HISTORIES = {
    "nothing": [],
    "one result": [("result", 0, 1)],
    "one failure": [("failure", 0, 1)],
    "a higher run": [("result", 0, 2)],
    "complete": [("result", 0, 1), ("result", 1, 1)],
    "folded": [("result", 0, 1), ("result", 1, 1), ("fold", -1, 1)],
    "reopened": [("result", 0, 1), ("result", 1, 1), ("fold", -1, 1), ("reopen", 0, 0)],
    "complete again": [("result", 0, 1), ("result", 1, 1), ("fold", -1, 1), ("reopen", 0, 0), ("result", 0, 2)],
    "superseded": [("result", 0, 1), ("move", 0, 0)],
    "complete and superseded": [("result", 0, 1), ("result", 1, 1), ("move", 0, 0)],
}


@pytest.mark.parametrize("quorum", [None, 1, 2])
@pytest.mark.parametrize("history", _HISTORIES)
def test_a_verdict_is_what_the_commit_then_answers(worker: Worker, history: str, quorum: int | None) -> None:
    spec = F.but(quorum=quorum)
    for what, index, run in _HISTORIES[history]:
        if what == "reopen":
            worker.reopen("f1", spec.task(index).task_id)
        elif what == "move":
            worker.commit([FanOutSpec(id="next", base=(("main", 5),)).result(0)])
        else:
            worker.commit([spec.result(index, run=run, payload=None if what == "failure" else b"1")])
    candidates = [
        spec.result(index, run=run, arg_hash=arg_hash, payload=payload)
        for index, run, arg_hash, payload in product((-1, 0, 1), (1, 2, 3), (7, 8), (b"1", None))
    ]
    for result, verdict in zip(candidates, worker.check(*candidates), strict=True):
        answer = _committed(worker, result)
        assert verdict == (None if answer == "applied" else answer), result
