"""What waits in the outbox is published by whoever comes first, once its lease is over."""

from __future__ import annotations

from fanfold_schemas import arg_hash, decode_task, encode_payload
from fanfold_sql import CommitBatch, Finished
from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually


def test_a_fold_that_a_dead_member_did_not_publish_is_published_by_another(rig: Rig, topic: Topic) -> None:
    """The member died between its last commit and the publishing that follows it."""
    built = rig.build(topic, [("square", n) for n in range(3)], fold="total")
    tasks = [decode_task(record.value) for record in built.records]
    results = [Finished(task, encode_payload(task.index), arg_hash(task), topic.name) for task in tasks]
    reply = rig.store(lambda store: store.commit(CommitBatch(results), lease_ms=1500))
    assert [fan_out.fan_out_id for fan_out in reply.completed] == [built.fan_out.id]
    assert len(rig.rows("select from fanfold.outbox where due_at > now()")) == 1

    rig.start_here(topic)
    eventually(lambda: rig.fold_value(built.fan_out.id) == 3)
    assert list(rig.notes.counts().values()) == [1]
    rig.assert_sound()


def test_two_members_that_both_look_at_the_outbox_publish_each_record_once(rig: Rig, topic: Topic) -> None:
    members = [rig.start_here(topic, relay_interval_s=0.02) for _ in range(2)]
    for member in members:
        member.await_partitions()
    built = rig.build(topic, [("square", n) for n in range(500)], fold="count")
    with rig.database.connect() as connection, connection.transaction():
        for record in built.records:
            connection.execute(
                "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], array[0])",
                ([record.topic], [record.key], [record.value], [b"\x90"]),
            )
    assert rig.handle(built).result(20) == 500
    rig.assert_sound()
    published = sum(topic.end_offsets().values())
    assert sum(member.metric("fanfold_outbox_published_total") for member in members) == published
    assert published in (500, 501)  # the fold is one of them, or ran where it was completed
    assert rig.notes.again() == 0
