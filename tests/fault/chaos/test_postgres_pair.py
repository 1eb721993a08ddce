"""The failovers, crashes and slow flushes that campaigns are made of are real ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fanfold_consumer.devstack import free_port
from fanfold_consumer.devstack.ports import LOOPBACK
from fanfold_sql import Rewound, StoreUnavailable
from tests.fault.chaos.links import Fault, Link
from tests.fault.chaos.pooler import Pooler
from tests.fault.chaos.postgres_pair import DATABASE, OWNER, WORKER, PostgresPair
from tests.sql.support import APPLIED, DUPLICATE, FanOutSpec, Worker
from tests.support.pgbouncer import needs_pgbouncer

SLOW_MS = 80.0


@dataclass(slots=True)
class Followed:
    """A pair, and who else is told that its primary is another one."""

    pair: PostgresPair
    pooler: Pooler | None = None


@pytest.fixture(scope="module")
def followed() -> Iterator[Followed]:
    """Shared: whatever a test does to it, it is a primary and a standby again afterwards."""

    def moved(port: int) -> None:
        if found.pooler is not None:
            found.pooler.point_at(port)
            found.pooler.reload()

    found = Followed(PostgresPair(moved))
    try:
        found.pair.start()
        yield found
    finally:
        found.pair.stop()


@pytest.fixture
def pair(followed: Followed) -> PostgresPair:
    followed.pair.rows("drop table if exists marks")
    followed.pair.rows("create table marks (n integer)")
    return followed.pair


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _worker(dsn: str, stack: ExitStack) -> Worker:
    connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    return Worker(stack.enter_context(connection))


def _dsn(pair: PostgresPair) -> str:
    return pair.primary.dsn_for(DATABASE, user=WORKER)


def test_a_failover_loses_commits_that_were_acknowledged_and_starts_a_new_timeline(
    pair: PostgresPair, stack: ExitStack
) -> None:
    tasks = FanOutSpec(id="lost", thread_id="lost")
    worker = _worker(_dsn(pair), stack)
    held = worker.claim()
    held = held.after(worker.commit([tasks.result(0)], partitions=[held.at(1)]))
    pair.await_caught_up()
    pair.stop_following()
    held = held.after(worker.commit([tasks.result(1)], partitions=[held.at(2)]))

    old_port = pair.primary.port
    done = pair.fail_over(lose=False)

    assert done.lost_commits == 1
    assert done.now != done.was
    assert pair.primary.port != old_port
    assert pair.rows("select index from fanfold.result where fan_out_id = 'lost'") == [(0,)]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://{OWNER}@{LOOPBACK}:{old_port}/{DATABASE}", connect_timeout=2)
    with pytest.raises(Rewound):
        _worker(_dsn(pair), stack).commit(partitions=[held.at(3)], owner=worker.owner)


def test_after_a_failover_there_is_a_standby_again_that_has_everything(pair: PostgresPair) -> None:
    pair.rows("insert into marks values (1)")
    pair.await_caught_up()
    pair.fail_over(lose=False)
    pair.rows("insert into marks values (2)")
    pair.await_caught_up()
    assert pair.rows("select n from marks order by n", standby=True) == [(1,), (2,)]


def test_an_immediate_stop_keeps_what_was_committed(pair: PostgresPair) -> None:
    pair.rows("insert into marks values (1)")
    pair.stop_immediate_and_start()
    assert pair.rows("select n from marks") == [(1,)]
    assert "not properly shut down" in pair.primary.log_path.read_text()


def test_slow_flushes_slow_commits_down_and_nothing_once_they_are_over(pair: PostgresPair) -> None:
    write = "select pg_logical_emit_message(true, 'test', 'x')"
    with pair.slow_fsync(SLOW_MS):
        assert pair.timed_ms(write) >= SLOW_MS
    assert min(pair.timed_ms(write) for _ in range(5)) < SLOW_MS


def test_while_replay_is_paused_the_standby_receives_and_does_not_show(pair: PostgresPair) -> None:
    pair.await_caught_up()
    with pair.replay_paused():
        pair.rows("insert into marks values (1)")
        assert pair.await_lag_bytes() > 0
        assert pair.rows("select n from marks", standby=True) == []
    pair.await_caught_up()
    assert pair.rows("select n from marks", standby=True) == [(1,)]


def test_a_killed_backend_takes_the_others_with_it(pair: PostgresPair, stack: ExitStack) -> None:
    workers = [_worker(_dsn(pair), stack) for _ in range(2)]
    assert pair.kill_backend() in {worker.connection.info.backend_pid for worker in workers}
    for worker in workers:
        with pytest.raises(psycopg.OperationalError):
            worker.connection.execute("select 1")
    assert _worker(_dsn(pair), stack).connection.execute("select 1").fetchone() == (1,)


@needs_pgbouncer
def test_clients_reach_the_new_primary_through_link_and_pooler_at_the_same_address(
    pair: PostgresPair, followed: Followed, stack: ExitStack
) -> None:
    tasks = FanOutSpec(id="pooled", thread_id="pooled")
    followed.pooler = pooler = Pooler(DATABASE, (WORKER, OWNER), OWNER)
    pooler.point_at(pair.primary.port)
    stack.callback(pooler.kill)
    pooler.start()
    link = stack.enter_context(Link(free_port(), lambda: (LOOPBACK, pooler.port), random.Random(1)))
    dsn = make_conninfo(_dsn(pair), port=link.port)

    worker = _worker(dsn, stack)
    with link.during(Fault("cut_after_request", b"fanfold.commit_results(")), pytest.raises(StoreUnavailable):
        worker.commit([tasks.result(0)])
    assert _worker(dsn, stack).outcomes(tasks.result(0)) == [DUPLICATE]
    pair.await_caught_up()
    pair.fail_over(lose=False)
    assert _worker(dsn, stack).outcomes(tasks.result(0)) == [DUPLICATE]
    pooler.kill()
    with pytest.raises(psycopg.OperationalError):
        _worker(dsn, stack)
    pooler.start()
    assert _worker(dsn, stack).outcomes(tasks.result(1)) == [APPLIED]
