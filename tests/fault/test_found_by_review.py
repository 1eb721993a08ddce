"""Interleavings that once left a partition unread, parked good results or ended a member, each as it was found."""

from __future__ import annotations

import ormsgpack
import psycopg
import pytest

from tests.support.kafka import Topic
from tests.support.members import LocalMember
from tests.support.rig import Rig
from tests.support.wait import eventually


def _cut_connections(
    connection: psycopg.Connection[tuple[object, ...]], made_before: tuple[object, ...] | None = None
) -> None:
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'fanfold' and datname = current_database() and backend_start < %s",
        made_before or ("infinity",),
    )


def _assigned(member: LocalMember) -> int:
    claims = getattr(member.fleet, "_claims", None)  # wired once both stores are there
    return len(claims._assigned) if claims is not None else 0


def test_a_rebalance_while_claims_wait_for_postgres_leaves_no_partition_unclaimed(rig: Rig, topic: Topic) -> None:
    with rig.database.connect() as connection, connection.transaction():
        connection.execute("lock table fanfold.partition_progress in access exclusive mode")
        first = rig.start_here(topic)
        eventually(lambda: _assigned(first) == 4, what="all partitions assigned to the first member")
        second = rig.start_here(topic)
        eventually(lambda: _assigned(first) == _assigned(second) == 2, what="two partitions each")
    handle = rig.publish(topic, [("square", n) for n in range(40)], fold="sum")
    assert handle.result(30) == sum(n * n for n in range(40))
    assert {state.owner for state in rig.partitions().values()} == {first.fleet.owner_id, second.fleet.owner_id}
    rig.assert_sound()


def test_a_server_that_takes_no_writes_for_a_while_parks_nothing_and_ends_no_member(rig: Rig, topic: Topic) -> None:
    # What is behind a proxy's address in the middle of a failover: a standby that is not promoted yet.
    member = rig.start(topic, concurrency=8, in_flight_max=50)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.02}) for n in range(300)], fold="sum")
    eventually(lambda: rig.count_results() >= 30)
    with rig.database.connect() as connection:
        connection.execute(f"alter database {rig.database.name} set default_transaction_read_only = on")
        row = connection.execute("select clock_timestamp()").fetchone()
        assert row is not None

        def told_of_it() -> bool:
            # Connections made before may still write: of these, some that were being made are seen only later.
            _cut_connections(connection, row)
            return any("read-only" in event["error"] for event in member.events("store.unavailable"))

        eventually(told_of_it)
        connection.execute(f"alter database {rig.database.name} reset default_transaction_read_only")
        _cut_connections(connection)
    assert handle.result(60) == sum(range(300))
    assert rig.dead_letters() == []
    assert member.alive
    rig.assert_sound()


def test_a_database_that_went_back_is_noticed_by_members_that_have_nothing_to_commit(rig: Rig, topic: Topic) -> None:
    rig.start(topic)
    rig.publish(topic, [("square", n) for n in range(20)], fan_out_id="before").result(30)
    lost = rig.publish(topic, [("square", n) for n in range(20)], fan_out_id="lost", thread_id="t2", fold="sum")
    with rig.database.connect() as connection:
        assert lost.result(30)
        eventually(lambda: not rig.rows("select from fanfold.outbox"))
        with connection.transaction():
            # As a replica that was promoted without what was committed last.
            connection.execute("delete from fanfold.result where fan_out_id = 'lost'")
            connection.execute("delete from fanfold.fan_out where fan_out_id = 'lost'")
            connection.execute("delete from fanfold.thread where thread_id = 't2'")
            connection.execute(
                "update fanfold.partition_progress"
                " set commit_seq = 1, next_offset = 0, islands = '{}' where next_offset is not null"
            )
    assert lost.result(30) == sum(n * n for n in range(20))
    rig.assert_sound()


@pytest.mark.parametrize("headers", [b"\xc1", ormsgpack.packb(7), ormsgpack.packb([[1, b"x"]])])
def test_an_outbox_row_that_is_no_record_is_named_and_ends_no_member(rig: Rig, topic: Topic, headers: bytes) -> None:
    member = rig.start(topic)
    with rig.database.connect() as connection:
        connection.execute(
            "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], array[0])",
            ([topic.name], [b"k"], [b"v"], [headers]),
        )
    assert "no record" in member.await_event("outbox.publish_failed")["error"]
    assert rig.publish(topic, [("square", n) for n in range(4)], fold="sum").result(20) == 14
    assert member.alive
