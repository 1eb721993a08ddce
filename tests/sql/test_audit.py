"""What an audit reads: each answer as the tables have it, and not a byte of a payload."""

from __future__ import annotations

import hashlib
from typing import Any

from fanfold_schemas import Task
from fanfold_sql import DeadLetter, OutboxRecord
from fanfold_sql.audit import (
    AUDIT_FAN_OUTS,
    AUDIT_OUTBOX,
    AUDIT_TASKS,
    LIST_TOPIC_FAN_OUTS,
    AuditedFanOut,
    AuditedTask,
    Place,
    audited_fan_out,
    audited_task,
    task_parameters,
)
from tests.sql.support import CLUSTER, TOPIC, TOPIC_ID, FanOutSpec, Held, Tables, Worker

F = FanOutSpec()


def parked(held: Held, offset: int, code: str, task: Task | None = None) -> DeadLetter:
    return DeadLetter(held.progress_id, offset, None, b"bytes", b"headers", code, "why", task)


def queued(text: bytes) -> OutboxRecord:
    return OutboxRecord(TOPIC, b"k", b".." + text + b"..", b"headers")


def audit_tasks(worker: Worker, *places: Place, groups: tuple[str, ...] = ("g",)) -> list[AuditedTask]:
    parameters = task_parameters(CLUSTER, TOPIC_ID, groups, places)
    return [audited_task(row) for row in worker.connection.execute(AUDIT_TASKS, parameters, binary=True).fetchall()]


def audit_fan_out(worker: Worker, fan_out_id: str = "f1") -> AuditedFanOut:
    (row,) = worker.connection.execute(AUDIT_FAN_OUTS, ([fan_out_id],)).fetchall()
    return audited_fan_out(row)


def in_outbox(worker: Worker, *asked: tuple[bytes | None, str], topic: str = TOPIC) -> Any:
    return worker.one(AUDIT_OUTBOX, (topic, [key for key, _ in asked], [text for _, text in asked]))[0]


def test_a_record_is_told_by_place_task_fan_out_index_and_arg(worker: Worker) -> None:
    worker.commit([F.result(0), F.failure(1)])
    tasks = [F.task(0), F.task(0), F.task(2, task_id=F.task(0).task_id), F.task(1), F.task(2), F.task(1, task_id="x")]

    found = audit_tasks(worker, *(Place(0, n, task, 8 if n == 1 else 7) for n, task in enumerate(tasks)))

    assert [(f.status, f.run, f.matches) for f in found[:5]] == [
        ("done", 1, True),
        ("done", 1, False),
        ("done", 1, False),
        ("failed", 1, True),
        (None, None, False),
    ]
    assert [f.holder for f in found] == [None, None, None, None, None, F.task(1).task_id]


def test_answers_come_in_the_order_of_the_questions(worker: Worker) -> None:
    worker.commit(F.but(size=50).results())
    order = [(n * 7) % 50 for n in range(50)]
    places = [Place(0, n, F.but(size=50).task(n), 7 if n % 2 else 0) for n in order]
    assert [f.matches for f in audit_tasks(worker, *places)] == [n % 2 == 1 for n in order]


def test_a_letter_is_found_by_group_and_place_and_told_by_its_hashes(worker: Worker) -> None:
    held = worker.claim()
    worker.commit(partitions=[held.at(4)], dead_letters=[parked(held, 3, "E_FRAME")])

    (here,) = audit_tasks(worker, Place(0, 3, None, 0))
    (elsewhere,) = audit_tasks(worker, Place(0, 2, None, 0))
    (of_others,) = audit_tasks(worker, Place(0, 3, None, 0), groups=("other",))

    assert here.letter is not None
    assert here.letter == (None, hashlib.sha256(b"bytes").digest(), hashlib.sha256(b"headers").digest())
    assert elsewhere.letter is of_others.letter is None


def test_a_failure_is_explained_by_a_letter_of_its_task_but_not_by_one_for_a_conflict(worker: Worker) -> None:
    held = worker.claim()
    letters = [
        parked(held, 0, "E_HANDLER", F.task(0)),
        parked(held, 1, "E_CONFLICT", F.task(1)),
    ]
    worker.commit([F.failure(0), F.failure(1)], partitions=[held.at(2)], dead_letters=letters)

    found = audit_tasks(worker, Place(0, 8, F.task(0), 7), Place(0, 9, F.task(1), 7))

    assert [f.explained for f in found] == [True, False]


def test_what_waits_in_the_outbox_is_found_by_key_and_text(worker: Worker) -> None:
    worker.commit(outbox=[queued(b"task-1"), queued(b"task-2")])

    asked: list[tuple[bytes | None, str]] = [(b"k", "task-1"), (b"k", "task-3"), (b"other", "task-1"), (None, "task-2")]

    assert in_outbox(worker, *asked) == [True, False, False, True]
    assert in_outbox(worker, *asked, topic="another") == [False] * 4
    assert in_outbox(worker) == []


def test_a_fan_out_is_counted_through_by_status_and_index(worker: Worker) -> None:
    wide = F.but(size=6, quorum=None)
    worker.commit([wide.result(0), wide.result(1), wide.failure(2), wide.result(5)])
    worker.reopen("f1", wide.task(5).task_id)

    found = audit_fan_out(worker)

    assert (found.done, found.failed_results, found.pending, found.remaining, found.failed) == (2, 1, 1, 3, 1)
    assert found.indexes == ((0, 3), (5, 6))
    assert (found.complete, found.ended_by, found.misplaced, found.fold_run) == (False, None, 0, None)


def test_a_complete_fan_out_has_its_fold_queued_and_then_a_run_of_it(worker: Worker, tables: Tables) -> None:
    worker.commit(F.results())
    assert (audit_fan_out(worker).complete, audit_fan_out(worker).folds_queued) == (True, 1)
    worker.commit([F.fold_result()])
    assert audit_fan_out(worker).fold_run == 1


def test_why_a_fan_out_takes_no_more_is_said(worker: Worker) -> None:
    old = F.but(id="old", base=(("b", 1),))
    worker.commit([old.result(0)])
    worker.commit([F.but(id="new", base=(("b", 2),)).result(0)])
    worker.commit([F.but(id="cut", thread_id="t2").result(0)])
    worker.cancel("cut")

    assert [audit_fan_out(worker, name).ended_by for name in ("old", "new", "cut")] == ["stale", None, "caller"]


def test_results_out_of_place_are_counted(worker: Worker, tables: Tables) -> None:
    worker.commit(F.results())
    tables.rows("update fanfold.fan_out set size = 2, remaining = 0 returning 1")
    assert audit_fan_out(worker).misplaced == 1
    tables.rows("update fanfold.fan_out set size = 3 returning 1")


def test_the_fan_outs_of_a_topic_are_listed_by_pages(worker: Worker) -> None:
    for name, thread_id, topic in (("a", "t1", TOPIC), ("b", "t2", TOPIC), ("c", "t1", TOPIC), ("d", "t1", None)):
        worker.commit([F.but(id=name, thread_id=thread_id, topic=topic).result(0)])

    def listed(thread_id: str | None, after: str, limit: int) -> list[str]:
        rows = worker.connection.execute(LIST_TOPIC_FAN_OUTS, (TOPIC, thread_id, after, limit)).fetchall()
        return [row[0] for row in rows]

    assert listed(None, "", 2) == ["a", "b"]
    assert listed(None, "b", 2) == ["c"]
    assert listed("t1", "", 9) == ["a", "c"]
