"""What redriving a dead letter would do, from the letter and where its task stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from fanfold_consumer.redrive import Action, Why
from fanfold_consumer.redrive.decide import decide
from fanfold_producer.fan_out import WRITTEN_BYTES_MAX
from fanfold_schemas import FOLD_INDEX, FanOut, Task, arg_hash, encode_task
from fanfold_sql import Standing, StoredDeadLetter

FAN_OUT = FanOut("f1", 3, "sum")
TASK = Task("task-1", "t1", FAN_OUT, 1, "work", {"n": 1})
FOLD = Task("fold-1", "t1", FAN_OUT, FOLD_INDEX, "sum")

FAILED = Standing(1, None, None, None, 1, False, 0, "failed", 1, 1, arg_hash(TASK))
FOLD_FAILED = replace(FAILED, dead_letter_id=2, complete=True, index=FOLD_INDEX, arg_hash=arg_hash(FOLD))
NOTHING = Standing(1, None, None, None, None, False, 0, None, None, None, None)


def letter(task: Task | None = TASK, code: str = "E_HANDLER", **changes: Any) -> StoredDeadLetter:
    made = StoredDeadLetter(
        dead_letter_id=1,
        group_id="g",
        cluster_id="c",
        topic="words.v1",
        topic_id="id",
        partition=0,
        offset=7,
        thread_id=None if task is None else task.thread_id,
        fan_out_id=None if task is None else task.fan_out.id,
        task_id=None if task is None else task.task_id,
        code=code,
        error="boom",
        value_bytes=9,
        key=b"k",
        value=b"\xc1" if task is None else encode_task(task),
        headers=b"\x90",
        created_at=datetime(2030, 1, 31, tzinfo=UTC),
        resolved_at=None,
        resolution=None,
    )
    return replace(made, **changes)


def outlook(of: StoredDeadLetter, standing: Standing, *missing: str) -> tuple[Action | None, Why | None, bool]:
    """(what is done, why not, whether that is a failure)."""
    (decision,) = decide([of], {of.dead_letter_id: standing}, missing)
    return decision.outlook.action, decision.outlook.why, decision.outlook.fails


@pytest.mark.parametrize("code", ["E_HANDLER", "E_TIMEOUT", "E_NODE", "E_ARG", "E_CLAIM", "E_RESULT", "E_COMMIT"])
def test_a_task_that_counted_as_failed_runs_again(code: str) -> None:
    assert outlook(letter(code=code), FAILED) == (Action.RERUN, None, False)


@pytest.mark.parametrize(
    ("changes", "why", "fails"),
    [
        ({"resolution": "redriven"}, Why.REDRIVEN, False),
        ({"status": "done"}, Why.DONE, False),
        ({"status": "pending"}, Why.RUNNING, False),
        ({"newer_id": 9}, Why.SUPERSEDED, False),
        ({"resolution": "dropped"}, Why.DROPPED, True),
        ({"ended_by": "stale"}, Why.STALE, True),
        ({"ended_by": "caller"}, Why.CANCELLED, True),
        ({"ended_by": "deadline"}, Why.EXPIRED, True),
        ({"status": None}, Why.CLOSED, True),
        ({"status": None, "fan_out_run": None}, Why.PRUNED, True),
        ({"arg_hash": 5}, Why.CONFLICT, True),
        ({"index": 2}, Why.CONFLICT, True),
    ],
    ids=lambda value: str(value),
)
def test_a_task_is_left_alone_and_it_is_a_failure_if_it_still_needs_something(
    changes: dict[str, Any], why: Why, fails: bool
) -> None:
    assert outlook(letter(), replace(FAILED, **changes)) == (None, why, fails)


def test_what_does_not_decode_and_what_conflicts_is_sent_as_it_was() -> None:
    assert outlook(letter(None, "E_FRAME"), NOTHING) == (Action.RESEND, None, False)
    assert outlook(letter(code="E_CONFLICT"), replace(FAILED, status="done", arg_hash=5))[0] is Action.RESEND
    assert outlook(letter(task_id=None, code="E_SCHEMA"), NOTHING)[0] is Action.RESEND, "it decodes by now"


def test_a_conflict_of_a_fan_out_that_takes_nothing_more_is_left_alone() -> None:
    assert outlook(letter(code="E_CONFLICT"), replace(FAILED, ended_by="caller"))[1] is Why.CANCELLED


def test_what_postgres_refused_altogether_is_sent_as_it_was_unless_its_fan_out_is_complete() -> None:
    assert outlook(letter(code="E_COMMIT"), NOTHING)[0] is Action.RESEND
    assert outlook(letter(code="E_COMMIT"), replace(NOTHING, fan_out_run=1, complete=True))[1] is Why.CLOSED


def test_a_fold_that_failed_folds_again_unless_a_newer_one_is_on_its_way() -> None:
    fold = letter(FOLD, dead_letter_id=2)
    assert outlook(fold, FOLD_FAILED)[0] is Action.REFOLD
    assert outlook(fold, replace(FOLD_FAILED, complete=False))[1] is Why.RUNNING
    assert outlook(fold, replace(FOLD_FAILED, fan_out_run=2))[1] is Why.RUNNING


def test_a_fold_follows_by_itself_when_a_task_of_its_fan_out_runs_again() -> None:
    letters = [letter(), letter(FOLD, dead_letter_id=2)]
    decisions = decide(letters, {1: FAILED, 2: FOLD_FAILED})
    assert [(d.outlook.action, d.outlook.why) for d in decisions] == [(Action.RERUN, None), (None, Why.RUNNING)]


def test_what_cannot_be_published_is_left_alone() -> None:
    assert outlook(letter(), FAILED, "words.v1")[1:] == (Why.TOPIC_MISSING, True)
    assert outlook(letter(None, value=None), NOTHING)[1:] == (Why.NO_VALUE, True)
    assert outlook(letter(None, value=b"\xc1" * WRITTEN_BYTES_MAX), NOTHING)[1:] == (Why.TOO_LARGE, True)
    assert outlook(letter(None, value=b"\xc1" * (WRITTEN_BYTES_MAX - 2)), NOTHING)[0] is Action.RESEND


def test_that_headers_were_lost_is_said() -> None:
    (decision,) = decide([letter(None, headers=None)], {1: NOTHING})
    assert "but without its headers" in decision.outlook.text


def test_the_tasks_that_a_reopened_fan_out_waits_for_as_well_are_said() -> None:
    (decision,) = decide([letter()], {1: replace(FAILED, refused=4)})
    assert "4 more of its tasks were refused" in decision.outlook.text
    assert "fanfold replay --topic words.v1 --thread t1 --execute" in decision.outlook.text


def test_the_newest_attempt_of_a_record_makes_no_difference() -> None:
    assert outlook(letter(msgspec.structs.replace(TASK, attempt=5)), FAILED)[0] is Action.RERUN
