"""`fanfold doctor` against a real PostgreSQL and a real PgBouncer: each check where it passes and where it does not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from fanfold_consumer import FleetConfig
from fanfold_consumer.devstack import EmbeddedPostgres
from fanfold_consumer.doctor import Finding
from fanfold_consumer.doctor.findings import Plan, examine
from fanfold_consumer.doctor.pgbouncer import PGBOUNCER_CHECKS, read_pooling
from fanfold_consumer.doctor.postgres import read_postgres
from fanfold_consumer.doctor.postgres_checks import POSTGRES_CHECKS
from fanfold_producer.kafka import KafkaConfig
from fanfold_sql import Store
from fanfold_sql.migrate import migrate
from tests.support.choose import chosen_postgres
from tests.support.database import Database
from tests.support.own_postgres import own_server, standby_of
from tests.support.pgbouncer import needs_pgbouncer, running_pgbouncer
from tests.support.wait import eventually

CONFIG = FleetConfig("g", ("t",), KafkaConfig("127.0.0.1:1"))
PLAN = Plan(members=1, config=CONFIG, database_cores=2)


def look(dsn: str, plan: Plan = PLAN, *, clock: Callable[[], float] = time.time) -> dict[str, Finding]:
    facts = asyncio.run(read_postgres(dsn, None, clock))
    return {finding.check: finding for finding in examine(POSTGRES_CHECKS, facts, plan)}


def look_at_pooler(dsn: str, config: FleetConfig = CONFIG) -> dict[str, Finding]:
    pooling = asyncio.run(read_pooling(dsn))
    return {f.check: f for f in examine(PGBOUNCER_CHECKS, pooling, replace(PLAN, config=config))}


def set_database(database: Database, setting: str, value: str) -> None:
    """For connections to come; a database's own setting, so nobody else is affected."""
    with database.connect() as connection:
        connection.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(database.name), sql.Identifier(setting), sql.Literal(value)
            )
        )


def test_a_worker_finds_nothing_against_a_sound_database(database: Database) -> None:
    set_database(database, "idle_in_transaction_session_timeout", "30s")
    found = look(database.worker_dsn)
    assert {name: f.value for name, f in found.items() if f.status != "ok"} == {}


def test_a_setting_of_the_role_counts_for_that_role_only(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("create role fanfold_test_lax login in role fanfold_worker")
        try:
            connection.execute("alter role fanfold_test_lax set synchronous_commit = off")
            lax = psycopg.conninfo.make_conninfo(database.dsn, user="fanfold_test_lax")
            if chosen_postgres().kind == "docker":
                pytest.skip("the container wants a password")
            assert look(lax)["postgres.durability"].status == "fail"
            assert look(database.worker_dsn)["postgres.durability"].status == "ok"
        finally:
            connection.execute("drop role fanfold_test_lax")


@pytest.mark.parametrize(
    ("check", "setting", "value", "status"),
    [
        ("server", "default_transaction_read_only", "on", "fail"),
        ("isolation", "default_transaction_isolation", "repeatable read", "fail"),
        ("durability", "synchronous_commit", "off", "fail"),
        ("idle-in-transaction", "idle_in_transaction_session_timeout", "0", "warn"),
        ("idle-in-transaction", "idle_in_transaction_session_timeout", "1h", "warn"),
    ],
)
def test_a_setting_that_members_would_have_is_found(
    database: Database, check: str, setting: str, value: str, status: str
) -> None:
    set_database(database, setting, value)
    assert look(database.worker_dsn)[f"postgres.{check}"].status == status


def test_a_database_that_was_never_migrated_fails_and_what_rests_on_it_is_skipped(empty_database: str) -> None:
    found = look(empty_database)
    assert found["postgres.migration"].status == "fail"
    assert found["postgres.privileges"].status == "skipped"


def test_a_procedure_of_another_release_is_seen_by_a_worker(database: Database) -> None:
    with database.connect() as connection:
        body = "create or replace function fanfold.ack_outbox(p_outbox_id bigint[]) returns void language sql as ''"
        connection.execute(body.encode())
    finding = look(database.worker_dsn)["postgres.migration"]
    assert (finding.status, finding.value) == ("fail", "not as in this release: ack_outbox")


def test_a_migration_that_is_missing_is_seen_by_whoever_may_read_the_table(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("delete from fanfold.migration where name = '0001_tables'")
    assert "0001_tables" in look(database.dsn)["postgres.migration"].value


def test_a_role_that_may_do_more_or_less_than_a_worker_is_found(database: Database) -> None:
    assert look(database.dsn)["postgres.privileges"].status == "warn"
    with database.connect() as connection:
        connection.execute("revoke usage on schema fanfold from fanfold_worker")
    finding = look(database.worker_dsn)["postgres.privileges"]
    assert finding.status == "fail"
    assert "may not execute" in finding.value


def test_a_worker_that_may_write_to_a_table_is_found(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("grant insert on fanfold.result to fanfold_worker")
    finding = look(database.worker_dsn)["postgres.privileges"]
    assert finding.status == "warn"
    assert finding.value.endswith("may write to 1 tables")


def test_pools_that_ask_for_more_connections_than_the_database_gives_are_found(database: Database) -> None:
    with database.connect() as connection:
        limit = sql.SQL("alter database {} connection limit 7").format(sql.Identifier(database.name))
        connection.execute(limit)
    finding = look(database.worker_dsn, replace(PLAN, members=2))["postgres.connections"]
    assert (finding.status, finding.bound) == ("fail", "≤ 7")
    assert look(database.worker_dsn)["postgres.connections"].status == "ok"


def test_pools_beyond_the_cores_are_found(database: Database) -> None:
    assert look(database.worker_dsn, replace(PLAN, members=100))["postgres.pool-size"].status == "warn"


@pytest.mark.parametrize(("ahead_s", "status"), [(0.0, "ok"), (3600.0, "warn"), (-3600.0, "warn")])
def test_a_clock_that_differs_from_the_databases_is_found(database: Database, ahead_s: float, status: str) -> None:
    finding = look(database.worker_dsn, clock=lambda: time.time() + ahead_s)["postgres.clock"]
    assert finding.status == status


def test_members_are_counted_by_the_partitions_they_hold_now(database: Database) -> None:
    async def claim() -> None:
        async with Store.open(database.worker_dsn, pool_size=1) as store:
            one, other = uuid4(), uuid4()
            for partition, (group, owner) in enumerate([("g", one), ("g", one), ("g", other), ("h", uuid4())]):
                await store.claim_partition(group, "c", "t", "id", partition, owner)

    asyncio.run(claim())
    counted = [asyncio.run(read_postgres(database.worker_dsn, group, time.time)).members for group in ("g", "h", None)]
    assert counted == [2, 1, 3]
    with database.connect() as connection:
        connection.execute("update fanfold.partition_progress set seen_at = now() - interval '1 minute'")
    assert asyncio.run(read_postgres(database.worker_dsn, None, time.time)).members == 0


# A server of one's own: what cannot be set for a database alone.


@pytest.fixture(scope="module")
def lax_server() -> Iterator[EmbeddedPostgres]:
    """A primary with a small lock table that does not sync, migrated, with a worker's role."""
    settings = {
        "max_connections": "20",
        "max_locks_per_transaction": "10",
        "fsync": "off",
        "full_page_writes": "off",
        "wal_keep_size": "256MB",
    }
    with own_server(settings) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("create role worker login in role fanfold_worker")
            admin.execute("create role watcher login in role fanfold_worker, pg_monitor")
        yield server


def test_a_lock_table_that_is_too_small_for_one_batch_is_found(lax_server: EmbeddedPostgres) -> None:
    dsn = lax_server.dsn_for("postgres", user="worker")
    finding = look(dsn)["postgres.lock-table"]
    assert (finding.status, finding.bound) == ("fail", "≤ 100, half of 10 × 20 locks")
    small = replace(PLAN, config=replace(CONFIG, batch_results_max=100))
    assert look(dsn, small)["postgres.lock-table"].status == "ok"


def test_a_server_that_does_not_sync_is_found(lax_server: EmbeddedPostgres) -> None:
    finding = look(lax_server.dsn_for("postgres", user="worker"))["postgres.durability"]
    assert (finding.status, finding.value) == ("fail", "fsync = off, full_page_writes = off")


def test_a_synchronous_standby_that_is_not_there_is_found(lax_server: EmbeddedPostgres) -> None:
    def found() -> str:
        return look(lax_server.dsn_for("postgres", user="worker"))["postgres.standbys"].status

    assert found() == "ok"
    with psycopg.connect(lax_server.dsn, autocommit=True) as admin:
        admin.execute("alter system set synchronous_standby_names = 'nobody'")
        admin.execute("select pg_reload_conf()")
        eventually(lambda: found() == "fail", what="the setting")
        admin.execute("alter system reset synchronous_standby_names")
        admin.execute("select pg_reload_conf()")
        eventually(lambda: found() == "ok", what="the setting taken back")


def test_a_standby_is_seen_by_who_may_and_found_when_it_is_behind(lax_server: EmbeddedPostgres) -> None:
    def standbys(user: str) -> Finding:
        return look(lax_server.dsn_for("postgres", user=user))["postgres.standbys"]

    with standby_of(lax_server, {"recovery_min_apply_delay": "1h"}) as standby:
        eventually(lambda: "(async) 0.0 s" in standbys("watcher").value, what="the standby")
        assert standbys("watcher").status == "ok"
        assert standbys("worker").status == "skipped"
        server = look(standby.dsn_for("postgres", user="worker"))["postgres.server"]
        assert server.status == "fail"
        assert server.value.endswith("a standby")
        with psycopg.connect(lax_server.dsn, autocommit=True) as admin:
            admin.execute("create table delayed ()")
            admin.execute(
                "select pg_logical_emit_message(false, 'x', repeat('x', 1 << 20)) from generate_series(1, 66)"
            )
        behind = eventually(lambda: (f := standbys("watcher")).status == "warn" and f, what="a standby that is behind")
        assert behind
        assert re.search(r" (6[4-9]|[7-9]\d)\.\d MiB behind", behind.value)


# Poolers.


def test_without_a_pooler_the_connection_is_direct(database: Database) -> None:
    found = look_at_pooler(database.worker_dsn)
    assert found["pgbouncer.mode"].value == "direct connection"
    assert {finding.status for finding in found.values()} == {"ok"}


@needs_pgbouncer
def test_transaction_pooling_is_recognised_and_all_of_postgres_can_be_looked_at_through_it(database: Database) -> None:
    set_database(database, "idle_in_transaction_session_timeout", "30s")
    with running_pgbouncer(database.worker_dsn) as through:
        mode = look_at_pooler(through)["pgbouncer.mode"]
        assert mode.status == "ok"
        assert mode.value.startswith("transaction pooling, PgBouncer 1.")
        found = look(through)
    skipped = {"postgres.connections", "postgres.pool-size"}
    assert {name: f.value for name, f in found.items() if f.status != "ok" and name not in skipped} == {}
    assert {name for name, f in found.items() if f.status == "skipped"} == skipped


@needs_pgbouncer
@pytest.mark.parametrize("settings", [{"default_pool_size": 1}, {"server_round_robin": 1}, {"stats_users": ""}])
def test_transaction_pooling_is_recognised_however_it_hands_servers_out(
    database: Database, settings: dict[str, Any]
) -> None:
    with running_pgbouncer(database.worker_dsn, **settings) as through:
        if "default_pool_size" not in settings:
            make_two_servers(through)
        assert look_at_pooler(through)["pgbouncer.mode"].value.startswith("transaction pooling")


def make_two_servers(through: str) -> None:
    """Two transactions at once, which leave two idle servers to choose from."""
    with psycopg.connect(through) as one, psycopg.connect(through) as other:
        assert one.execute("select pg_backend_pid()").fetchone() != other.execute("select pg_backend_pid()").fetchone()


@needs_pgbouncer
def test_session_pooling_is_recognised(database: Database) -> None:
    with running_pgbouncer(database.worker_dsn, pool_mode="session") as through:
        found = look_at_pooler(through)
    assert found["pgbouncer.mode"].value.startswith("session pooling")
    assert {finding.status for finding in found.values()} == {"ok"}


@needs_pgbouncer
def test_statement_pooling_is_refused(database: Database) -> None:
    with running_pgbouncer(database.worker_dsn, pool_mode="statement") as through:
        assert look_at_pooler(through)["pgbouncer.mode"].status == "fail"


@needs_pgbouncer
@pytest.mark.parametrize("round_robin", [0, 1])
def test_transaction_pooling_is_recognised_whichever_server_it_lends(database: Database, round_robin: int) -> None:
    with running_pgbouncer(database.worker_dsn, server_round_robin=round_robin) as through:
        make_two_servers(through)
        found = look_at_pooler(through)
    assert found["pgbouncer.mode"].value.startswith("transaction pooling")
    assert found["pgbouncer.mode"].status == "ok"
