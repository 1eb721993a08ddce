"""`fanfold audit` against a real broker and a real database: every kind of finding made to happen, one at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from confluent_kafka import TopicPartition

from fanfold_schemas import Task, arg_hash, derive_fold_task_id, encode_task, pack_headers, task_headers
from fanfold_sql import CommitBatch, DeadLetter, Finished, OutboxRecord, PartitionCommit
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Held, Operator, Ran, finished, fold_task, make_tasks, publish

pytestmark = pytest.mark.parametrize("topic", [1], indirect=True)


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def audit(operator: Operator, topic: Topic, *arguments: object) -> Ran:
    return operator.run("audit", *operator.client_options(), "--topic", topic, *arguments)


def audited(operator: Operator, topic: Topic, *arguments: object) -> Any:
    """The report, whose exit status says whether there are findings."""
    ran = audit(operator, topic, "--json", *arguments)
    # The last line: a member in this process may have something to say before.
    report = json.loads(ran.out.splitlines()[-1])
    assert ran.status == (0 if report["accounted_for"] else 1), ran.err
    return report


def the_finding(operator: Operator, topic: Topic, *arguments: object) -> Any:
    (finding,) = audited(operator, topic, *arguments)["findings"]
    return finding


def tasks_by_state(report: Any) -> dict[str, int]:
    return {state: count for state, count in report["tasks"].items() if count}


def the_fold(tasks: Sequence[Task]) -> Task:
    return fold_task(tasks[0], derive_fold_task_id(tasks[0].fan_out.id))


def publish_long_ago(topic: Topic, tasks: Sequence[Task]) -> None:
    """As tasks that nobody is publishing any more."""
    producer = topic.broker.producer()
    for task in tasks:
        headers: list[tuple[str, str | bytes | None]] = list(task_headers(task))
        producer.produce(topic.name, encode_task(task), task.task_id, 0, headers=headers, timestamp=1_600_000_000_000)
    producer.flush()


def letter(held: Held, offset: int, task: Task | None, value: bytes, code: str) -> DeadLetter:
    headers = pack_headers([] if task is None else task_headers(task))
    key = None if task is None else task.task_id.encode()
    return DeadLetter(held.claim.progress_id, offset, key, value, headers, code, "why", task)


def park(operator: Operator, held: Held, next_offset: int, letters: list[DeadLetter], results: list[Finished]) -> None:
    """Commit dead letters with the progress past them, and their counting as failed."""
    claim = held.claim
    progress = PartitionCommit(claim.progress_id, claim.epoch, claim.commit_seq, next_offset, ())
    operator.store(lambda s: s.commit(CommitBatch(results, [progress], letters, owner=held.owner)))


def change(operator: Operator, statement: str) -> None:
    """As the owner of the tables, around the procedures; it must have changed something."""
    assert operator.rows(f"{statement} returning 1")


def all_done(operator: Operator, topic: Topic, tasks: Sequence[Task]) -> None:
    """A fan-out with all its results and its fold, at the beginning of the topic, and passed."""
    publish(topic, tasks)
    held = operator.claim(topic)
    publish(topic, [the_fold(tasks)])
    operator.commit([finished(task, topic) for task in tasks])
    held.finish(len(tasks) + 1, results=[finished(the_fold(tasks), topic)])
    change(operator, "delete from fanfold.outbox")


def test_a_topic_whose_tasks_all_have_results_is_accounted_for(operator: Operator, topic: Topic) -> None:
    all_done(operator, topic, make_tasks(3))

    report = audited(operator, topic)

    assert report["findings"] == []
    assert report["whole"] is True
    assert (report["records"], report["fan_outs"], report["repeated"]) == (4, 1, 0)
    assert tasks_by_state(report) == {"done": 3}
    assert report["folds"]["done"] == 1


def test_what_the_group_has_not_passed_is_waiting_and_not_missing(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(5)
    publish(topic, tasks)
    operator.claim(topic).finish(1, ((3, 4),), [finished(tasks[0]), finished(tasks[3])])

    assert tasks_by_state(audited(operator, topic)) == {"done": 2, "waiting": 3}


def test_a_task_that_was_passed_without_a_trace_is_missing(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3)
    publish(topic, tasks)
    operator.claim(topic).finish(3, results=[finished(tasks[0]), finished(tasks[2])])

    ran = audit(operator, topic)
    finding = the_finding(operator, topic)

    assert finding["kind"] == "missing"
    assert (finding["task_id"], finding["index"], finding["at"]) == (tasks[1].task_id, 1, f"{topic}-0@1")
    assert "fanfold replay" in finding["do"]
    assert "--thread t1 --execute" in finding["do"]
    assert ran.status == 1
    assert f"{topic}-0@1" in ran.out
    assert tasks[1].task_id in ran.out


def test_what_is_missing_is_mended_by_the_command_that_the_finding_names(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(2)
    publish(topic, tasks)
    operator.claim(topic).finish(2, results=[finished(tasks[0])])
    command = the_finding(operator, topic)["do"].split("`")[1].split()

    assert operator.run(*command[1:2], *operator.client_options(), *command[2:]).status == 0

    assert tasks_by_state(audited(operator, topic)) == {"done": 1, "waiting": 1}


def test_a_result_that_was_deleted_is_missing_and_its_fan_out_does_not_add_up(operator: Operator, topic: Topic) -> None:
    all_done(operator, topic, make_tasks(3))
    change(operator, "delete from fanfold.result where index = 1")

    assert audited(operator, topic)["findings_by_kind"] == {"missing": 1, "count": 1}


def test_a_task_in_an_island_without_a_result_is_missing(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(4)
    publish(topic, tasks)
    operator.claim(topic).finish(1, ((2, 3),), [finished(tasks[0])])

    assert the_finding(operator, topic)["index"] == 2


def test_what_one_of_two_groups_has_not_passed_waits_unless_the_other_is_named(
    operator: Operator, topic: Topic
) -> None:
    publish(topic, make_tasks(1))
    operator.claim(topic, group="fast").finish(1)
    operator.claim(topic, group="slow")

    assert audited(operator, topic)["findings"] == []
    assert the_finding(operator, topic, "--group", "fast")["kind"] == "missing"


def test_a_task_whose_next_attempt_waits_in_the_outbox_is_waiting(operator: Operator, topic: Topic) -> None:
    (task,) = make_tasks(1)
    publish(topic, [task])
    held = operator.claim(topic)
    again = msgspec.structs.replace(task, attempt=2)
    record = OutboxRecord(
        topic.name, task.task_id.encode(), encode_task(again), pack_headers(task_headers(task)), delay_ms=3_600_000
    )
    progress = PartitionCommit(held.claim.progress_id, held.claim.epoch, held.claim.commit_seq, 1, ())
    operator.store(lambda s: s.commit(CommitBatch([], [progress], outbox=[record], owner=held.owner)))
    assert tasks_by_state(audited(operator, topic)) == {"waiting": 1}

    # Published, it is a record that the group has not passed.
    publish(topic, [again])
    change(operator, "delete from fanfold.outbox")
    report = audited(operator, topic)
    assert (tasks_by_state(report), report["repeated"]) == ({"waiting": 1}, 1)

    held = operator.claim(topic).finish(2)
    assert the_finding(operator, topic)["kind"] == "missing"


def test_a_task_that_is_to_run_again_and_is_nowhere_is_missing(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(2)
    all_done(operator, topic, tasks)
    assert operator.replay("--topic", topic, "--rerun", "--execute").status == 0
    report = audited(operator, topic)
    assert (report["findings"], tasks_by_state(report)) == ([], {"waiting": 2})

    change(operator, "delete from fanfold.outbox where value is not null")

    assert audited(operator, topic)["findings_by_kind"] == {"missing": 2}


def test_refused_tasks_are_accounted_for(operator: Operator, topic: Topic) -> None:
    stale, cancelled = make_tasks(2, base={"b": 1}), make_tasks(2, thread_id="t2")
    newer = make_tasks(1, base={"b": 2}, fold=None)
    publish(topic, [*stale, *cancelled, *newer])
    operator.commit([finished(stale[0]), finished(cancelled[0])])
    operator.store(lambda s: s.cancel_fan_out(cancelled[0].fan_out.id))
    operator.claim(topic).finish(5, results=[finished(newer[0])])

    report = audited(operator, topic)

    assert report["findings"] == []
    assert tasks_by_state(report) == {"done": 3, "refused": 2}


def test_what_a_quorum_leaves_out_is_refused(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3, fold=None)
    fan_out = msgspec.structs.replace(tasks[0].fan_out, quorum=2)
    tasks = [msgspec.structs.replace(task, fan_out=fan_out) for task in tasks]
    publish(topic, tasks)
    operator.claim(topic).finish(3, results=[finished(task, topic) for task in tasks])

    report = audited(operator, topic)

    assert (report["findings"], tasks_by_state(report)) == ([], {"done": 2, "refused": 1})


def test_a_failed_task_needs_a_dead_letter_that_says_why(operator: Operator, topic: Topic) -> None:
    (task,) = make_tasks(1, fold=None)
    publish(topic, [task])
    held = operator.claim(topic)
    failed = Finished(task, None, arg_hash(task), topic.name)
    park(operator, held, 1, [letter(held, 0, task, encode_task(task), "E_HANDLER")], [failed])
    report = audited(operator, topic)
    assert (report["findings"], tasks_by_state(report)) == ([], {"failed": 1})

    change(operator, "delete from fanfold.dead_letter")

    assert the_finding(operator, topic)["kind"] == "unexplained"
    change(operator, "update fanfold.result set committed_at = now() - interval '3 days'")
    assert audited(operator, topic, "--prune-older-than", "2d")["findings"] == []


def test_a_record_that_cannot_be_decoded_needs_a_dead_letter_of_the_same_bytes(
    operator: Operator, topic: Topic
) -> None:
    topic.send([b"\xc1 no task"], partition=0)
    assert audited(operator, topic)["undecodable"]["waiting"] == 1
    held = operator.claim(topic)
    park(operator, held, 1, [letter(held, 0, None, b"\xc1 no task", "E_FRAME")], [])
    report = audited(operator, topic)
    assert (report["findings"], report["undecodable"]["dead"]) == ([], 1)

    change(operator, "update fanfold.dead_letter set value = 'something else'")
    assert the_finding(operator, topic)["kind"] == "altered"
    change(operator, "delete from fanfold.dead_letter")
    finding = the_finding(operator, topic)
    assert (finding["kind"], finding["at"], finding["task_id"]) == ("undecodable", f"{topic}-0@0", None)


def test_a_contradicting_record_needs_a_dead_letter(operator: Operator, topic: Topic) -> None:
    (task,) = make_tasks(1, fold=None)
    other = msgspec.structs.replace(task, arg={"n": "another"})
    publish(topic, [task, other])
    held = operator.claim(topic)
    park(operator, held, 2, [letter(held, 1, other, encode_task(other), "E_CONFLICT")], [finished(task)])
    report = audited(operator, topic)
    assert (report["findings"], report["repeated"], tasks_by_state(report)) == ([], 1, {"done": 1})

    change(operator, "delete from fanfold.dead_letter")

    finding = the_finding(operator, topic)
    assert (finding["kind"], finding["at"]) == ("conflicting", f"{topic}-0@1")


@pytest.mark.parametrize(
    "contradiction",
    [
        {"task_id": "another-task-for-the-same-index"},
        {"base": {"b": 7}},
    ],
)
def test_another_task_for_the_same_place_or_another_story_about_the_fan_out_is_a_conflict(
    operator: Operator, topic: Topic, contradiction: dict[str, Any]
) -> None:
    tasks = make_tasks(2, fold=None)
    other = msgspec.structs.replace(tasks[1], **contradiction)
    publish(topic, [*tasks[: 1 if "base" in contradiction else 2], other])
    results = [finished(task) for task in (tasks[:1] if "base" in contradiction else tasks)]
    operator.claim(topic).finish(len(results) + 1, results=results)

    assert the_finding(operator, topic)["kind"] == "conflicting"


def test_a_changed_arg_hash_is_a_conflict(operator: Operator, topic: Topic) -> None:
    all_done(operator, topic, make_tasks(2))
    change(operator, "update fanfold.result set arg_hash = arg_hash + 1 where index = 0")

    assert the_finding(operator, topic)["kind"] == "conflicting"


def test_a_result_without_a_task_in_the_log_is_extra(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3, fold=None)
    publish_long_ago(topic, tasks[:2])
    operator.claim(topic).finish(2, results=[finished(task, topic) for task in tasks])

    finding = the_finding(operator, topic)

    assert finding["kind"] == "extra"
    assert "indexes 2" in finding["what"]


def test_a_fan_out_of_the_topic_with_no_task_in_the_log_is_extra(operator: Operator, topic: Topic) -> None:
    published, elsewhere = make_tasks(1, fold=None), make_tasks(2, fold=None, thread_id="t2")
    publish(topic, published)
    operator.claim(topic).finish(1, results=[finished(task, topic) for task in (*published, *elsewhere)])

    finding = the_finding(operator, topic)

    assert (finding["kind"], finding["fan_out_id"]) == ("extra", elsewhere[0].fan_out.id)
    assert audited(operator, topic, "--thread", "t1")["findings"] == []


def test_results_that_came_without_kafka_are_not_extra(operator: Operator, topic: Topic) -> None:
    operator.commit([finished(task) for task in make_tasks(2, fold=None)])
    assert audited(operator, topic)["findings"] == []


def test_what_retention_took_is_a_note_and_no_finding(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3, fold=None)
    publish(topic, tasks)
    operator.claim(topic).finish(3, results=[finished(task, topic) for task in tasks])
    admin = topic.broker.admin()
    for future in admin.delete_records([TopicPartition(topic.name, 0, 2)]).values():
        future.result(15)

    report = audited(operator, topic)

    assert (report["findings"], report["whole"], tasks_by_state(report)) == ([], False, {"done": 1})
    assert "begins at 2" in report["notes"][0]


def test_a_fan_out_that_was_published_in_part_is_found_by_its_indexes(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(10)
    publish_long_ago(topic, [task for task in tasks if task.index not in (3, 7, 8, 9)])

    finding = the_finding(operator, topic)

    assert finding["kind"] == "unpublished"
    assert "indexes 3, 7..9 of 10" in finding["what"]
    assert audited(operator, topic, "--from-offset", 1)["findings"] == []


def test_a_fan_out_that_may_still_be_on_its_way_is_not_taken_for_one_published_in_part(
    operator: Operator, topic: Topic
) -> None:
    publish(topic, make_tasks(3)[:2])
    young = audited(operator, topic)
    tasks = make_tasks(3, thread_id="t2")
    publish_long_ago(topic, tasks[:2])
    record = OutboxRecord(topic.name, b"any", encode_task(tasks[2]), pack_headers(task_headers(tasks[2])))
    operator.store(lambda s: s.commit(CommitBatch([], outbox=[record])))

    assert young["findings"] == audited(operator, topic)["findings"] == []


def test_counts_and_folds_that_cannot_be_are_found(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3)
    all_done(operator, topic, tasks)
    fan_out_id = tasks[0].fan_out.id

    def found_after(statement: str) -> Any:
        change(operator, statement)
        return audited(operator, topic)["findings_by_kind"]

    assert found_after("update fanfold.fan_out set remaining = 1") == {"count": 2}
    assert found_after("update fanfold.fan_out set remaining = 0, completed_at = null") == {"count": 1, "fold": 1}
    assert found_after("update fanfold.fan_out set completed_at = now(), failed = 1") == {"count": 1}
    assert found_after("update fanfold.fan_out set failed = 0, size = 2") == {"count": 1, "extra": 1}
    change(operator, "update fanfold.fan_out set size = 3")
    queue = f"insert into fanfold.outbox (topic, fan_out_id, run) values ('{topic}', '{fan_out_id}', 1)"
    assert found_after(queue) == {}
    assert found_after(queue) == {"fold": 1}


def test_a_complete_fan_out_whose_fold_is_nowhere_is_found(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(2)
    publish(topic, tasks)
    held = operator.claim(topic)
    operator.commit([finished(task, topic) for task in tasks])
    held.finish(2)
    assert audited(operator, topic)["findings"] == []

    change(operator, "delete from fanfold.outbox")
    finding = the_finding(operator, topic)
    assert (finding["kind"], finding["index"], finding["at"]) == ("missing", -1, None)

    publish(topic, [the_fold(tasks)])
    report = audited(operator, topic)
    assert (report["findings"], report["folds"]["waiting"]) == ([], 1)
    operator.claim(topic).finish(3)
    assert the_finding(operator, topic)["at"] == f"{topic}-0@2"


def test_aborted_transactions_and_repetitions_are_normal(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3, fold=None)
    producer = topic.broker.producer(transactional_id=f"aborted-{time.time_ns()}")
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(topic.name, b"never happened", partition=0)
    producer.flush()
    producer.abort_transaction(15)
    publish(topic, tasks, transactional_id=f"committed-{time.time_ns()}")
    publish(topic, tasks)
    operator.claim(topic).finish(9, results=[finished(task, topic) for task in tasks])

    report = audited(operator, topic)

    assert (report["findings"], tasks_by_state(report), report["repeated"]) == ([], {"done": 3}, 3)


def test_fan_outs_that_were_pruned_are_no_finding_if_it_is_said_when(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(2, fold=None)
    publish_long_ago(topic, tasks)
    operator.claim(topic).finish(2, results=[finished(task, topic) for task in tasks])
    operator.store(lambda s: s.prune(datetime.now(UTC)))

    assert audited(operator, topic)["findings_by_kind"] == {"missing": 2}
    assert tasks_by_state(audited(operator, topic, "--prune-older-than", "30d")) == {"pruned": 2}


def test_a_range_a_thread_and_a_fan_out_are_audited_by_themselves(operator: Operator, topic: Topic) -> None:
    ours, others = make_tasks(2, fold=None), make_tasks(2, fold=None, thread_id="t2")
    publish(topic, [*ours, *others])
    operator.claim(topic).finish(4, results=[finished(ours[0], topic)])

    def missing(*arguments: object) -> list[str]:
        return [finding["task_id"] for finding in audited(operator, topic, *arguments)["findings"]]

    assert missing() == [ours[1].task_id, *(task.task_id for task in others)]
    assert missing("--thread", "t1") == missing("--fan-out", ours[0].fan_out.id) == [ours[1].task_id]
    assert missing("--from-offset", 1, "--to-offset", 3) == [ours[1].task_id, others[0].task_id]
    assert missing("--by-duration", "PT1H") == missing()
    assert missing("--to-datetime", "2020-01-01") == []
    assert len(missing("--limit", 1)) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from-offset", "1", "--by-duration", "PT1H"], "contradict"),
        (["--to-offset", "1", "--to-datetime", "2030-01-01"], "contradict"),
        (["--thread", "no such/id"], "id"),
        (["--partitions", "5-1"], "range"),
        (["--prune-older-than", "long ago"], "age"),
    ],
)
def test_a_contradictory_command_line_is_refused_with_status_2(
    operator: Operator, topic: Topic, arguments: list[str], complaint: str
) -> None:
    ran = audit(operator, topic, *arguments)
    assert (ran.status, complaint in ran.err) == (2, True)
