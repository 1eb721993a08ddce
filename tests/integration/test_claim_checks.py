"""Large args and results on their whole way: published, fetched, run, put, committed, folded, read, and pruned."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fanfold_consumer import Registry, Send, Sends
from fanfold_producer import ClaimStore, ClaimStoreNeeded, FanOutFailed, Publisher, enqueue
from fanfold_producer.fan_out import build_fan_out
from fanfold_schemas import ClaimCheck, claim_check_for, decode_task, object_key, pack_value, payload_check
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.members import LocalMember
from tests.support.operator import Operator, Ran
from tests.support.rig import Rig
from tests.support.s3 import BUCKET, S3Server, s3_available
from tests.support.wait import eventually

pytest.importorskip("obstore", reason="claim stores need the extra claim-check (obstore)")

TEXT = "naïve " * 200_000
CHECK = claim_check_for(pack_value(TEXT))
MONTH = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Bench:
    """A rig whose publisher and members share a claim store in a folder."""

    rig: Rig
    publisher: Publisher
    store: ClaimStore
    folder: Path

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def start(self, topic: Topic, registry: Registry) -> LocalMember:
        return self.rig.start_here(topic, registry=registry, claim_store=self.url)

    def objects(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def object_of(self, fan_out_id: str, check: ClaimCheck = CHECK) -> Path:
        return self.folder / object_key(fan_out_id, check)

    def age(self) -> None:
        """Make everything a month old."""
        for path in self.objects():
            os.utime(path, (path.stat().st_mtime - MONTH,) * 2)
        self.rig.rows(
            "update fanfold.fan_out set created_at = now() - interval '30 days', completed_at = now() - interval "
            "'30 days', folded_at = case when fold is not null then now() - interval '30 days' end returning 1"
        )


@pytest.fixture
def at(rig: Rig, broker: Broker, database: Database, tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "claims"
    store = ClaimStore.open(folder.as_uri())
    with Publisher(
        broker.config, database_url=database.worker_dsn, atomic=broker.is_real_kafka, claim_store=store
    ) as publisher:
        yield Bench(rig, publisher, store, folder)


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


def handlers(calls: list[Any] | None = None) -> Registry:
    registry = Registry()

    @registry.task("measure")
    def measure(text: str) -> int:
        if calls is not None:
            calls.append(len(text))
        return len(text)

    @registry.task("repeat")
    def repeat(arg: dict[str, Any]) -> str:
        return str(arg["text"]) * int(arg["times"])

    @registry.task("fork")
    def fork(texts: list[str]) -> Sends:
        return Sends([Send("measure", text) for text in texts], fold="sum", value=len(texts))

    @registry.fold("joined")
    def joined(texts: list[str]) -> str:
        return "|".join(texts)

    return registry


def test_large_args_reach_their_handlers_and_the_records_stay_small(at: Bench, topic: Topic) -> None:
    calls: list[int] = []
    at.start(topic, handlers(calls))
    handle = at.publisher.fan_out("t1", [("measure", TEXT), ("measure", "x"), ("measure", TEXT)], topic=topic.name)
    assert handle.result(30) == [len(TEXT), 1, len(TEXT)]
    records = topic.records(3)
    assert max(len(record.value() or b"") for record in records) < 1000
    assert at.objects() == [at.object_of(handle.fan_out_id)]
    assert sorted(calls) == [1, len(TEXT), len(TEXT)]
    at.rig.assert_sound()


def test_large_results_are_folded_and_read_wherever_they_lie(at: Bench, topic: Topic) -> None:
    at.start(topic, handlers())
    sends = [("repeat", {"text": letter, "times": times}) for letter, times in (("a", 3), ("b", 10**6), ("c", 2))]
    handle = at.publisher.fan_out("t1", sends, fold="joined", topic=topic.name)
    assert handle.result(30) == "aaa|" + "b" * 10**6 + "|cc"
    payloads = [result.payload or b"" for result in at.rig.results(handle.fan_out_id)]
    assert [payload_check(payload) is not None for payload in payloads] == [False, True, False]
    assert sum(map(len, payloads)) < 100
    assert len(at.objects()) == 2, "the result of task 1, and the fold's own"
    at.rig.assert_sound()


def test_built_in_folds_and_plain_results_are_the_values_too(at: Bench, topic: Topic) -> None:
    at.start(topic, handlers())
    sends = [("repeat", {"text": letter, "times": 300_000}) for letter in "ab"]
    collected = at.publisher.fan_out("t1", sends, fold="collect", topic=topic.name)
    plain = at.publisher.fan_out("t2", sends, topic=topic.name)
    assert collected.result(30) == plain.result(30) == ["a" * 300_000, "b" * 300_000]


def test_large_sends_of_a_handler_belong_to_the_fan_out_they_open(at: Bench, topic: Topic) -> None:
    at.start(topic, handlers())
    at.publisher.fan_out("t1", [("fork", [TEXT, TEXT + "x", "small"])], topic=topic.name).result(30)
    child = "select fan_out_id from fanfold.fan_out where fold = 'sum' and folded_at is not null"
    ((fan_out_id,),) = eventually(lambda: at.rig.rows(child), what="the fold of what it sent")
    assert at.rig.fold_value(fan_out_id) == 2 * len(TEXT) + 6
    assert at.object_of(fan_out_id) in at.objects()
    at.rig.assert_sound()


def test_work_that_is_known_is_not_fetched_again(at: Bench, topic: Topic) -> None:
    calls: list[int] = []
    at.start(topic, handlers(calls))
    sends = [("measure", TEXT + str(n)) for n in range(5)]
    built = build_fan_out("t1", sends, topic=topic.name, fan_out_id="f1", claim_check_bytes_min=at.store.bytes_min)
    at.store.put_all_blocking("f1", built.large_args)
    at.rig.write(built.records)
    at.rig.await_results(5)
    for path in at.objects():
        path.unlink()
    at.rig.write(built.records)
    at.rig.write([at.rig.build(topic, [("measure", "after")], fan_out_id="f2").records[0]])
    at.rig.await_results(6)
    eventually(lambda: at.rig.rows("select from fanfold.partition_progress where next_offset > 0"))
    eventually(
        lambda: sum(p.next_offset or 0 for p in at.rig.partitions().values()) >= 11, what="all 11 records passed"
    )
    assert at.rig.dead_letters() == []
    assert len(calls) == 6


@pytest.mark.parametrize("harm", ["missing", "other bytes", "truncated"])
def test_an_object_that_is_not_what_was_put_fails_its_task_and_nothing_else(at: Bench, topic: Topic, harm: str) -> None:
    sends = [("measure", TEXT), ("measure", "x")]
    built = build_fan_out("t1", sends, topic=topic.name, fan_out_id="f1", claim_check_bytes_min=at.store.bytes_min)
    at.store.put_all_blocking("f1", built.large_args)
    path = at.object_of("f1")
    data = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(data[:-1] if harm == "truncated" else data[:-1] + b"?")
    at.rig.write(built.records)
    at.start(topic, handlers())

    with pytest.raises(FanOutFailed, match=object_key("f1", CHECK)):
        at.rig.handle(built).result(30)
    (letter,) = at.rig.await_dead_letters(1)
    assert letter.code == "E_CLAIM"
    assert letter.value == built.records[0].value, "the record as it was: with its claim check"
    state = at.rig.fan_out("f1")
    assert state is not None
    assert (state.failed, state.remaining) == (1, 0)
    at.rig.assert_sound()


def test_a_rerun_of_a_task_with_a_claim_check_fetches_its_arg_again(
    at: Bench, topic: Topic, operator: Operator
) -> None:
    calls: list[int] = []
    at.start(topic, handlers(calls))
    handle = at.publisher.fan_out("t1", [("measure", TEXT), ("measure", "x")], fold="sum", topic=topic.name)
    assert handle.result(30) == len(TEXT) + 1

    ran = operator.replay("--topic", topic, "--thread", "t1", "--rerun", "--execute")

    assert ran.status == 0, ran.err
    eventually(lambda: len(calls) == 4, what="both handlers again")
    done = "select run from fanfold.fan_out where folded_at is not null and run = 2"
    eventually(lambda: at.rig.rows(done), what="its fold of run 2")
    assert handle.result(30) == len(TEXT) + 1
    assert at.rig.dead_letters() == []
    at.rig.assert_sound()


def test_a_member_without_the_claim_store_parks_what_it_cannot_read_and_a_rerun_mends_it(
    at: Bench, topic: Topic, operator: Operator
) -> None:
    without = at.rig.start_here(topic, registry=handlers())
    handle = at.publisher.fan_out("t1", [("measure", TEXT)], topic=topic.name)
    (letter,) = at.rig.await_dead_letters(1)
    assert letter.code == "E_CLAIM"
    assert "--claim-store" in letter.error
    without.stop()

    at.start(topic, handlers())
    assert operator.replay("--topic", topic, "--thread", "t1", "--rerun", "--execute").status == 0
    eventually(lambda: at.rig.values(handle.fan_out_id) == {0: len(TEXT)}, what="the task again")


def test_a_reader_without_the_claim_store_is_told_so(at: Bench, topic: Topic) -> None:
    at.start(topic, handlers())
    handle = at.rig.publish(topic, [("repeat", {"text": "a", "times": 10**6})])
    with pytest.raises(ClaimStoreNeeded, match="--claim-store"):
        handle.result(30)
    assert at.publisher.handle(handle.fan_out_id).result(30) == ["a" * 10**6]


def test_enqueue_puts_before_it_writes_and_a_rollback_leaves_nothing_but_an_object(
    at: Bench, topic: Topic, database: Database
) -> None:
    at.start(topic, handlers())
    with database.connect_as_worker() as connection:
        with connection.transaction():
            enqueue(connection, "t1", [("measure", TEXT)], topic=topic.name, fan_out_id="kept", claim_store=at.store)
        with connection.transaction(force_rollback=True):
            enqueue(connection, "t1", [("measure", TEXT)], topic=topic.name, fan_out_id="undone", claim_store=at.store)
    eventually(lambda: at.rig.values("kept") == {0: len(TEXT)}, what="what was kept")
    assert sorted(at.objects()) == sorted([at.object_of("kept"), at.object_of("undone")])
    assert at.rig.rows("select from fanfold.fan_out where fan_out_id = 'undone'") == []


def test_publishing_again_is_the_same_work(at: Bench, topic: Topic) -> None:
    calls: list[int] = []
    at.start(topic, handlers(calls))
    for _ in range(2):
        handle = at.publisher.fan_out("t1", [("measure", TEXT)], fan_out_id="f1", topic=topic.name)
        assert handle.result(30) == [len(TEXT)]
    at.publisher.fan_out("t1", [("measure", TEXT + "!")], fan_out_id="f1", topic=topic.name)
    (letter,) = at.rig.await_dead_letters(1)
    assert letter.code == "E_CONFLICT"
    assert len(calls) == 1


def printed(ran: Ran) -> Any:
    """The JSON a command printed; a member in the same process may have logged before it."""
    assert ran.status == 0, ran.err
    return json.loads(ran.out.splitlines()[-1])


class TestCommands:
    def finished(self, at: Bench, topic: Topic) -> str:
        at.start(topic, handlers())
        sends = [("measure", TEXT), ("repeat", {"text": "a", "times": 300_000})]
        handle = at.publisher.fan_out("t1", sends, topic=topic.name)
        handle.result(30)
        return handle.fan_out_id

    def test_thread_shows_a_claim_check_as_what_it_is(self, at: Bench, topic: Topic, operator: Operator) -> None:
        self.finished(at, topic)
        check = claim_check_for(pack_value("a" * 300_000))
        first, second = printed(operator.run("thread", "t1", "--json"))["fan_outs"][0]["results"]
        assert first["sha256"] is None
        assert (second["payload_bytes"], second["sha256"]) == (check.bytes, check.sha256)
        assert check.sha256 in operator.run("thread", "t1").out

    def test_publish_takes_lines_that_are_larger_than_a_record(
        self, at: Bench, topic: Topic, operator: Operator, tmp_path: Path
    ) -> None:
        at.start(topic, handlers())
        file = tmp_path / "lines.jsonl"
        file.write_text("".join(json.dumps(text) + "\n" for text in (TEXT, "x", "y" * 9_000_000)))
        options = [*operator.client_options(), "--topic", topic.name, "--thread", "t1", "--node", "measure"]
        options += [] if operator.broker.is_real_kafka else ["--no-atomic"]

        refused = operator.run("publish", file, *options)
        assert refused.status == 1

        ran = operator.run("publish", file, *options, "--claim-store", at.url, "--wait", "--json")
        assert printed(ran)["fan_outs"][0]["result"] == [len(TEXT), 1, 9_000_000]

    def test_prune_deletes_the_objects_of_what_it_prunes_and_of_what_never_was(
        self, at: Bench, topic: Topic, operator: Operator
    ) -> None:
        fan_out_id = self.finished(at, topic)
        asyncio.run(at.store.put("never-published", b"\x01"))
        at.age()
        asyncio.run(at.store.put("in-publication", b"\x01"))
        young = at.publisher.fan_out("t2", [("measure", TEXT)], topic=topic.name)
        young.result(30)
        old_but_known = at.object_of(young.fan_out_id)
        os.utime(old_but_known, (1, 1))

        ran = operator.run("prune", "--older-than", "7d", "--claim-store", at.url, "--yes", "--json")

        counts = printed(ran)
        assert (counts["fan_outs"], counts["objects"]) == (1, 3)
        assert fan_out_id not in {path.parent.name for path in at.objects()}
        assert sorted(path.parent.name for path in at.objects()) == sorted(["in-publication", young.fan_out_id])
        counts = printed(operator.run("prune", "--older-than", "7d", "--claim-store", at.url, "--yes", "--json"))
        assert (counts["fan_outs"], counts["objects"]) == (0, 0)

    def test_prune_asks_first_and_says_what_lies_there_that_the_database_does_not_have(
        self, at: Bench, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asyncio.run(at.store.put("never-published", b"\x01"))
        at.age()
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        ran = operator.run("prune", "--older-than", "7d", "--claim-store", at.url)
        assert ran.status == 1
        assert "1 more (1 bytes) whose fan-outs this database does not have" in ran.err
        assert len(at.objects()) == 1

    def test_a_claim_store_that_is_none_is_refused_before_anything_is_deleted(self, operator: Operator) -> None:
        ran = operator.run("prune", "--older-than", "7d", "--claim-store", "http://127.0.0.1:1/x", "--yes")
        assert ran.status == 1
        assert "no claim store" in ran.err


def test_a_claim_store_that_dies_is_waited_for_and_nothing_is_parked(
    rig: Rig, broker: Broker, database: Database, make_topic: Callable[..., Topic], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = s3_available()
    if missing is not None:
        pytest.skip(missing)
    topic = make_topic()
    server = S3Server()
    server.start()
    try:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/t"
        member = rig.start(topic, claim_store=url)
        store = ClaimStore.open(url)
        atomic = broker.is_real_kafka
        with Publisher(broker.config, database_url=database.worker_dsn, atomic=atomic, claim_store=store) as publisher:
            sends = [("slow", {"n": n, "s": 0, "filling": str(n) * 300_000}) for n in range(4)]
            assert publisher.fan_out("t1", sends, fold="sum", topic=topic.name).result(30) == 6
            built = build_fan_out(
                "t2", sends, topic=topic.name, fan_out_id="f2", fold="sum", claim_check_bytes_min=store.bytes_min
            )
            store.put_all_blocking("f2", built.large_args)
            server.kill()
            rig.write(built.records)
            member.await_event("store.unavailable", store="claim store")
            small = rig.publish(topic, [("square", 3)])
            assert small.result(30) == [9], "what needs no claim store goes on"
            server.start()
            member.await_event("store.recovered", 30, store="claim store")
            assert rig.handle(built).result(30) == 6
        assert rig.dead_letters() == []
        assert member.unknown_events() == set()
        assert decode_task(built.records[0].value).arg_check is not None
        rig.assert_sound()
    finally:
        server.stop()
