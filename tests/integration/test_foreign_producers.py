"""What producers in other languages publish is what Python would have published."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from fanfold_producer import Send
from fanfold_producer.fan_out import BuiltFanOut, build_fan_out
from fanfold_schemas import arg_hash, decode_task, new_fan_out_id, task_headers
from tests.support.foreign import CLIENTS, Client, Unavailable, args, registry
from tests.support.kafka import Broker, Topic, create_topic, delete_topic, unique_name
from tests.support.rig import Rig
from tests.support.wait import eventually

transactions = pytest.mark.needs_real_kafka("the producers use transactions")

THREAD = "lines-1"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True, slots=True)
class Published:
    """A fan-out that a client published, as it is in the log."""

    client: Client
    topic: Topic
    fan_out_id: str
    records: list[Message]

    def sends(self) -> list[Send]:
        """The same, as Python would publish it."""
        ids = [f"{self.fan_out_id}.{n}" if self.client.own_ids else None for n in range(len(args()))]
        return [Send("count_line", arg, task_id) for arg, task_id in zip(args(), ids, strict=True)]

    def built(self) -> BuiltFanOut:
        return build_fan_out(THREAD, self.sends(), topic=self.topic.name, fan_out_id=self.fan_out_id, fold="sum_lines")


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda make: make.__name__)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Client:
    make: Callable[[Path], Client] = request.param
    try:
        return make(tmp_path_factory.mktemp("producer"))
    except Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def published(client: Client, broker: Broker) -> Iterator[Published]:
    topic = create_topic(broker, unique_name(client.name), 4)
    fan_out_id = new_fan_out_id()
    client.publish(broker, topic.name, THREAD, fan_out_id, TRACEPARENT=TRACEPARENT)
    yield Published(client, topic, fan_out_id, topic.records(len(args())))
    delete_topic(broker, topic.name)


@transactions
def test_its_records_are_the_tasks_and_keys_that_python_would_publish(published: Published) -> None:
    theirs = {message.key(): decode_task(message.value()) for message in published.records}
    ours = {record.key: decode_task(record.value) for record in published.built().records}
    assert theirs == ours
    assert {key: arg_hash(task) for key, task in theirs.items()} == {key: arg_hash(t) for key, t in ours.items()}


@transactions
def test_its_headers_are_those_that_python_would_write(published: Published) -> None:
    source = f"fanfold-{published.client.name}-example"
    for message in published.records:
        ours = task_headers(decode_task(message.value()), source=source, extra={"traceparent": TRACEPARENT})
        theirs: list[Any] = list(message.headers() or [])
        # kcat has one set of headers for all records of a call.
        assert theirs == [header for header in ours if header[0] != "ce_id" or not published.client.own_ids]


@transactions
def test_its_records_came_in_one_transaction(published: Published) -> None:
    touched = {message.partition() for message in published.records}
    # The end of a transaction takes an offset in every partition that it wrote to.
    assert sum(published.topic.end_offsets().values()) == len(published.records) + len(touched)


@transactions
def test_its_fan_out_comes_to_the_same_results_as_pythons(rig: Rig, published: Published) -> None:
    handle = rig.publish(published.topic, [("count_line", arg) for arg in args()], fold="sum_lines")
    rig.start_here(published.topic, registry=registry())

    total = handle.result(30)
    eventually(lambda: rig.fold_value(published.fan_out_id) == total, what="the same fold")
    theirs, ours = (
        [row[:-1] for row in stored(rig, fan_out_id)] for fan_out_id in (published.fan_out_id, handle.fan_out_id)
    )
    assert theirs == ours
    assert [row[0] for row in theirs] == [-1, *range(len(args()))]
    assert total == {
        "lines": 7,
        "words": 41,
        "first_ns": -62_135_596_800_000_000,
        "last_ns": 2**63 - 1,
    }
    rig.assert_sound()


@transactions
def test_published_again_by_python_its_fan_out_is_the_same_work(rig: Rig, published: Published) -> None:
    rig.start_here(published.topic, registry=registry())
    eventually(lambda: rig.fold_value(published.fan_out_id), what="the fold")
    before = stored(rig, published.fan_out_id)

    options: dict[str, Any] = {"thread_id": THREAD, "fan_out_id": published.fan_out_id, "fold": "sum_lines"}
    rig.publish(published.topic, published.sends(), **options)

    await_end(rig, published.topic)
    assert stored(rig, published.fan_out_id) == before
    assert rig.dead_letters() == []


@pytest.mark.skipif(shutil.which("kcat") is None, reason="there is no kcat")
def test_other_clients_see_our_headers_as_text(broker: Broker, rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("square", 3)], traceparent=TRACEPARENT, fold="sum")
    (record,) = topic.records(1)

    command = ["kcat", "-C", "-b", broker.bootstrap, "-t", topic.name, "-e", "-q", "-f", "%h"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    task = decode_task(record.value())
    assert said.split(",") == [
        "ce_specversion=1.0",
        f"ce_id={task.task_id}",
        "ce_source=fanfold",
        "ce_type=fanfold.task.v1",
        "content-type=application/vnd.fanfold.task+msgpack; version=1",
        "fanfold-thread-id=t1",
        f"fanfold-fan-out-id={handle.fan_out_id}",
        "fanfold-node=square",
        "fanfold-run=1",
        f"traceparent={TRACEPARENT}",
    ]


def stored(rig: Rig, fan_out_id: str) -> list[tuple[Any, ...]]:
    """Its results and its fold, to the byte, and when they came."""
    columns = "index, run, status, arg_hash, payload, committed_at"
    return rig.rows(f"select {columns} from fanfold.result where fan_out_id = %s order by index", fan_out_id)


def await_end(rig: Rig, topic: Topic) -> None:
    """Wait until the group is done with all that is in the topic by now."""
    ends = topic.end_offsets()

    def passed() -> bool:
        states = rig.partitions()
        return all((states[number].next_offset or 0) >= end for number, end in ends.items())

    eventually(passed, what=f"all of {topic} done")
