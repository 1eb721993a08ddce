"""Commits that meet what ends, reopens, forgets or publishes a fan-out, and what was checked before a handler ran."""

from __future__ import annotations

from tests.property.interleave.calls import (
    advance,
    cancel,
    cancel_thread,
    check,
    commit,
    commit_if_needed,
    commit_sql,
    enqueued,
    expire,
    prune,
    relay,
    reopen,
    results,
)
from tests.property.interleave.scenario import Scenario
from tests.sql.support import FanOutSpec

_F = FanOutSpec(size=2)
_BASED = FanOutSpec(size=2, base=(("main", 1),))
_HALF = (commit_sql([_F.result(0)]),)
_COMPLETE = (commit_sql(_F.results()),)
_FOLDED = (*_COMPLETE, commit_sql([_F.fold_result()]))


def cancels() -> list[Scenario]:
    based_half = (commit_sql([_BASED.result(0)]),)
    return [
        Scenario(
            "the last result against a cancel",
            _HALF,
            ((commit(_F.result(1)),), (cancel("f1"), results("f1"))),
            frozenset({"applied completes | cancelled, 2 stored", "closed | cancelled, 1 stored"}),
        ),
        Scenario(
            "the last two results against a cancel",
            (),
            ((commit(_F.result(0)),), (commit(_F.result(1)),), (cancel("f1", "t1"),)),
            frozenset(
                {
                    "applied | applied completes | cancelled",
                    "applied completes | applied | cancelled",
                    "applied | closed | cancelled",
                    "closed | applied | cancelled",
                    "closed | closed | cancelled",
                }
            ),
        ),
        Scenario(
            "the first result against a cancel that does not know the thread",
            (),
            ((commit(_F.result(0)),), (cancel("f1"),)),
            frozenset({"applied | unknown", "applied | cancelled"}),
        ),
        Scenario(
            "the first result, with a base, against a cancel of what nobody has seen",
            (),
            ((commit(_BASED.result(0)),), (cancel("f1", "t1"),)),
            frozenset({"applied | cancelled", "closed | cancelled"}),
        ),
        Scenario(
            "the first result, with a base, against a cancel of its fan-out under another thread",
            (),
            ((commit(_BASED.result(0)),), (cancel("f1", "t2"),)),
            frozenset({"applied | 22023", "closed | cancelled"}),
        ),
        Scenario(
            "the fold's result against a cancel",
            _COMPLETE,
            ((commit(_F.fold_result()),), (cancel("f1"),)),
            frozenset({"applied | done", "closed | cancelled"}),
        ),
        Scenario(
            "a result against the end of its thread",
            based_half,
            ((commit(_BASED.result(1)),), (cancel_thread("t1"), results("f1"))),
            frozenset({"applied completes | cancelled 1, 2 stored", "stale | cancelled 1, 1 stored"}),
        ),
        Scenario(
            "a result against an advance of its thread",
            based_half,
            ((commit(_BASED.result(1)),), (advance("t1", '{"main": 2}'), results("f1"))),
            frozenset({"applied completes | advanced, 2 stored", "stale | advanced, 1 stored"}),
        ),
        Scenario(
            "a result against an advance and the end of its thread",
            based_half,
            ((commit(_BASED.result(1)),), (advance("t1", '{"main": 2}'),), (cancel_thread("t1"),)),
            frozenset({"applied completes | advanced | cancelled 1", "stale | advanced | cancelled 1"}),
        ),
    ]


def limits() -> list[Scenario]:
    failing = FanOutSpec(size=2, deadline_ms=1)
    folding = failing.but(on_deadline="fold")
    strict = FanOutSpec(size=2, max_failures=0)
    return [
        Scenario(
            "the last result against a deadline that fails",
            (commit_sql([failing.result(0)]),),
            ((commit(failing.result(1)),), (expire(), results("f1"))),
            frozenset({"applied completes | expired 0, 2 stored", "closed | expired 1, 1 stored"}),
        ),
        Scenario(
            "the last result against a deadline that folds",
            (commit_sql([folding.result(0)]),),
            ((commit(folding.result(1)),), (expire(), results("f1"))),
            frozenset({"applied completes | expired 0, 2 stored", "closed | expired 1, 1 stored"}),
        ),
        Scenario(
            "two looks at one deadline, and the last result",
            (commit_sql([folding.result(0)]),),
            ((expire(),), (expire(),), (commit(folding.result(1)),)),
            frozenset(
                {
                    "expired 1 | expired 0 | closed",
                    "expired 0 | expired 1 | closed",
                    "expired 0 | expired 0 | applied completes",
                }
            ),
        ),
        Scenario(
            "a deadline against a cancel",
            (commit_sql([failing.result(0)]),),
            ((expire(),), (cancel("f1"),)),
            frozenset({"expired 1 | cancelled", "expired 0 | cancelled"}),
        ),
        Scenario(
            "a deadline against a re-run",
            (commit_sql(folding.results()),),
            ((expire(),), (reopen("f1", 0), commit(folding.result(0, run=2)))),
            frozenset({"expired 0 | run 2, applied completes"}),
        ),
        Scenario(
            "a deadline against a prune",
            (commit_sql(failing.but(fold=None).results()),),
            ((expire(),), (prune(),)),
            frozenset({"expired 0 | pruned 1+0"}),
        ),
        Scenario(
            "one failure too many against the last result",
            (),
            ((commit(strict.failure(0)),), (commit(strict.result(1)), results("f1"))),
            frozenset({"applied | closed, 1 stored", "applied | applied, 1 stored", "applied | applied, 2 stored"}),
        ),
    ]


def reruns() -> list[Scenario]:
    return [
        Scenario(
            "the fold of a run against a re-run",
            _COMPLETE,
            ((commit(_F.fold_result()),), (reopen("f1", 0), commit(_F.result(0, run=2)))),
            frozenset(
                {
                    "applied | run 2, applied completes",
                    "stale | run 2, applied completes",
                }
            ),
        ),
        Scenario(
            "the last result against a re-run of the first",
            _HALF,
            ((commit(_F.result(1)),), (reopen("f1", 0),)),
            frozenset({"applied completes | run 2", "applied | run 2"}),
        ),
        Scenario(
            "two re-runs of different tasks",
            _COMPLETE,
            ((reopen("f1", 0),), (reopen("f1", 1),)),
            frozenset({"run 2 | run 2"}),
        ),
        Scenario(
            "two re-runs of one task and a late result of the second",
            _COMPLETE,
            ((reopen("f1", 0),), (reopen("f1", 0),), (commit(_F.result(0, run=2)),)),
            frozenset(
                {
                    "run 2 | run 2 | applied completes",
                    "run 2 | run 3 | applied completes",
                    "run 3 | run 2 | applied completes",
                    "run 3 | run 3 | applied",
                }
            ),
        ),
        Scenario(
            "a re-run against a cancel",
            _COMPLETE,
            ((reopen("f1", 0), commit(_F.result(0, run=2))), (cancel("f1"),)),
            frozenset({"run 2, applied completes | cancelled", "run 2, closed | cancelled"}),
        ),
        Scenario(
            "a re-run of a quorum against a late result",
            (commit_sql([FanOutSpec(size=3, quorum=1).result(0)]),),
            (
                (reopen("f1", 0), commit(FanOutSpec(size=3, quorum=1).result(0, run=2))),
                (commit(FanOutSpec(size=3, quorum=1).result(1)),),
            ),
            frozenset({"run 2, applied completes | closed", "run 2, applied | applied completes"}),
        ),
    ]


def pruning() -> list[Scenario]:
    other = FanOutSpec(id="f2", size=1)
    return [
        Scenario(
            "prune against a late copy of a result",
            _FOLDED,
            ((prune(),), (commit(_F.result(0)),)),
            frozenset({"pruned 1+0 | duplicate", "pruned 1+0 | applied"}),
        ),
        Scenario(
            "prune against a new fan-out of the same thread",
            _FOLDED,
            ((prune(),), (commit(other.result(0)),)),
            frozenset({"pruned 1+0 | applied completes"}),
        ),
        Scenario(
            "prune against a re-run",
            _FOLDED,
            ((prune(),), (reopen("f1", 0),)),
            frozenset({"pruned 1+0 | run None", "pruned 0+0 | run 2"}),
        ),
        Scenario(
            "prune against the fold that finishes a fan-out",
            _COMPLETE,
            ((prune(),), (commit(_F.fold_result()),)),
            frozenset({"pruned 0+0 | applied", "pruned 1+0 | applied"}),
        ),
        Scenario(
            "two prunes at once, and a result",
            _FOLDED,
            ((prune(),), (prune(),), (commit(other.result(0)),)),
            frozenset({"pruned 1+0 | pruned 0+0 | applied completes", "pruned 0+0 | pruned 1+0 | applied completes"}),
        ),
        Scenario(
            "prune against a cancel",
            _HALF,
            ((prune(),), (cancel("f1"),), (commit(_F.result(1)),)),
            frozenset(
                {
                    "pruned 0+0 | cancelled | applied completes",
                    "pruned 0+0 | cancelled | closed",
                    "pruned 1+0 | cancelled | applied completes",
                    "pruned 1+0 | cancelled | applied",
                    "pruned 1+0 | cancelled | closed",
                }
            ),
        ),
    ]


def outbox() -> list[Scenario]:
    return [
        Scenario(
            "two relays",
            (enqueued("one", "two", "three"),),
            ((relay(2),), (relay(2),)),
            frozenset({"took 2 | took 1", "took 1 | took 2"}),
        ),
        Scenario(
            "three relays, and a record too few",
            (enqueued("one", "two"),),
            ((relay(1),), (relay(1),), (relay(1),)),
            frozenset({"took 1 | took 1 | took 0", "took 1 | took 0 | took 1", "took 0 | took 1 | took 1"}),
        ),
        Scenario(
            "two relays against a commit that queues a fold",
            (*_HALF, enqueued("one")),
            ((relay(9),), (relay(9),), (commit(_F.result(1), lease_ms=0),)),
            frozenset(
                {
                    "took 1 | took 0 | applied completes",
                    "took 1 | took 1 | applied completes",
                    "took 0 | took 1 | applied completes",
                    "took 2 | took 0 | applied completes",
                    "took 0 | took 2 | applied completes",
                }
            ),
        ),
    ]


def checks() -> list[Scenario]:
    quorum = FanOutSpec(size=3, quorum=1)
    newer = FanOutSpec(id="newer", size=1, base=(("main", 2),))
    return [
        Scenario(
            "a task checked and committed, and another delivery of it between",
            (),
            ((check(_F.result(0)), commit_if_needed(_F.result(0))), (commit(_F.result(0)),)),
            frozenset({"duplicate | applied", "run, duplicate | applied", "run, applied | duplicate"}),
        ),
        Scenario(
            "a task checked and committed, and a newer base between",
            (),
            ((check(_BASED.result(0)), commit_if_needed(_BASED.result(0))), (commit(newer.result(0)),)),
            frozenset(
                {"stale | applied completes", "run, stale | applied completes", "run, applied | applied completes"}
            ),
        ),
        Scenario(
            "a task checked and committed, and a quorum filled between",
            (),
            ((check(quorum.result(0)), commit_if_needed(quorum.result(0))), (commit(quorum.result(1)),)),
            frozenset(
                {"closed | applied completes", "run, closed | applied completes", "run, applied completes | closed"}
            ),
        ),
        Scenario(
            "a task checked and committed, and a cancel between",
            _HALF,
            ((check(_F.result(1)), commit_if_needed(_F.result(1))), (cancel("f1"),)),
            frozenset({"closed | cancelled", "run, closed | cancelled", "run, applied completes | cancelled"}),
        ),
        Scenario(
            "a fold checked and committed, and a re-run between",
            _COMPLETE,
            ((check(_F.fold_result()), commit_if_needed(_F.fold_result())), (reopen("f1", 0),)),
            frozenset({"stale | run 2", "run, stale | run 2", "run, applied | run 2"}),
        ),
    ]


ALL = (cancels, limits, reruns, pruning, outbox, checks)
