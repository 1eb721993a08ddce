"""`fanfold publish` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fanfold_consumer.cli.publish import publish
from fanfold_consumer.errors import FanfoldError
from fanfold_schemas import SchemaError, decode_task, derive_task_id, encode_payload
from tests.support.database import Database
from tests.support.kafka import Broker, Topic, delete_topic, unique_name


class _Command:
    def __init__(self, broker: Broker, topic: str) -> None:
        settings = [f"-X{key}={value}" for key, value in broker.config.properties.items()]
        self._always = ["--bootstrap-servers", broker.bootstrap, "--topic", topic, "--thread", "t", *settings]

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(publish, [*arguments, *self._always], input=stdin)

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        result = self(*arguments, stdin=stdin)
        assert isinstance(result.exception, FanfoldError | SchemaError), result.output
        return str(result.exception)


@pytest.fixture
def command(broker: Broker, topic: Topic) -> _Command:
    return _Command(broker, topic.name)


def test_a_json_lines_file_is_published_and_repeating_it_is_the_same_work(
    command: _Command, topic: Topic, tmp_path: Path
) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"node":"a","arg":{"x":1}}\n{"node":"b","task_id":"mine"}\n', encoding="utf-8")
    first, second = command(str(file), "--fold", "sum"), command(str(file), "--fold", "sum")
    assert first.exit_code == second.exit_code == 0, first.output
    assert first.stdout == second.stdout
    tasks = {task.index: task for task in (decode_task(m.value()) for m in topic.records(4))}
    assert (tasks[0].node, tasks[0].arg, tasks[1].node, tasks[1].task_id) == ("a", {"x": 1}, "b", "mine")
    assert {task.fan_out.id for task in tasks.values()} == {first.stdout.strip()}
    assert "published 2 tasks" in first.stderr


def test_csv_from_standard_input_is_published_as_maps(command: _Command, topic: Topic) -> None:
    result = command("-", "--format", "csv", "--node", "n", "--base", "main=3", "--json", stdin="a,b\n1,x\n2,y\n")
    assert result.exit_code == 0, result.output
    (fan_out,) = json.loads(result.stdout)["fan_outs"]
    assert (fan_out["size"], fan_out["topic"], fan_out["thread_id"]) == (2, topic.name, "t")
    tasks = [decode_task(message.value()) for message in topic.records(2)]
    assert sorted(task.arg["a"] + task.arg["b"] for task in tasks) == ["1x", "2y"]
    assert {task.base["main"] for task in tasks} == {3}


def test_split_publishes_several_fan_outs_with_derived_ids(command: _Command, topic: Topic) -> None:
    result = command("-", "--node", "n", "--split", "2", "--fan-out-id", "mine", stdin="1\n2\n3\n")
    assert result.stdout.split() == ["mine.2.0", "mine.2.1"]
    tasks = [decode_task(message.value()) for message in topic.records(3)]
    assert sorted((t.fan_out.id, t.fan_out.size, t.arg) for t in tasks) == [
        ("mine.2.0", 2, 1),
        ("mine.2.0", 2, 2),
        ("mine.2.1", 1, 3),
    ]


@pytest.mark.parametrize("split", [(), ("--split", "2")])
def test_a_bad_line_is_named_and_nothing_is_published(command: _Command, topic: Topic, split: tuple[str, ...]) -> None:
    assert "line 3: no JSON" in command.refused("-", "--node", "n", *split, stdin="1\n2\n{\n")
    assert "line 4: arg: a NUL" in command.refused("-", "--node", "n", *split, stdin='1\n2\n\n"\\u0000"\n')
    twice = '{"node":"n","task_id":"x"}\n'
    assert "line 2: task_id: 'x' is the id of line 1" in command.refused("-", *split, stdin=twice * 2)
    assert sum(topic.end_offsets().values()) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-", "--format", "csv"), "--node"),
        (("-", "--base", "main"), "branch=counter"),
        (("-", "--base", "main=1", "--base", "main=2"), "twice"),
        (("-", "--topic", "a topic"), "topic"),
        (("-", "--split", "0"), "--split"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(broker: Broker, arguments: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(publish, ["--bootstrap-servers", broker.bootstrap, "--thread", "t", *arguments])
    assert result.exit_code == 2
    assert says in result.stderr


def test_bad_ids_are_named_by_their_option(command: _Command) -> None:
    for option in ("--node", "--fold", "--fan-out-id"):
        assert option in command.refused("-", option, "a b", stdin="1\n")


def test_a_missing_topic_is_said_before_anything_is_sent_and_can_be_created(broker: Broker) -> None:
    name = unique_name("missing")
    command = _Command(broker, name)
    try:
        assert "--create-topic" in command.refused("-", "--node", "n", stdin="1\n")
        assert command("-", "--node", "n", "--create-topic", "2", stdin="1\n").exit_code == 0
        assert len(Topic(name, 2, broker).records(1)) == 1
    finally:
        delete_topic(broker, name)


def test_wait_prints_the_result_that_is_there(command: _Command, database: Database) -> None:
    waiting = ("--wait", "--timeout", "10", "--database-url", database.worker_dsn, "--fan-out-id", "mine")
    with database.connect_as_worker() as connection:
        connection.execute(
            "select fanfold.commit_result('t', 'mine', 1, %s, 0, %s)",
            (derive_task_id("mine", 0), encode_payload({"x": [1, b"b"]})),
        )
    plain = command("-", "--node", "n", *waiting, stdin="1\n")
    assert json.loads(plain.stdout) == [{"x": [1, "Yg=="]}], plain.output
    as_json = command("-", "--node", "n", "--json", *waiting, stdin="1\n")
    assert json.loads(as_json.stdout)["fan_outs"][0]["result"] == [{"x": [1, "Yg=="]}]


def test_waiting_in_vain_says_how_far_it_came(command: _Command, database: Database) -> None:
    waiting = ("--wait", "--timeout", "0.1", "--database-url", database.worker_dsn)
    assert "no result of its 1 tasks" in command.refused("-", "--node", "n", *waiting, stdin="1\n")
