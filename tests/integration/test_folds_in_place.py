"""A fold runs where its fan-out was completed; whatever goes wrong there, its record follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.assignment import Partition, Phase
from fanfold_consumer.committer import Committer
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.offsets import Tracker
from fanfold_consumer.patience import Patience
from fanfold_consumer.relay import Publication, fold_record, fold_task
from fanfold_consumer.work import NOWHERE, Completion, Delivery, as_message
from fanfold_schemas import FanOut, derive_fold_task_id
from fanfold_sql import CommitBatch, Finished, FoldOf, Store
from tests.sql.support import FanOutSpec
from tests.support.database import Database
from tests.support.handlers import declare
from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually

SENDS = [("square", n) for n in range(3)]


def _began(rig: Rig, fan_out_id: str) -> list[int]:
    """Who began the fold, in order."""
    return [call.pid for call in rig.notes.calls() if call.task_id == derive_fold_task_id(fan_out_id)]


def test_a_fold_runs_where_its_fan_out_was_completed_without_a_record(rig: Rig, topic: Topic) -> None:
    member = rig.start_here(topic)
    handle = rig.publish(topic, SENDS, fold="total")
    assert handle.result(20) == 5
    eventually(lambda: rig.rows("select from fanfold.outbox") == [], what="an empty outbox")
    assert member.metric("fanfold_outbox_published_total") == 0
    rig.assert_sound()


def test_the_row_of_a_fold_goes_in_the_transaction_that_stores_its_result(
    rig: Rig, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In one of its own it could reach a standby that was promoted without the result, and the fold would be forgotten.
    async def never(store: Store, outbox_ids: Sequence[int]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Store, "ack_outbox", never)
    rig.start_here(topic)
    assert rig.publish(topic, SENDS, fold="total").result(20) == 5
    assert rig.rows("select from fanfold.outbox") == []


def test_a_fold_is_that_of_the_results_that_were_applied(rig: Rig, topic: Topic) -> None:
    newer, older = (rig.build(topic, SENDS, fold="total", fan_out_id="f1", base={"m": n}) for n in (2, 1))
    rig.write([*newer.records, *older.records], partition=0)
    rig.start_here(topic)
    assert rig.handle(newer).result(20) == 5


def test_a_fold_whose_member_is_killed_is_run_by_another_once_the_lease_is_over(rig: Rig, topic: Topic) -> None:
    victim = rig.start(topic, relay_lease_s=1)
    handle = rig.publish(topic, SENDS, fold="hold-total")
    eventually(lambda: _began(rig, handle.fan_out_id) == [victim.pid], 20, what="the fold begun")
    victim.kill()
    other = rig.start(topic, relay_lease_s=1)
    rig.notes.open_gate("fold")
    assert handle.result(30) == 5
    assert _began(rig, handle.fan_out_id) == [victim.pid, other.pid]
    rig.assert_sound()


def test_a_fold_that_takes_longer_than_the_lease_is_left_to_its_member(rig: Rig, topic: Topic) -> None:
    members = [rig.start_here(topic, relay_lease_s=1) for _ in range(2)]
    for member in members:
        member.await_partitions()
    handle = rig.publish(topic, SENDS, fold="hold-total")
    renewed = "select from fanfold.outbox where due_at > created_at + interval '2 s'"
    eventually(lambda: len(rig.rows(renewed)) == 1, what="the lease renewed beyond its end")
    rig.notes.open_gate("fold")
    assert handle.result(20) == 5
    assert len(_began(rig, handle.fan_out_id)) == 1
    assert [member.metric("fanfold_outbox_published_total") for member in members] == [0, 0]


def test_the_next_attempt_of_a_fold_that_fails_is_a_record_and_is_parked_as_one(rig: Rig, topic: Topic) -> None:
    registry = declare(Registry(), rig.notes)

    @registry.fold("broken", retries=1, backoff=0.01)
    def broken(values: list[int], context: TaskContext) -> int:
        rig.notes.note("began", context)
        raise ValueError("no")

    rig.start_here(topic, registry=registry)
    handle = rig.publish(topic, SENDS, fold="broken")
    [letter] = rig.await_dead_letters(1)
    assert (letter.task_id, letter.code) == (derive_fold_task_id(handle.fan_out_id), "E_HANDLER")
    assert letter.offset >= 0
    assert letter.value is not None
    fold_id = derive_fold_task_id(handle.fan_out_id)
    assert [call.attempt for call in rig.notes.calls() if call.task_id == fold_id] == [1, 2]


@dataclass(slots=True)
class _Ends:
    """Whoever a committer tells."""

    fenced: list[Partition] = field(default_factory=list)
    stored: list[bool] = field(default_factory=list)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def on_fenced(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            partition.phase = Phase.LOST
            self.fenced.append(partition)

    def on_rewound(self, partitions: Iterable[Partition]) -> None:
        raise AssertionError

    def begin(self, outbox_id: int, fold: FoldOf, partition: Partition) -> None:
        raise AssertionError

    def end(self, publication: Publication, *, stored: bool) -> None:
        self.stored.append(stored)


def test_a_fold_of_a_claim_that_was_lost_stores_nothing_and_is_published(database: Database) -> None:
    asyncio.run(_finish_under_a_lost_claim(database))


async def _finish_under_a_lost_claim(database: Database) -> None:
    ends, owner = _Ends(), uuid4()
    fan_out = FanOut("f1", 1, "total")
    fold = FoldOf(fan_out, 1, "t1", {})
    async with Store.open(database.worker_dsn) as store:
        claim = await store.claim_partition("g", "c", "x", "y", 0, owner)
        partition = Partition("x", 0, Phase.RUNNING, claim.progress_id, claim.epoch, tracker=Tracker(7))
        await store.commit(CommitBatch(FanOutSpec(size=1, fold="total").results()))
        await store.claim_partition("g", "c", "x", "y", 0, uuid4())
        committer = Committer(
            store,
            owner,
            Parking("g"),
            Patience(),
            Metrics(),
            ends,
            results_max=10,
            bytes_max=1000,
            lease_ms=1000,
            settled=lambda deliveries: ends.settled.set(),
            publish=lambda publications: None,
            folds=ends,
        )
        record = fold_record("x", fold)
        message = as_message(record.key, record.value, record.headers)
        delivery = Delivery(partition, NOWHERE, message, 0, Publication(1, record))
        committer.finish(Completion(delivery, Finished(fold_task(fold), b"\x01", topic="x")))
        work = asyncio.create_task(committer.work())
        await asyncio.wait_for(ends.settled.wait(), 10)
        work.cancel()
        assert (ends.fenced, ends.stored) == ([partition], [False])
        assert [result.index for result in await store.read_results("f1", after=-2)] == [0]
