"""`fanfold replay --verify` against a real broker and a real database: handlers run again, and nothing else happens."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fanfold_consumer import Registry, RetryAfter, Send, Sends, TaskContext
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.verify import Verified, Verifier, Wanted
from fanfold_producer.fan_out import build_fan_out
from fanfold_producer.kafka import cluster_and_topics
from fanfold_schemas import (
    Task,
    arg_hash,
    decode_task,
    derive_child_fan_out_id,
    derive_fold_task_id,
    encode_payload,
)
from fanfold_sql import Finished, Store
from tests.sql.support import Tables
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator, fold_task, make_tasks, publish

pytestmark = pytest.mark.parametrize("topic", [1], indirect=True)


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def doubling() -> Registry:
    """`work`: what `finished` commits for it."""
    registry = Registry()

    @registry.task("work")
    async def work(arg: dict[str, int]) -> dict[str, int]:
        return {"twice": 2 * arg["n"]}

    return registry


def verified(operator: Operator, topic: Topic, registry: Registry, *, concurrency: int = 4, **wanted: Any) -> Verified:
    """Verify the whole topic in this process; the tables must be the same after."""

    async def verify(store: Store) -> Verified:
        cluster_id, found = cluster_and_topics(topic.broker.config, [topic.name])
        asked = Wanted(topic.name, cluster_id, found[topic.name][0], **wanted)
        verifier = Verifier(store, registry, None, asked, concurrency=concurrency)
        with LogReader(topic.broker.config, topic.name) as reader:
            reader.start({0: (0, topic.end_offsets()[0])})
            return await verifier.run(reader)

    with operator.database.connect() as connection:
        before = Tables(connection).fingerprint()
        report = operator.store(verify)
        assert Tables(connection).fingerprint() == before
    return report


def commit(operator: Operator, topic: Topic, tasks: Sequence[Task], values: Sequence[Any]) -> None:
    """Results as a member would commit them; an exception is a failure."""
    operator.commit(
        [
            Finished(task, None if isinstance(v, Exception) else encode_payload(v), arg_hash(task), topic.name)
            for task, v in zip(tasks, values, strict=True)
        ]
    )


def numbers(operator: Operator, topic: Topic, size: int = 3, **options: Any) -> list[Task]:
    """Published tasks with the results of `doubling`."""
    tasks = make_tasks(size, **options)
    publish(topic, tasks)
    commit(operator, topic, tasks, [{"twice": 2 * n} for n in range(size)])
    return tasks


def test_handlers_that_come_to_what_is_stored_are_the_same_and_nothing_is_written(
    operator: Operator, topic: Topic
) -> None:
    numbers(operator, topic)
    end = topic.end_offsets()

    report = verified(operator, topic, doubling())

    assert (report.tasks, report.same, report.differences) == (3, 3, [])
    assert report.is_same
    assert topic.end_offsets() == end


def test_a_result_that_differs_is_named_with_its_task_and_the_path_of_the_difference(
    operator: Operator, topic: Topic
) -> None:
    tasks = make_tasks(3)
    publish(topic, tasks)
    commit(operator, topic, tasks, [{"twice": 0}, {"twice": 3}, {"twice": 4}])

    report = verified(operator, topic, doubling())

    (found,) = report.differences
    assert (found.kind, found.task_id, found.index, found.at) == ("result", tasks[1].task_id, 1, f"{topic}-0@1")
    assert found.what == "$.twice: 3 is stored, now 2"
    assert not report.is_same


def test_a_handler_that_fails_now_is_a_difference_and_is_parked_nowhere(operator: Operator, topic: Topic) -> None:
    numbers(operator, topic, 5)
    registry = Registry()

    @registry.task("work", retries=0, timeout=0.05)
    async def work(arg: dict[str, int]) -> Any:
        match arg["n"]:
            case 0:
                raise ValueError("broken since")
            case 1:
                await asyncio.Event().wait()
            case 2:
                return object()
            case 3:
                raise SystemExit
        return {"twice": 8}

    report = verified(operator, topic, registry)

    texts = sorted(found.what[:10] for found in report.differences)
    assert texts == ["E_HANDLER:", "E_HANDLER:", "E_RESULT: ", "E_TIMEOUT:"]
    assert {found.kind for found in report.differences} == {"failure"}
    assert report.same == 1
    assert operator.rows("select from fanfold.dead_letter") == []


def test_a_handler_that_wants_to_be_tried_much_later_fails_now(operator: Operator, topic: Topic) -> None:
    numbers(operator, topic, 1)
    registry = Registry()

    @registry.task("work")
    async def work(arg: dict[str, int]) -> int:
        raise RetryAfter(3600)

    assert [found.kind for found in verified(operator, topic, registry).differences] == ["failure"]


def test_handlers_get_what_members_give_them(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(2)
    publish(topic, tasks)
    commit(operator, topic, tasks, [[task.task_id, task.index, 1, task.index] for task in tasks])
    registry = Registry()

    @registry.task("work")
    def work(arg: dict[str, int], context: TaskContext) -> list[Any]:
        return [context.task_id, context.index, context.attempt, arg["n"]]

    assert verified(operator, topic, registry).same == 2


def test_a_fold_is_made_again_from_the_stored_results(operator: Operator, topic: Topic) -> None:
    tasks = make_tasks(3, fold="sum")
    fold = fold_task(tasks[0], derive_fold_task_id(tasks[0].fan_out.id))
    publish(topic, [*tasks, fold])
    commit(operator, topic, tasks, [1, 2, ValueError()])
    commit(operator, topic, [fold], [3])
    registry = Registry()

    @registry.task("work")
    async def work(arg: dict[str, int]) -> int:
        return arg["n"] + 1

    report = verified(operator, topic, registry)
    assert (report.tasks, report.folds, report.same, report.skipped["failed"]) == (2, 1, 3, 1)

    changed = encode_payload(5).hex()
    assert operator.rows(f"update fanfold.result set payload = '\\x{changed}' where index = 1 returning 1")
    differences = verified(operator, topic, registry).differences
    assert sorted((found.index, found.what) for found in differences) == [
        (-1, "$: 3 is stored, now 6"),
        (1, "$: 5 is stored, now 2"),
    ]


def test_sends_are_compared_and_not_sent(operator: Operator, topic: Topic) -> None:
    (parent,) = make_tasks(1, fold=None)
    publish(topic, [parent])
    commit(operator, topic, [parent], [None])
    child_id = derive_child_fan_out_id(parent.task_id, 1)
    built = build_fan_out("t1", [("work", 1), ("work", 2)], topic=topic.name, fan_out_id=child_id, fold="sum", base={})
    commit(operator, topic, [decode_task(record.value) for record in built.records], [1, 2])

    def found(sends: Sends | None) -> list[tuple[str, str]]:
        registry = Registry()

        @registry.task("work")
        async def work(arg: Any) -> Sends | None:
            return sends

        return [(found.kind, found.what) for found in verified(operator, topic, registry).differences]

    assert found(Sends([Send("work", 1), Send("work", 2)], fold="sum")) == []
    assert found(Sends([Send("work", 1), Send("work", 3)], fold="sum"))[0][1].startswith("send 1 ")
    assert found(Sends([Send("work", 1)], fold="sum"))[0][1].startswith("2 sends with fold 'sum' are stored, now 1")
    assert found(None) == [("sends", "it asked for a fan-out, now for none")]
    assert operator.rows("select value from fanfold.outbox where value is not null") == []


def test_what_has_no_result_of_its_own_run_is_left_out_and_counted(operator: Operator, topic: Topic) -> None:
    tasks = numbers(operator, topic, 2)
    publish(topic, [*make_tasks(1, thread_id="t2"), *tasks])
    assert operator.replay("--topic", topic, "--thread", "t1", "--rerun", "--execute").status == 0

    report = verified(operator, topic, doubling())

    assert report.tasks == 0
    assert report.skipped == {"reopened": 2, "without a result": 1}
    assert report.tally.repeated == 2


def test_a_thread_a_fan_out_and_so_many_tasks_can_be_asked_for(operator: Operator, topic: Topic) -> None:
    ours, others = numbers(operator, topic, 3), numbers(operator, topic, 4, thread_id="t2")

    assert verified(operator, topic, doubling(), thread_id="t2").tasks == 4
    assert verified(operator, topic, doubling(), fan_out_id=ours[0].fan_out.id).tasks == 3
    assert verified(operator, topic, doubling(), limit=5).tasks == 5
    assert others


def test_a_sample_is_the_same_for_the_same_seed_and_of_the_size_that_was_asked_for(
    operator: Operator, topic: Topic
) -> None:
    numbers(operator, topic, 60)

    def sampled(seed: int) -> list[int]:
        ran: list[int] = []
        registry = Registry()

        @registry.task("work")
        async def work(arg: dict[str, int]) -> dict[str, int]:
            ran.append(arg["n"])
            return {"twice": 2 * arg["n"]}

        assert verified(operator, topic, registry, sample=8, seed=seed).same == 8
        return sorted(ran)

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_the_command_exits_with_1_on_a_difference_and_prints_it(
    operator: Operator, topic: Topic, tmp_path: Path
) -> None:
    numbers(operator, topic)
    assert operator.rows("update fanfold.result set payload = '\\x01' where index = 2 returning 1")
    (tmp_path / "doubles.py").write_text(
        "from fanfold_consumer import task\n"
        "@task('work')\n"
        "def work(arg: dict) -> dict:\n"
        "    return {'twice': 2 * arg['n']}\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["replay", *operator.client_options(), "--bootstrap-servers", topic.broker.bootstrap]
        command += ["--database-url", operator.database.worker_dsn, "--topic", topic.name, "--verify"]
        code = "from fanfold_consumer.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *command, "--handlers", "doubles", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    ran = run()
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.startswith("3 tasks and 0 folds ran again: 2 came to what is stored\n")
    assert "$: 1 is stored, now {'twice': 4}" in ran.stdout
    same = run("--to-offset", "0", "--limit", "2", "--json")
    assert (same.returncode, '"same": 2' in same.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--verify"], "--handlers is missing"),
        (["--verify", "--handlers", "m", "--rerun"], "changes nothing"),
        (["--verify", "--handlers", "m", "--execute"], "changes nothing"),
        (["--verify", "--handlers", "m", "--limit", "1", "--sample", "1"], "contradict"),
        (["--handlers", "m", "--group", "g", "--to-earliest"], "go with --verify"),
    ],
)
def test_a_contradictory_command_line_is_refused_with_status_2(
    operator: Operator, topic: Topic, arguments: list[str], complaint: str
) -> None:
    ran = operator.replay("--topic", topic, *arguments)
    assert (ran.status, complaint in ran.err) == (2, True)
