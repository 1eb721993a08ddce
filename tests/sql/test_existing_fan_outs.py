"""Which fan-outs there are: what prune asks before it deletes objects of the claim store."""

from __future__ import annotations

import pytest

from tests.sql.support import FanOutSpec, Worker


def existing(worker: Worker, fan_out_ids: list[str]) -> set[str]:
    rows = worker.connection.execute("select fanfold.existing_fan_outs(%s::text[])", (fan_out_ids,)).fetchall()
    return set(rows[0][0])


@pytest.fixture
def known(worker: Worker) -> Worker:
    for name in ("f1", "f2"):
        worker.commit([FanOutSpec(id=name).result(0)])
    return worker


def test_those_that_have_a_result_are_there_and_others_are_not(known: Worker) -> None:
    assert existing(known, ["f1", "nobody", "f2", "F1", "f"]) == {"f1", "f2"}


def test_the_same_one_asked_for_twice_is_no_trouble(known: Worker) -> None:
    assert existing(known, ["f1"] * 3) == {"f1"}


def test_nothing_asked_for_is_nothing_found(known: Worker) -> None:
    assert existing(known, []) == set()
    assert existing(known, ["nobody"]) == set()


def test_a_cancelled_one_is_still_there(known: Worker) -> None:
    known.connection.execute("select fanfold.cancel_fan_out('f1', 't1')")
    assert existing(known, ["f1"]) == {"f1"}
