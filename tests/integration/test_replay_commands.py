"""`fanfold replay` against a real broker and a real database, run as a worker."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fanfold_consumer.replay import LogRange, PlannedOffset
from fanfold_consumer.replay.reset import GroupTopic, read_progress, reset_partitions
from fanfold_schemas import decode_task, encode_task, header_text, pack_headers, task_headers, unpack_headers
from fanfold_schemas.headers import RUN
from fanfold_sql import Store
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator, finished, fold_task, make_tasks, publish

one_partition = pytest.mark.parametrize("topic", [1], indirect=True)


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def _progress(operator: Operator) -> list[tuple[Any, ...]]:
    return operator.rows(
        "select partition, next_offset, islands::text, epoch, owner is null from fanfold.partition_progress order by 1"
    )


def _numbers(topic: Topic, count: int, partition: int = 0) -> None:
    topic.send([b"%d" % n for n in range(count)], partition=partition)


@one_partition
def test_a_dry_run_says_where_the_group_would_go_on_and_changes_nothing(operator: Operator, topic: Topic) -> None:
    _numbers(topic, 10)
    operator.claim(topic).finish(7, ((8, 9),)).release()
    before = _progress(operator)

    ran = operator.replay("--group", "g", "--topic", topic, "--to-earliest")

    assert ran.status == 0
    head, row = (line.split() for line in ran.out.splitlines())
    assert head == ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET", "NOTE"]
    assert row == ["g", topic.name, "0", "7", "0"]
    assert "--execute" in ran.err
    assert _progress(operator) == before


@one_partition
def test_executing_a_replay_moves_the_group_under_a_new_epoch_without_an_owner(
    operator: Operator, topic: Topic
) -> None:
    _numbers(topic, 10)
    operator.claim(topic).finish(7, ((8, 9),)).release()

    ran = operator.replay("--group", "g", "--topic", topic, "--to-earliest", "--execute", "--json")

    assert ran.status == 0
    (partition,) = ran.json["partitions"]
    assert ran.json["executed"] is True
    assert (partition["current_offset"], partition["new_offset"], partition["outcome"]) == (7, 0, "reset")
    assert _progress(operator) == [(0, 0, "{}", 2, True)]


@one_partition
def test_a_replay_to_where_the_group_stands_already_leaves_its_epoch_alone(operator: Operator, topic: Topic) -> None:
    _numbers(topic, 10)
    operator.claim(topic).finish(7).release()

    ran = operator.replay("--group", "g", "--topic", topic, "--to-offset", 7, "--execute", "--json")

    assert ran.json["partitions"][0]["outcome"] == "unchanged"
    assert _progress(operator) == [(0, 7, "{}", 1, True)]


@one_partition
def test_a_replay_is_refused_while_a_member_lives_and_says_who_it_is(operator: Operator, topic: Topic) -> None:
    _numbers(topic, 10)
    held = operator.claim(topic).finish(7)

    ran = operator.replay("--group", "g", "--topic", topic, "--to-earliest", "--execute")

    assert ran.status == 1
    assert str(held.owner) in ran.err
    assert "--fence" in ran.err
    assert _progress(operator) == [(0, 7, "{}", 1, False)]


@one_partition
def test_a_dry_run_names_the_live_members_that_would_be_in_the_way(operator: Operator, topic: Topic) -> None:
    _numbers(topic, 10)
    held = operator.claim(topic).finish(7)

    ran = operator.replay("--group", "g", "--topic", topic, "--to-earliest", "--json")

    assert ran.status == 0
    assert [entry["owner"] for entry in ran.json["live"]] == [str(held.owner)]


@one_partition
def test_fencing_takes_the_partition_from_a_live_member_which_then_learns_that_it_is_vacant(
    operator: Operator, topic: Topic
) -> None:
    _numbers(topic, 10)
    held = operator.claim(topic).finish(7)

    ran = operator.replay("--group", "g", "--topic", topic, "--to-earliest", "--execute", "--fence")

    assert ran.status == 0
    lost = operator.store(
        lambda store: store.renew_partitions(held.owner, [(held.claim.progress_id, held.claim.epoch)])
    )
    assert lost == {held.claim.progress_id: True}
    assert operator.claim(topic, owner=held.owner).claim.next_offset == 0


@one_partition
def test_waiting_for_members_ends_when_they_are_gone(operator: Operator, topic: Topic) -> None:
    _numbers(topic, 10)
    held = operator.claim(topic).finish(7)
    operator.rows(
        "update fanfold.partition_progress set seen_at = now() - interval '9.5 seconds' returning progress_id"
    )

    ran = operator.replay("--group", "g", "--topic", topic, "--to-earliest", "--execute", "--wait", 20)

    assert ran.status == 0, ran.err
    assert held.owner is not None
    assert _progress(operator) == [(0, 0, "{}", 2, True)]


@one_partition
def test_a_partition_that_was_claimed_after_we_looked_is_left_alone_and_reported(
    operator: Operator, topic: Topic
) -> None:
    _numbers(topic, 10)
    operator.claim(topic).finish(7).release()
    cluster_id, topic_id = operator.rows("select cluster_id, topic_id from fanfold.partition_progress")[0]
    at = GroupTopic("g", cluster_id, topic.name, topic_id)
    states = operator.store(lambda store: read_progress(store, at))
    operator.claim(topic)

    async def reset(store: Store) -> list[str]:
        planned = [PlannedOffset(0, 7, 0, LogRange(0, 10))]
        return [outcome.word for outcome in await reset_partitions(store, at, planned, states)]

    assert operator.store(reset) == ["claimed"]
    assert _progress(operator) == [(0, 7, "{}", 2, False)]


@one_partition
def test_a_group_without_progress_can_be_made_to_begin_elsewhere(operator: Operator, topic: Topic) -> None:
    _numbers(topic, 10)

    ran = operator.replay("--group", "new", "--topic", topic, "--to-latest", "--execute", "--json")

    assert ran.json["partitions"][0]["current_offset"] is None
    assert _progress(operator) == [(0, 10, "{}", 1, True)]


@one_partition
def test_the_end_of_the_log_is_exact_even_where_many_records_came_in_one_batch(
    operator: Operator, topic: Topic
) -> None:
    _numbers(topic, 1000)

    ran = operator.replay("--group", "g", "--topic", topic, "--to-offset", 5000, "--json")

    (partition,) = ran.json["partitions"]
    assert (partition["new_offset"], partition["log_end_offset"]) == (1000, 1000)
    assert "5000" in partition["note"]


def test_only_the_named_partitions_are_replayed(operator: Operator, topic: Topic) -> None:
    for partition in range(4):
        _numbers(topic, 5, partition)
        operator.claim(topic, partition).finish(5).release()

    ran = operator.replay("--group", "g", "--topic", f"{topic}:0,2-3", "--shift-by", -2, "--execute")

    assert ran.status == 0
    assert [row[:2] for row in _progress(operator)] == [(0, 3), (1, 5), (2, 3), (3, 3)]


def test_a_partition_that_the_topic_does_not_have_is_refused(operator: Operator, topic: Topic) -> None:
    ran = operator.replay("--group", "g", "--topic", topic, "--partitions", "0,9", "--to-earliest")
    assert ran.status == 1
    assert "9" in ran.err


def test_an_export_is_a_backup_that_can_be_read_back(operator: Operator, topic: Topic, tmp_path: Path) -> None:
    for partition in range(4):
        _numbers(topic, 5, partition)
        operator.claim(topic, partition).finish(partition + 1).release()
    backup = tmp_path / "offsets.csv"
    backup.write_text(operator.replay("--group", "g", "--topic", topic, "--to-current", "--export").out)
    assert operator.replay("--group", "g", "--topic", topic, "--to-earliest", "--execute").status == 0

    ran = operator.replay("--group", "g", "--topic", topic, "--from-file", backup, "--execute")

    assert ran.status == 0, ran.err
    assert [row[:2] for row in _progress(operator)] == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.needs_real_kafka("the embedded broker looks times up to the batch only, and answers 0 for none")
@one_partition
def test_a_time_finds_the_first_record_at_or_after_it_and_the_end_if_there_is_none(
    operator: Operator, topic: Topic
) -> None:
    producer = topic.broker.producer()
    for n in range(10):
        producer.produce(topic.name, b"x", partition=0, timestamp=1_600_000_000_000 + n * 1000)
    producer.flush()

    found = operator.replay("--group", "g", "--topic", topic, "--to-datetime", "2020-09-13T12:26:44.500", "--json")
    late = operator.replay("--group", "g", "--topic", topic, "--to-datetime", "2040-01-01T00:00Z", "--json")
    recent = operator.replay("--group", "g", "--topic", topic, "--by-duration", "PT1H", "--json")

    assert found.json["partitions"][0]["new_offset"] == 5
    assert late.json["partitions"][0]["new_offset"] == 10
    assert recent.json["partitions"][0]["new_offset"] == 10


@one_partition
def test_progress_of_an_earlier_topic_of_the_same_name_is_not_what_is_replayed(
    operator: Operator, topic: Topic
) -> None:
    _numbers(topic, 10)
    operator.claim(topic).finish(10).release()
    topic.recreate()
    _numbers(topic, 3)

    ran = operator.replay("--group", "g", "--topic", topic, "--to-latest", "--execute", "--json")

    assert ran.json["partitions"][0]["current_offset"] is None
    assert sorted(row[1] for row in _progress(operator)) == [3, 10]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--group", "g"], "say from where"),
        (["--to-earliest"], "--group is missing"),
        (["--group", "g", "--to-earliest", "--to-latest"], "contradict"),
        (["--group", "g", "--to-earliest", "--execute", "--export"], "exclude"),
        (["--group", "g", "--by-duration", "P1M"], "no duration"),
        (["--group", "g", "--to-datetime", "yesterday"], "no date"),
        (["--group", "g", "--to-earliest", "--partitions", "5-1"], "range"),
        (["--rerun", "--shift-by", "-1"], "--group"),
        (["--rerun", "--fence"], "--fence"),
        (["--thread", "no such/id"], "id"),
    ],
)
def test_a_contradictory_command_line_is_refused_with_status_2(
    operator: Operator, arguments: list[str], complaint: str
) -> None:
    ran = operator.replay("--topic", "any", *arguments)
    assert ran.status == 2
    assert complaint in ran.err


def test_a_topic_that_does_not_exist_is_one_paragraph_and_status_1(operator: Operator) -> None:
    ran = operator.replay("--group", "g", "--topic", f"none-{uuid.uuid4().hex[:8]}", "--to-earliest")
    assert ran.status == 1
    assert "none-" in ran.err
    assert "Traceback" not in ran.err


def test_repairing_a_thread_queues_its_records_to_the_byte_and_no_others(operator: Operator, topic: Topic) -> None:
    ours, others = make_tasks(3, thread_id="ours"), make_tasks(3, thread_id="others")
    publish(topic, ours[:2])
    publish(topic, [*others, *ours[1:]], partition=1)
    publish(topic, [fold_task(ours[0])], partition=2)

    dry = operator.replay("--topic", topic, "--thread", "ours", "--json")
    assert (dry.json["tasks"], dry.json["queued"]) == (4, 0)
    assert operator.rows("select count(*) from fanfold.outbox") == [(0,)]
    ran = operator.replay("--topic", topic, "--thread", "ours", "--execute", "--json")

    assert ran.status == 0
    assert {k: ran.json[k] for k in ("mode", "queued", "other_threads", "repeated", "fan_outs")} == {
        "mode": "repair", "queued": 4, "other_threads": 3, "repeated": 1, "fan_outs": 1,
    }  # fmt: skip
    rows = operator.rows("select topic, key, value, headers from fanfold.outbox")
    expected = [
        (topic.name, t.task_id.encode(), encode_task(t), pack_headers(task_headers(t)))
        for t in [*ours, fold_task(ours[0])]
    ]
    assert sorted(rows) == sorted(expected)


@one_partition
def test_a_rerun_reopens_fan_outs_and_queues_their_tasks_under_a_new_run(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3)
    publish(topic, [*tasks, fold_task(tasks[0])])
    topic.send([b"no task"], partition=0)
    operator.commit([finished(task, topic) for task in tasks])

    ran = operator.replay("--topic", topic, "--rerun", "--execute", "--json")

    assert ran.status == 0
    counts = {k: ran.json[k] for k in ("mode", "records", "queued", "folds", "undecodable", "fan_outs")}
    assert counts == {
        "mode": "rerun", "records": 5, "queued": 3, "folds": 1, "undecodable": 1, "fan_outs": 1,
    }  # fmt: skip
    rows = operator.rows("select key, value, headers from fanfold.outbox where value is not null")
    again = [decode_task(value) for _, value, _ in rows]
    assert [(t.task_id, t.run, t.attempt, t.arg) for t in again] == [(t.task_id, 2, 1, t.arg) for t in tasks]
    assert [key.decode() for key, _, _ in rows] == [t.task_id for t in tasks]
    assert {header_text(unpack_headers(headers), RUN) for *_, headers in rows} == {"2"}
    assert operator.rows("select remaining, run, completed_at is null from fanfold.fan_out") == [(3, 2, True)]

    reply = operator.commit([finished(task, topic) for task in again])
    assert [(done.run, done.outbox_id is not None) for done in reply.completed] == [(2, True)]


@one_partition
def test_a_dry_run_of_a_rerun_counts_and_changes_nothing(operator: Operator, topic: Topic) -> None:
    tasks = [*make_tasks(3), *make_tasks(2, thread_id="t2")]
    publish(topic, [*tasks, *tasks])
    operator.commit([finished(task) for task in tasks])

    ran = operator.replay("--topic", topic, "--rerun")

    assert ran.status == 0
    assert ran.out == "5 tasks of 2 fan-outs would run again\n"
    assert "5 are repetitions" in ran.err
    assert operator.rows("select count(*) from fanfold.outbox where value is not null") == [(0,)]
    assert operator.rows("select remaining from fanfold.fan_out") == [(0,), (0,)]


@one_partition
def test_a_rerun_leaves_alone_what_its_thread_has_moved_on_from(operator: Operator, topic: Topic) -> None:
    old, new = make_tasks(2, base={"b": 1}), make_tasks(1, base={"b": 2})
    publish(topic, [*old, *new])
    operator.commit([finished(task) for task in old])
    operator.commit([finished(task) for task in new])

    ran = operator.replay("--topic", topic, "--rerun", "--execute", "--json")

    assert (ran.json["stale"], ran.json["queued"]) == (2, 1)
    remaining = operator.rows("select size, remaining from fanfold.fan_out order by size")
    assert remaining == [(1, 1), (2, 0)]


@one_partition
def test_a_rerun_of_unknown_work_queues_it_under_its_own_run(operator: Operator, topic: Topic) -> None:
    publish(topic, make_tasks(2))
    ran = operator.replay("--topic", topic, "--rerun", "--execute", "--json")
    assert ran.json["queued"] == 2
    values = operator.rows("select value from fanfold.outbox")
    assert {decode_task(value).run for (value,) in values} == {1}


@one_partition
def test_a_rerun_ends_where_the_log_ends_in_a_transaction_marker(operator: Operator, topic: Topic) -> None:
    publish(topic, make_tasks(3), transactional_id=f"tx-{uuid.uuid4().hex}")
    publish(topic, make_tasks(2, thread_id="t2"), transactional_id=f"tx-{uuid.uuid4().hex}")

    ran = operator.replay("--topic", topic, "--rerun", "--json")

    assert ran.json["tasks"] == 5
    assert ran.json["ranges"] == [{"partition": 0, "from": 0, "to": 7}]


@one_partition
def test_a_wide_fan_out_is_rerun_over_several_transactions_under_one_run(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(1200)
    publish(topic, tasks)
    operator.commit([finished(task, topic) for task in tasks])

    ran = operator.replay("--topic", topic, "--rerun", "--execute", "--json")

    assert (ran.json["queued"], ran.json["fan_outs"]) == (1200, 1)
    assert operator.rows("select remaining, run from fanfold.fan_out") == [(1200, 2)]
    values = operator.rows("select value from fanfold.outbox where value is not null")
    assert {decode_task(value).run for (value,) in values} == {2}
    assert len(values) == 1200


@one_partition
def test_a_rerun_from_an_offset_takes_only_what_lies_behind_it(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(5)
    publish(topic, tasks)
    ran = operator.replay("--topic", topic, "--rerun", "--to-offset", 3, "--json")
    assert (ran.json["records"], ran.json["tasks"]) == (2, 2)


def test_many_partitions_are_read_to_their_ends_whatever_they_hold(
    operator: Operator, make_topic: Callable[..., Topic]
) -> None:
    topic = make_topic(partitions=6)
    for partition, count in enumerate([0, 1, 700, 3, 0, 650]):
        if count:
            publish(topic, make_tasks(count, thread_id=f"t{partition}"), partition=partition)
    ran = operator.replay("--topic", topic, "--rerun", "--json")
    assert (ran.json["tasks"], ran.json["fan_outs"]) == (1354, 4)


@one_partition
def test_a_rerun_that_loses_postgres_says_how_much_was_queued_and_how_to_go_on(
    operator: Operator, topic: Topic, tmp_path: Path
) -> None:
    # A lock that is held, and a wait for it that is bounded, stand for a database that does not answer.
    with operator.database.connect() as connection:
        connection.execute(f"alter database {operator.database.name} set lock_timeout = '50ms'".encode())
    tasks = [*make_tasks(600), *make_tasks(100, thread_id="t2")]
    publish(topic, tasks)
    operator.commit([finished(task) for task in tasks])
    rerun = ["--topic", topic, "--rerun", "--execute"]
    with operator.database.connect() as connection, connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended('t2', 4207))")
        broken = operator.replay(*rerun)

    assert broken.status == 1
    (queued,) = operator.rows("select count(*) from fanfold.outbox where value is not null")[0]
    assert 0 < queued < 700
    line = f'"{topic}",0,{queued}'
    assert line in broken.err.splitlines()
    (tmp_path / "rest.csv").write_text(line)

    rest = operator.replay(*rerun, "--from-file", tmp_path / "rest.csv", "--json")

    assert rest.json["queued"] == 700 - queued
    assert operator.rows("select remaining, run from fanfold.fan_out order by size") == [(100, 2), (600, 2)]
