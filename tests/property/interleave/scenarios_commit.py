"""Commits that meet commits: the barrier, redelivery, clocks, quorums, and the order of locks."""

from __future__ import annotations

from fanfold_sql import OutboxRecord
from tests.property.interleave.calls import BOB, at, commit, commit_sql, held
from tests.property.interleave.scenario import Scenario
from tests.sql.support import TOPIC, FanOutSpec

_F = FanOutSpec(size=2)
_G = FanOutSpec(id="f2", size=2, thread_id="t2")
_SMALL = FanOutSpec(size=1)
_T1, _T2 = FanOutSpec(id="f1", size=1), FanOutSpec(id="f2", size=1, thread_id="t2")
_OLD, _NEW = (FanOutSpec(id=f"base-{n}", size=1, base=(("main", n),)) for n in (1, 2))
_TWO_OF_FOUR = FanOutSpec(size=4, quorum=2)
_SEND = OutboxRecord(TOPIC, b"k", b"send", b"\x90", result=0)


def barrier() -> list[Scenario]:
    return [
        Scenario(
            "the last two results of a fan-out, from two partitions",
            (held(1), held(2, BOB)),
            (
                (commit(_F.result(0), partitions=[at(1, 5)]),),
                (commit(_F.result(1), partitions=[at(2, 7)], owner=BOB),),
            ),
            frozenset({"applied | applied completes", "applied completes | applied"}),
        ),
        Scenario(
            "the last three results of a fan-out",
            (),
            tuple((commit(FanOutSpec(size=3).result(index)),) for index in range(3)),
            frozenset(
                {
                    "applied | applied | applied completes",
                    "applied | applied completes | applied",
                    "applied completes | applied | applied",
                }
            ),
        ),
        Scenario(
            "the last two results, and a client that dies before its commit",
            (),
            ((commit(_F.result(0), ends="rollback"),), (commit(_F.result(0)),), (commit(_F.result(1)),)),
            frozenset({"gone | applied | applied completes", "gone | applied completes | applied"}),
        ),
        Scenario(
            "two batches, each with half of two fan-outs",
            (),
            ((commit(_F.result(0), _G.result(0)),), (commit(_G.result(1), _F.result(1)),)),
            frozenset({"applied | applied completes", "applied completes | applied"}),
        ),
        Scenario(
            "a failure and a success complete a fan-out",
            (),
            ((commit(_F.failure(0)),), (commit(_F.result(1)),)),
            frozenset({"applied | applied completes", "applied completes | applied"}),
        ),
    ]


def redelivery() -> list[Scenario]:
    other_arg = commit(_F.result(0, arg_hash=8))
    return [
        Scenario(
            "one task delivered twice, from two partitions",
            (held(1), held(2, BOB)),
            (
                (commit(_SMALL.result(0), partitions=[at(1, 5)]),),
                (commit(_SMALL.result(0), partitions=[at(2, 5)], owner=BOB),),
            ),
            frozenset({"applied completes | duplicate", "duplicate | applied completes"}),
        ),
        Scenario(
            "one task delivered twice, and the fan-out's other one",
            (),
            ((commit(_F.result(0)),), (commit(_F.result(0)),), (commit(_F.result(1)),)),
            frozenset(
                {
                    "applied | duplicate | applied completes",
                    "duplicate | applied | applied completes",
                    "applied completes | duplicate | applied",
                    "duplicate | applied completes | applied",
                }
            ),
        ),
        Scenario(
            "a commit whose reply was lost, sent again on another connection while it still runs",
            (held(1),),
            (
                (commit(_F.result(0), partitions=[at(1, 5)]),),
                (commit(_F.result(0), partitions=[at(1, 5)]),),
            ),
            frozenset({"applied | duplicate", "duplicate | applied"}),
        ),
        Scenario(
            "a task that returns a Send, delivered twice: the Send goes out once",
            (),
            ((commit(_F.result(0), outbox=[_SEND]),), (commit(_F.result(0), outbox=[_SEND]),)),
            frozenset({"applied sends | duplicate", "duplicate | applied sends"}),
        ),
        Scenario(
            "one task_id with two arguments: the first one stands",
            (),
            ((commit(_F.result(0)),), (other_arg,)),
            frozenset({"applied | conflict", "conflict | applied"}),
        ),
        Scenario(
            "two runs of one task: the higher stands, whichever comes first",
            (),
            ((commit(_SMALL.result(0)),), (commit(_SMALL.result(0, run=2, payload=b"\x02")),)),
            frozenset({"applied completes | applied", "duplicate | applied completes"}),
        ),
    ]


def clocks() -> list[Scenario]:
    newest = FanOutSpec(id="base-3", size=1, base=(("main", 3),))
    a, b = (FanOutSpec(id=f"branch-{name}", size=1, base=((name, 1),)) for name in "ab")
    return [
        Scenario(
            "a new base against an old one of the same thread",
            (),
            ((commit(_OLD.result(0)),), (commit(_NEW.result(0)),)),
            frozenset({"applied completes | applied completes", "stale | applied completes"}),
        ),
        Scenario(
            "three bases of one thread",
            (),
            ((commit(_OLD.result(0)),), (commit(_NEW.result(0)),), (commit(newest.result(0)),)),
            frozenset(
                {
                    "applied completes | applied completes | applied completes",
                    "stale | applied completes | applied completes",
                    "applied completes | stale | applied completes",
                    "stale | stale | applied completes",
                }
            ),
        ),
        Scenario(
            "two branches of one thread never make each other stale",
            (),
            ((commit(a.result(0)),), (commit(b.result(0)),)),
            frozenset({"applied completes | applied completes"}),
        ),
        Scenario(
            "two siblings of the base a thread stands at",
            (commit_sql([_NEW.but(size=3).result(0)]),),
            ((commit(_NEW.but(size=3).result(1)),), (commit(_NEW.but(size=3).result(2)),)),
            frozenset({"applied | applied completes", "applied completes | applied"}),
        ),
    ]


def quorums() -> list[Scenario]:
    q = _TWO_OF_FOUR
    one_in = (commit_sql([q.result(0)]),)
    return [
        Scenario(
            "the last place of a quorum",
            one_in,
            ((commit(q.result(1)),), (commit(q.result(2)),)),
            frozenset({"applied completes | closed", "closed | applied completes"}),
        ),
        Scenario(
            "the last place of a quorum, and two batches of two",
            one_in,
            ((commit(q.result(1), q.result(2)),), (commit(q.result(3), q.result(2)),)),
            frozenset({"applied+closed completes | closed+closed", "closed+closed | applied+closed completes"}),
        ),
        Scenario(
            "the last place of a quorum, and a failure that takes none",
            one_in,
            ((commit(q.result(1)),), (commit(q.failure(2)),), (commit(q.result(3)),)),
            frozenset(
                {
                    "applied completes | applied | closed",
                    "applied completes | closed | closed",
                    "closed | applied | applied completes",
                    "closed | closed | applied completes",
                }
            ),
        ),
        Scenario(
            "two places of a quorum, three results",
            (),
            ((commit(q.result(0)),), (commit(q.result(1)),), (commit(q.result(2)),)),
            frozenset(
                {
                    "applied | applied completes | closed",
                    "applied completes | applied | closed",
                    "applied | closed | applied completes",
                    "applied completes | closed | applied",
                    "closed | applied | applied completes",
                    "closed | applied completes | applied",
                }
            ),
        ),
    ]


def locks() -> list[Scenario]:
    f2 = _F.but(id="f2")
    return [
        Scenario(
            "batches over two threads in opposite order",
            (),
            ((commit(_T1.result(0), _T2.result(0)),), (commit(_T2.result(0), _T1.result(0)),)),
            frozenset({"applied completes | duplicate+duplicate", "duplicate+duplicate | applied completes"}),
        ),
        Scenario(
            "batches over two threads in opposite order, behind one that holds a thread",
            (),
            (
                (commit(_T1.but(size=3).result(2)),),
                (commit(_T1.but(size=3).result(0), _T2.result(0)),),
                (commit(_T2.result(0), _T1.but(size=3).result(1)),),
            ),
            frozenset(
                {
                    "applied | applied completes | duplicate+applied completes",
                    "applied | applied+duplicate completes | applied completes",
                    "applied completes | applied completes | duplicate+applied",
                    "applied completes | applied+duplicate | applied completes",
                }
            ),
        ),
        Scenario(
            "batches over two partitions in opposite order, behind one that holds a partition",
            (held(1), held(2)),
            (
                (commit(partitions=[at(1, 5)]),),
                (commit(_T1.result(0), partitions=[at(1, 5), at(2, 5)]),),
                (commit(_T2.result(0), partitions=[at(2, 5), at(1, 5)]),),
            ),
            frozenset({"applied | applied completes | applied completes"}),
        ),
        Scenario(
            "a fan-out opened twice at once",
            (),
            ((commit(_F.but(size=3).result(0)),), (commit(_F.but(size=3).result(1)),)),
            frozenset({"applied | applied"}),
        ),
        Scenario(
            "a fan-out opened twice at once, under two threads",
            (),
            ((commit(_F.result(0)),), (commit(_F.but(thread_id="t2").result(1)),)),
            frozenset({"applied | conflict", "conflict | applied"}),
        ),
        Scenario(
            "a fan-out opened under two threads, and the first client dies",
            (),
            ((commit(_F.result(0), ends="rollback"),), (commit(_F.but(thread_id="t2").result(1)),)),
            frozenset({"gone | applied"}),
        ),
        Scenario(
            "two fan-outs opened in opposite order, each under two threads",
            (),
            (
                (commit(_F.result(0), f2.result(0)),),
                (commit(f2.but(thread_id="t2").result(1), _F.but(thread_id="t2").result(1)),),
            ),
            frozenset({"applied | conflict", "conflict | applied"}),
        ),
        Scenario(
            "a caller under REPEATABLE READ is refused",
            (),
            (
                (commit(_F.result(0), isolation="repeatable read"),),
                (commit(_F.result(0)),),
                (commit(_F.result(1)),),
            ),
            frozenset({"isolation | applied | applied completes", "isolation | applied completes | applied"}),
        ),
    ]


ALL = (barrier, redelivery, clocks, quorums, locks)
