"""`fanfold status`, `thread`, `cancel`, `prune` and `migrate` against a real broker and a real database."""

from __future__ import annotations

import io
import json
import sys

import pytest

from fanfold_schemas import derive_fold_task_id
from fanfold_sql import CommitBatch, DeadLetter, Finished, PartitionCommit
from tests.support.database import Database, Server
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator, finished, fold_task, make_tasks

one_partition = pytest.mark.parametrize("topic", [1], indirect=True)


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


@one_partition
def test_status_shows_offsets_lag_owner_and_islands_as_kafka_people_know_them(operator: Operator, topic: Topic) -> None:
    topic.send([b"x"] * 10, partition=0)
    held = operator.claim(topic).finish(4, ((6, 8),))

    ran = operator.run("status", "--group", "g", "--topic", topic)

    assert ran.status == 0
    head, row = (line.split() for line in ran.out.splitlines()[-2:])
    assert head == [
        "GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "OWNER", "EPOCH", "ISLANDS", "SEEN",
        "STOPPED",
    ]  # fmt: skip
    assert row[0] == "g"
    assert row[1] == topic.name
    assert row[2:4] == ["0", "4"]
    assert row[6:9] == [str(held.owner)[:8], "1", "2"]


@one_partition
def test_the_end_of_the_log_is_never_shown_below_what_was_read(operator: Operator, topic: Topic) -> None:
    topic.send([b"x"] * 1000, partition=0)
    operator.claim(topic).finish(1000)
    (partition,) = operator.run("status", "--json").json["partitions"]
    assert (partition["current_offset"], partition["log_end_offset"], partition["lag"]) == (1000, 1000, 0)


def test_status_shows_fan_outs_newest_first_with_their_counts(operator: Operator) -> None:
    first, second = make_tasks(4), make_tasks(2, fold=None)
    operator.commit([*map(finished, first[:2]), Finished(first[2], None)])
    operator.commit([finished(task) for task in second])

    ran = operator.run("status", "--json")

    shown = [(f["fan_out_id"], f["state"], f["done"], f["failed"], f["remaining"]) for f in ran.json["fan_outs"]]
    assert shown == [(second[0].fan_out.id, "done", 2, 0, 0), (first[0].fan_out.id, "open", 2, 1, 1)]
    open_ones = operator.run("status", "--state", "open", "--json").json["fan_outs"]
    assert [f["fan_out_id"] for f in open_ones] == [first[0].fan_out.id]
    table = operator.run("status").out
    assert table.split()[:5] == ["FAN-OUT", "THREAD", "STATE", "PROGRESS", "DONE"]
    assert first[0].fan_out.id in table


@one_partition
def test_status_without_kafka_shows_the_rest_and_says_why(
    operator: Operator, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.claim(topic).finish(4)

    ran = operator.run("status", "--bootstrap-servers", "127.0.0.1:1")

    assert ran.status == 0
    assert ran.out.splitlines()[-1].split()[3:6] == ["4", "-", "-"]
    assert "127.0.0.1:1" in ran.err


@one_partition
def test_status_leaves_out_progress_of_an_earlier_topic_of_the_same_name_unless_asked(
    operator: Operator, topic: Topic
) -> None:
    operator.claim(topic).finish(4)
    topic.recreate()
    operator.claim(topic).finish(2)

    current = operator.run("status", "--json").json["partitions"]
    everything = operator.run("status", "--all", "--json").json["partitions"]

    assert [p["current_offset"] for p in current] == [2]
    assert sorted((p["current_offset"], p["log_end_offset"] is None) for p in everything) == [(2, False), (4, True)]


def test_one_fan_out_can_be_watched_until_it_is_done(operator: Operator) -> None:
    tasks = make_tasks(2, fold=None)
    operator.commit([finished(task) for task in tasks])
    ran = operator.run("status", tasks[0].fan_out.id, "--watch", "0.1", "--json")
    assert [json.loads(line)["fan_outs"][0]["state"] for line in ran.out.splitlines()] == ["done"]


def test_an_unknown_fan_out_is_said_to_be_unknown_with_status_1(operator: Operator) -> None:
    ran = operator.run("status", "nobody")
    assert ran.status == 1
    assert "nobody" in ran.err


def test_status_of_an_empty_database_is_no_error(operator: Operator) -> None:
    ran = operator.run("status")
    assert (ran.status, ran.err) == (0, "")
    assert "no fan-outs" in ran.out


def test_a_database_without_the_schema_says_to_migrate(operator: Operator, empty_database: str) -> None:
    ran = operator.run("status", "--database-url", empty_database)
    assert ran.status == 1
    assert "fanfold migrate" in ran.err


def test_a_database_that_is_away_is_one_paragraph_with_the_reason(operator: Operator) -> None:
    ran = operator.run("status", "--database-url", "host=127.0.0.1 port=1 dbname=x user=x")
    assert ran.status == 1
    assert "refused" in ran.err
    assert "Traceback" not in ran.err


@one_partition
def test_a_thread_is_shown_with_its_clock_fan_outs_results_and_dead_letters(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3, base={"main": 7})
    held = operator.claim(topic)
    fold = fold_task(tasks[0], derive_fold_task_id(tasks[0].fan_out.id))
    letter = DeadLetter(held.claim.progress_id, 2, b"k", b"v", None, "handler", "it [broke]", tasks[2])
    batch = CommitBatch(
        [finished(tasks[0], topic), finished(tasks[1], topic), Finished(tasks[2], None)],
        [PartitionCommit(held.claim.progress_id, held.claim.epoch, held.claim.commit_seq, 3, ())],
        [letter],
        owner=held.owner,
    )
    operator.store(lambda store: store.commit(batch))
    operator.commit([finished(fold)])

    shown = operator.run("thread", "t1", "--json").json
    table = operator.run("thread", "t1").out

    assert shown["clock"] == {"main": 7}
    (fan_out,) = shown["fan_outs"]
    assert fan_out["state"] == "done"
    assert [(r["index"], r["status"], r["run"]) for r in fan_out["results"]] == [
        (-1, "done", 1), (0, "done", 1), (1, "done", 1), (2, "failed", 1),
    ]  # fmt: skip
    assert [(d["offset"], d["code"], d["error"]) for d in fan_out["dead_letters"]] == [(2, "handler", "it [broke]")]
    assert "main: 7" in table
    assert f"{topic.name}-0@2" in table
    assert "it [broke]" in table


def test_results_beyond_the_limit_are_counted_not_listed(operator: Operator) -> None:
    operator.commit([finished(task) for task in make_tasks(12, fold=None)])
    assert "and 7 more" in operator.run("thread", "t1", "--results", 5).out


def test_an_unknown_thread_is_said_to_be_unknown_with_status_1(operator: Operator) -> None:
    ran = operator.run("thread", "nobody")
    assert ran.status == 1
    assert "nobody" in ran.err


def test_prune_deletes_what_is_finished_and_old_in_bounded_batches(operator: Operator) -> None:
    for _ in range(5):
        operator.commit([finished(task) for task in make_tasks(2, fold=None)])
    operator.rows(
        "update fanfold.fan_out set created_at = now() - interval '8 days', completed_at = now() - interval '8 days'"
        " returning 1"
    )
    operator.commit([finished(task) for task in make_tasks(2, fold=None)])

    ran = operator.run("prune", "--older-than", "7d", "--batch", 2, "--yes", "--json")

    assert ran.status == 0
    assert (ran.json["fan_outs"], ran.json["results"]) == (5, 10)
    assert operator.rows("select count(*) from fanfold.fan_out") == [(1,)]


def test_prune_asks_first(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    ran = operator.run("prune", "--older-than", "1s", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert "Delete for good" in ran.err


@pytest.mark.parametrize("age", ["7", "soon", "P1M", "-1d", "999999w"])
def test_prune_refuses_what_is_no_age(operator: Operator, age: str) -> None:
    assert operator.run("prune", "--older-than", age, "--yes").status == 2


def test_migrate_says_what_it_would_do_does_it_and_then_has_nothing_to_do(
    operator: Operator, postgres_server: Server, empty_database: str
) -> None:
    url = ["--database-url", empty_database]

    dry = operator.run("migrate", *url, "--dry-run", "--json")
    done = operator.run("migrate", *url, "--json")
    again = operator.run("migrate", *url)

    assert [ran.status for ran in (dry, done, again)] == [0, 0, 0]
    assert dry.json["scripts"] == done.json["scripts"] != []
    assert again.out == "the database is up to date\n"


def test_cancel_says_what_it_would_do_and_does_it_only_when_told(operator: Operator) -> None:
    tasks = make_tasks(3)
    operator.commit([finished(tasks[0])])
    fan_out_id = tasks[0].fan_out.id

    dry = operator.run("cancel", "--fan-out", fan_out_id)
    assert dry.out.split() == ["would", "cancel", f"{fan_out_id}:", "2", "of", "3", "results", "outstanding"]
    assert operator.run("status", "--json").json["fan_outs"][0]["state"] == "open"

    assert operator.run("cancel", "--fan-out", fan_out_id, "--execute").status == 0
    assert operator.run("status", "--json").json["fan_outs"][0]["state"] == "cancelled"


def test_cancel_by_thread_ends_everything_that_is_open(operator: Operator) -> None:
    opened, done = make_tasks(2), make_tasks(1, fold=None)
    operator.commit([finished(opened[0]), finished(done[0])])
    ran = operator.run("cancel", "--thread", opened[0].thread_id, "--execute", "--json")
    assert [ended["fan_out_id"] for ended in ran.json["fan_outs"]] == [opened[0].fan_out.id]
    again = operator.run("cancel", "--thread", opened[0].thread_id, "--execute")
    assert "nothing was open" in again.err


def test_cancel_says_what_is_missing_when_it_cannot(operator: Operator) -> None:
    unseen = operator.run("cancel", "--fan-out", "f1", "--execute")
    assert unseen.status == 1
    assert "--thread" in unseen.err
    assert operator.run("cancel", "--fan-out", "f1", "--thread", "t1", "--execute").status == 0
    tasks = make_tasks(1, fold=None)
    operator.commit([finished(tasks[0])])
    late = operator.run("cancel", "--fan-out", tasks[0].fan_out.id, "--execute")
    assert late.status == 1
    assert "has its outcome already" in late.err
    assert operator.run("cancel").status == 2
    assert operator.run("cancel", "--thread", "no id!").status == 2
