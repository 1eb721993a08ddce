"""PgBouncer in transaction mode between everything and Postgres: all of it works, and what befalls the pooler passes.

Its pools are so small that everybody is served by the same server connections. The files that `tests/conftest.py` lists
run through it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from fanfold_consumer import Registry, TaskContext
from fanfold_producer import FanOutCancelled, Publisher, enqueue
from fanfold_sql.errors import PreparedLost, translate
from fanfold_sql.pool import open_pool
from tests.support.database import Database
from tests.support.handlers import declare
from tests.support.kafka import Broker, Topic
from tests.support.pgbouncer import PgBouncer, needs_pgbouncer, pgbouncer_for
from tests.support.rig import Rig, rig_for
from tests.support.wait import eventually

pytestmark = needs_pgbouncer

MakeRig: TypeAlias = Callable[[PgBouncer], AbstractContextManager[Rig]]


@pytest.fixture
def bouncer(database: Database) -> Iterator[PgBouncer]:
    """With two server connections."""
    with pgbouncer_for(database.worker_dsn, default_pool_size=2) as bouncer:
        yield bouncer


@pytest.fixture
def make_rig(broker: Broker, database: Database, tmp_path: Path, topic: Topic) -> MakeRig:
    del topic  # it goes after the members

    def make(bouncer: PgBouncer) -> AbstractContextManager[Rig]:
        pooled = replace(database, worker_dsn=bouncer.through(database.worker_dsn))
        return rig_for(broker.config, pooled, tmp_path, atomic=broker.is_real_kafka)

    return make


@pytest.fixture
def pooled_rig(make_rig: MakeRig, bouncer: PgBouncer) -> Iterator[Rig]:
    with make_rig(bouncer) as rig:
        yield rig


def _session_state(dsn: str) -> dict[str, Any]:
    """What is left on a server connection, besides the few settings that PgBouncer keeps apart itself."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:

        def count(query: str) -> int:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            found: int = row[0]
            return found

        return {
            "prepared statements": count("select count(*) from pg_prepared_statements"),
            "advisory locks": count("select count(*) from pg_locks where locktype = 'advisory'"),
            "temporary tables": count("select count(*) from pg_class where relpersistence = 't'"),
            "listening": count("select count(*) from pg_listening_channels()"),
            "cursors": count("select count(*) from pg_cursors where is_holdable"),
        }


@pytest.mark.parametrize("prepare", [True, False], ids=["by itself", "--no-prepare"])
def test_one_server_connection_serves_everything_and_nothing_is_left_on_it(
    make_rig: MakeRig, database: Database, broker: Broker, topic: Topic, prepare: bool
) -> None:
    with pgbouncer_for(database.worker_dsn, default_pool_size=1) as bouncer, make_rig(bouncer) as rig:
        registry = declare(Registry(), rig.notes)

        @registry.task("second-time", retries=2, backoff=0.01)
        async def second_time(n: int, context: TaskContext) -> int:
            if context.attempt < 2:
                raise ConnectionError("not yet")
            return n

        @registry.task("never", retries=0)
        def never(_: Any) -> None:
            raise ValueError("no")

        members = [rig.start_here(topic, registry=registry, prepare=prepare) for _ in range(2)]
        publisher = Publisher(
            broker.config, database_url=rig.database.worker_dsn, prepare=prepare, atomic=broker.is_real_kafka
        )
        with publisher, psycopg.connect(rig.database.worker_dsn) as connection:
            queued = enqueue(connection, "t1", [("square", n) for n in range(50)], topic=topic.name, fold="sum")
            connection.commit()
            folded = publisher.fan_out("t2", [("second-time", n) for n in range(100)], topic=topic.name, fold="total")
            nested = publisher.fan_out("t3", [("fork", 5)], topic=topic.name)
            parked = publisher.fan_out("t4", [("never", None), ("square", 2)], topic=topic.name)
            held = publisher.fan_out("t5", [("hold", {"n": 1, "gate": "g"}), ("square", 2)], topic=topic.name)
            assert folded.result(30) == sum(range(100))
            assert nested.result(30) == [5]
            assert parked.result(30, return_failures=True)[1] == 4
            eventually(lambda: rig.fold_value(queued.fan_out_id) == sum(n * n for n in range(50)))
            eventually(lambda: rig.fan_out(held.fan_out_id), what="a result of the fan-out to cancel")
            assert held.cancel()
            rig.notes.open_gate("g")
            with pytest.raises(FanOutCancelled):
                held.result(10)
        assert [letter.code for letter in rig.await_dead_letters(1)] == ["E_HANDLER"]
        rig.assert_sound()
        (pool,) = (pool for pool in bouncer.command("show pools") if pool["database"] == database.name)
        assert pool["cl_active"] > 2
        assert pool["sv_active"] + pool["sv_idle"] + pool["sv_used"] <= 1
        assert set(_session_state(rig.database.worker_dsn).values()) == {0}
        for member in members:
            member.stop()


def test_a_direct_connection_prepares_and_one_through_the_pooler_does_not(
    database: Database, bouncer: PgBouncer
) -> None:
    async def prepared(dsn: str) -> int:
        async with open_pool(dsn, size=1) as pool, pool.connection() as connection:
            for _ in range(5):
                await connection.execute("select 1")
            row = await (await connection.execute("select count(*) from pg_prepared_statements")).fetchone()
            assert row is not None
            count: int = row[0]
            return count

    assert asyncio.run(prepared(database.worker_dsn)) > 0
    assert asyncio.run(prepared(bouncer.through(database.worker_dsn))) == 0


@pytest.mark.parametrize("statement", ["prepare mine as select 2", "execute another"])
def test_statements_that_were_mixed_up_all_the_same_are_told_with_what_to_do(
    database: Database, statement: str
) -> None:
    with psycopg.connect(database.worker_dsn, autocommit=True) as connection:
        connection.execute("prepare mine as select 1")
        with pytest.raises(psycopg.Error) as mixed_up:
            connection.execute(statement.encode())
    error = translate(mixed_up.value)
    assert isinstance(error, PreparedLost)
    assert "--no-prepare" in str(error)


def test_a_pooler_that_is_killed_in_mid_flight_and_comes_back_loses_nothing(
    pooled_rig: Rig, bouncer: PgBouncer, topic: Topic
) -> None:
    rig = pooled_rig
    member = rig.start(topic, concurrency=8, in_flight_max=100)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.02}) for n in range(300)], fold="sum")
    eventually(lambda: rig.count_results() >= 30)
    bouncer.kill()
    assert "connection" in member.await_event("store.unavailable")["error"]
    bouncer.start()
    assert handle.result(60) == sum(range(300))
    member.await_event("store.recovered")
    assert rig.dead_letters() == []
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_a_member_waits_while_its_pooler_is_paused_and_goes_on(
    pooled_rig: Rig, bouncer: PgBouncer, topic: Topic
) -> None:
    rig = pooled_rig
    member = rig.start(topic, concurrency=8, in_flight_max=100)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.02}) for n in range(200)], fold="sum")
    eventually(lambda: rig.count_results() >= 30)
    bouncer.command(f"pause {rig.database.name}")
    stored = rig.count_results()
    eventually(lambda: rig.notes.calls("ended")[stored + 8 :], what="results that wait for their commit")
    assert rig.count_results() == stored
    bouncer.command(f"resume {rig.database.name}")
    assert handle.result(60) == sum(range(200))
    assert not member.events("store.unavailable")
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_server_connections_that_are_replaced_under_load_are_not_noticed(
    pooled_rig: Rig, bouncer: PgBouncer, topic: Topic
) -> None:
    rig = pooled_rig
    member = rig.start(topic, concurrency=8, in_flight_max=100)
    # Not `reconnect`: a server connection that is still being made would go, too, which counts as one that fails.
    bouncer.settings |= {"server_lifetime": 1}
    bouncer.write()
    bouncer.command("reload")
    servers: set[int] = set()
    with rig.database.connect() as connection:

        def work_and_look() -> bool:
            handle = rig.publish(topic, [("slow", {"n": n, "s": 0.02}) for n in range(100)], fold="sum")
            assert handle.result(60) == sum(range(100))
            rows = connection.execute(
                "select pid from pg_stat_activity where application_name = 'fanfold' and datname = current_database()"
            )
            servers.update(pid for (pid,) in rows)
            return len(servers) >= 6

        eventually(work_and_look, 60.0, what="server connections that took the place of others")
    assert not member.events("store.unavailable")
    assert rig.dead_letters() == []
    assert rig.notes.again() == 0
    rig.assert_sound()


def test_server_connections_cut_behind_the_pooler_lose_nothing_and_count_nothing_twice(
    pooled_rig: Rig, topic: Topic
) -> None:
    rig = pooled_rig
    member = rig.start(topic, concurrency=8, in_flight_max=100)
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.01}) for n in range(400)], fold="sum")
    eventually(lambda: rig.count_results() >= 20)
    with rig.database.connect() as connection:

        def told_of_it() -> bool:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'fanfold' and datname = current_database() and state = 'active'"
            )
            return bool(member.events("store.unavailable"))

        eventually(told_of_it, what="a server connection cut in mid-statement")
    assert handle.result(60) == sum(range(400))
    assert rig.dead_letters() == []
    rig.assert_sound()
