"""Commits that meet claims, releases, renewals and resets of their partitions."""

from __future__ import annotations

from fanfold_sql import DeadLetter
from tests.property.interleave.calls import (
    ALICE,
    BOB,
    at,
    claim,
    commit,
    commit_after_claim,
    commit_sql,
    held,
    release,
    renew,
    reset,
)
from tests.property.interleave.scenario import Scenario
from tests.sql.support import FanOutSpec

_F = FanOutSpec(size=2)
_LETTER = DeadLetter(1, 4, b"k", b"bad", b"\x90", "E_FRAME", "not msgpack")


def zombies() -> list[Scenario]:
    zombie = commit(_F.result(0), partitions=[at(1, 5)])
    return [
        Scenario(
            "a commit against a claim of its partition, and the new holder's own commit",
            (held(1),),
            ((zombie,), (claim(1, BOB), commit_after_claim(_F.result(0), 1, 6, BOB))),
            frozenset(
                {
                    "applied | epoch 2 from 5, duplicate",
                    "fenced | epoch 2 from None, applied",
                }
            ),
        ),
        Scenario(
            "a fold's commit against a claim of its partition, and the new holder's fold",
            (commit_sql(_F.results()), held(1)),
            (
                (commit(_F.fold_result(), partitions=[at(1, 5)]),),
                (claim(1, BOB), commit_after_claim(_F.fold_result(), 1, 6, BOB)),
            ),
            frozenset(
                {
                    "applied | epoch 2 from 5, duplicate",
                    "fenced | epoch 2 from None, applied",
                }
            ),
        ),
        Scenario(
            "a commit against two claims",
            (held(1),),
            ((zombie,), (claim(1, BOB),), (claim(1, ALICE),)),
            frozenset(
                {
                    "applied | epoch 2 from 5 | epoch 3 from 5",
                    "applied | epoch 3 from 5 | epoch 2 from 5",
                    "fenced | epoch 2 from None | epoch 3 from None",
                    "fenced | epoch 3 from None | epoch 2 from None",
                }
            ),
        ),
        Scenario(
            "a commit under a number that a database which went back gave out again",
            (held(1, BOB),),
            ((zombie,), (commit(_F.result(1), partitions=[at(1, 3)], owner=BOB),)),
            frozenset({"fenced | applied"}),
        ),
        Scenario(
            "a commit from before the database went back, against the claim that follows",
            (held(1),),
            ((commit(_F.result(0), partitions=[at(1, 9, epoch=2)]),), (claim(1, BOB),)),
            frozenset({"rewound | epoch 2 from None", "fenced | epoch 2 from None"}),
        ),
        Scenario(
            "a commit that knows of later commits than the database, against a claim",
            (held(1),),
            ((commit(_F.result(0), partitions=[at(1, 9, commit_seq=4)]),), (claim(1, BOB),)),
            frozenset({"rewound | epoch 2 from None", "fenced | epoch 2 from None"}),
        ),
        Scenario(
            "a commit and a renewal of what was claimed on an earlier timeline",
            (held(1), "update fanfold.partition_progress set timeline = 'earlier'"),
            ((commit(_F.result(0), partitions=[at(1, 9)]),), (renew(ALICE, 1),)),
            frozenset({"rewound | lost 1"}),
        ),
        Scenario(
            "the first two claims of a partition",
            (),
            ((claim(1, ALICE),), (claim(1, BOB),)),
            frozenset({"epoch 1 from None | epoch 2 from None", "epoch 2 from None | epoch 1 from None"}),
        ),
    ]


def hand_over() -> list[Scenario]:
    return [
        Scenario(
            "a commit against a release, and the claim that follows it",
            (held(1),),
            (
                (commit(_F.result(0), partitions=[at(1, 5)]),),
                (release(ALICE, 1),),
                (claim(1, BOB),),
            ),
            frozenset(
                {
                    "applied | released | epoch 2 from 5",
                    "fenced | released | epoch 2 from None",
                }
            ),
        ),
        Scenario(
            "the last two results of a fan-out, and a claim of one's partition",
            (held(1), held(2)),
            (
                (commit(_F.result(0), partitions=[at(1, 5)]),),
                (commit(_F.result(1), partitions=[at(2, 5)]),),
                (claim(1, BOB),),
            ),
            frozenset(
                {
                    "applied | applied completes | epoch 2 from 5",
                    "applied completes | applied | epoch 2 from 5",
                    "fenced | applied | epoch 2 from None",
                }
            ),
        ),
        Scenario(
            "a commit against a renewal of its partition and a claim",
            (held(1),),
            (
                (commit(_F.result(0), partitions=[at(1, 5)]),),
                (renew(ALICE, 1),),
                (claim(1, BOB),),
            ),
            frozenset(
                {
                    "applied | lost 0 | epoch 2 from 5",
                    "applied | lost 1 | epoch 2 from 5",
                    "fenced | lost 0 | epoch 2 from None",
                    "fenced | lost 1 | epoch 2 from None",
                }
            ),
        ),
        Scenario(
            "a commit of two partitions and a renewal of both in the opposite order, behind one that holds a partition",
            (held(1), held(2)),
            (
                (commit(partitions=[at(1, 5)]),),
                (commit(_F.result(0), partitions=[at(1, 5), at(2, 5)]),),
                (renew(ALICE, 2, 1),),
            ),
            frozenset({"applied | applied | lost 0"}),
        ),
        Scenario(
            "a commit of two partitions and a release of both in the opposite order, behind one that holds a partition",
            (held(1), held(2)),
            (
                (commit(partitions=[at(1, 5)]),),
                (commit(_F.result(0), partitions=[at(1, 5), at(2, 5)]),),
                (release(ALICE, 2, 1),),
            ),
            frozenset(
                {
                    "applied | applied | released",
                    "applied | fenced | released",
                    "fenced | applied | released",
                    "fenced | fenced | released",
                }
            ),
        ),
    ]


def resets() -> list[Scenario]:
    return [
        Scenario(
            "a commit against a reset of its partition",
            (held(1, next_offset=8),),
            ((commit(_F.result(0), partitions=[at(1, 9)]),), (reset(1, 2),)),
            frozenset({"applied | reset", "fenced | reset"}),
        ),
        Scenario(
            "a commit against a reset of its partition and a claim",
            (held(1, next_offset=8),),
            ((commit(_F.result(0), partitions=[at(1, 9)]),), (reset(1, 2),), (claim(1, BOB),)),
            frozenset(
                {
                    "applied | reset | epoch 3 from 2",
                    "applied | refused | epoch 2 from 9",
                    "fenced | reset | epoch 3 from 2",
                    "fenced | refused | epoch 2 from 8",
                }
            ),
        ),
        Scenario(
            "a reset against a claim, and the new holder's commit",
            (held(1, next_offset=8),),
            ((reset(1, 2),), (claim(1, BOB), commit_after_claim(_F.result(0), 1, 9, BOB))),
            frozenset(
                {
                    "reset | epoch 3 from 2, applied",
                    "refused | epoch 2 from 8, applied",
                }
            ),
        ),
        Scenario(
            "a reset of a partition nobody has seen, against its first claim",
            (),
            ((reset(1, 2, epoch=-1),), (claim(1, BOB),)),
            frozenset({"reset | epoch 2 from 2", "refused | epoch 1 from None"}),
        ),
        Scenario(
            "two commits of one partition never move it back",
            (held(1),),
            ((commit(partitions=[at(1, 5)]),), (commit(partitions=[at(1, 3)]),)),
            frozenset({"applied | applied", "applied | backwards"}),
        ),
    ]


def dead_letters() -> list[Scenario]:
    return [
        Scenario(
            "a record parked by a zombie and by the new holder",
            (held(1, next_offset=4),),
            (
                (commit(partitions=[at(1, 5)], dead_letters=[_LETTER]),),
                (claim(1, BOB), commit(partitions=[at(1, 5, epoch=2)], dead_letters=[_LETTER], owner=BOB)),
            ),
            frozenset(
                {
                    "applied | epoch 2 from 5, applied",
                    "fenced | epoch 2 from 4, applied",
                }
            ),
        ),
        Scenario(
            "a record parked in a commit that conflicts: neither letter nor progress stays",
            (held(1),),
            (
                (commit(_F.result(0, arg_hash=8), partitions=[at(1, 5)], dead_letters=[_LETTER]),),
                (commit(_F.result(0)),),
            ),
            frozenset({"applied | conflict", "conflict | applied"}),
        ),
    ]


ALL = (zombies, hand_over, resets, dead_letters)
