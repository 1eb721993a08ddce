"""A server that crashes, and commits that are visible before they are on disk: no claim outlives what may be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from fanfold_consumer.devstack import EmbeddedPostgres
from fanfold_schemas import Outcome
from fanfold_sql import CommitBatch, CommitReply, Finished, Rewound, Store, StoreUnavailable
from fanfold_sql.commit import COMMIT_RESULTS, commit_parameters
from fanfold_sql.migrate import migrate
from tests.sql.support import APPLIED, DUPLICATE, STALE, FanOutSpec, Worker
from tests.support.own_postgres import own_server
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer_for
from tests.support.wait import eventually

_NOBODY_ELSE_FLUSHES = {
    "max_connections": "20",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
    "autovacuum": "off",
    "bgwriter_delay": "10s",
}
_BEGIN_LIFE = "select fanfold.begin_life()"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with own_server(_NOBODY_ELSE_FLUSHES) as server:
        migrate(server.dsn)
        yield server


@pytest.fixture
def fan_out() -> FanOutSpec:
    """One of a test's own, in a thread of its own."""
    name = f"f-{uuid4()}"
    return FanOutSpec(id=name, thread_id=name, size=2)


def _worker(server: EmbeddedPostgres) -> Worker:
    return Worker(psycopg.connect(server.dsn, autocommit=True))


def _restart(server: EmbeddedPostgres, *workers: Worker, crash: bool) -> None:
    """After a crash it recovers from its log. The workers connect anew."""
    if crash:
        server.kill()
    else:
        server.stop()
    server.start()
    for worker in workers:
        worker.connection.close()
        worker.connection = _worker(server).connection


def _commit_but_do_not_flush(worker: Worker, *results: Finished) -> None:
    """As far as a member has come that commits with early release and is waiting for the disk."""
    with worker.connection.transaction():
        worker.connection.execute("set local synchronous_commit = off")
        worker.connection.execute(COMMIT_RESULTS, commit_parameters(CommitBatch(list(results)), 0), binary=True)


def _commit(dsn: str, *results: Finished, early_lock_release: bool = True) -> CommitReply:
    async def commit() -> CommitReply:
        async with Store.open(dsn, pool_size=1, early_lock_release=early_lock_release) as store:
            return await store.commit(CommitBatch(list(results)))

    return asyncio.run(commit())


def test_what_was_skipped_as_known_and_then_lost_in_a_crash_is_not_passed_over(
    server: EmbeddedPostgres, fan_out: FanOutSpec
) -> None:
    writer, reader = _worker(server), _worker(server)
    writer.one(_BEGIN_LIFE)
    held = reader.claim()
    _commit_but_do_not_flush(writer, fan_out.result(0))
    assert reader.check(fan_out.result(0)) == ["duplicate"]

    _restart(server, writer, reader, crash=True)

    assert reader.check(fan_out.result(0)) == [None], "the disk had it: the crash came too late to show anything"
    with pytest.raises(Rewound):
        reader.commit(partitions=[held.at(1)])
    assert reader.commit([fan_out.result(0)], partitions=[reader.claim().at(1)]).outcomes == [APPLIED]


def test_who_owns_partitions_but_has_nothing_to_commit_hears_of_a_crash(server: EmbeddedPostgres) -> None:
    worker = _worker(server)
    worker.one(_BEGIN_LIFE)
    held = worker.claim()
    _restart(server, worker, crash=True)
    assert worker.one(
        "select vacant from fanfold.renew_partitions(%s, %s::int8[], %s::int8[])",
        (worker.owner, [held.progress_id], [held.epoch]),
    ) == (True,)


def test_a_clean_restart_is_no_crash_and_claims_stand(server: EmbeddedPostgres, fan_out: FanOutSpec) -> None:
    worker = _worker(server)
    worker.one(_BEGIN_LIFE)
    held = worker.claim()
    _restart(server, worker, crash=False)
    assert worker.commit([fan_out.result(0)], partitions=[held.at(1)]).outcomes == [APPLIED]


def test_claims_stand_over_a_crash_where_nobody_releases_early(server: EmbeddedPostgres, fan_out: FanOutSpec) -> None:
    worker = _worker(server)
    _restart(server, worker, crash=True)
    held = worker.claim()
    _restart(server, worker, crash=True)
    assert worker.commit([fan_out.result(0)], partitions=[held.at(1)]).outcomes == [APPLIED]


def test_the_first_early_commit_voids_the_claims_of_those_who_would_not_notice_a_crash(
    server: EmbeddedPostgres, fan_out: FanOutSpec
) -> None:
    worker = _worker(server)
    _restart(server, worker, crash=True)
    held = worker.claim()
    assert _commit(server.dsn, fan_out.result(0)).outcomes == [APPLIED]
    with pytest.raises(Rewound):
        worker.commit(partitions=[held.at(1)])
    assert worker.commit([fan_out.result(1)], partitions=[worker.claim().at(1)]).outcomes == [APPLIED]


def test_a_commit_with_early_release_is_on_disk_when_it_is_answered(
    server: EmbeddedPostgres, fan_out: FanOutSpec
) -> None:
    assert _commit(server.dsn, fan_out.result(0)).outcomes == [APPLIED]
    worker = _worker(server)
    _restart(server, worker, crash=True)
    assert worker.check(fan_out.result(0)) == ["duplicate"]


@pytest.mark.parametrize(("counter", "answer"), [(2, DUPLICATE), (1, STALE)])
def test_what_an_answer_rests_on_is_on_disk_even_if_nothing_was_written(
    server: EmbeddedPostgres, fan_out: FanOutSpec, counter: int, answer: Outcome
) -> None:
    worker = _worker(server)
    known = fan_out.but(id=f"{fan_out.id}-2", base=(("main", 2),)).result(0)
    _commit_but_do_not_flush(worker, known)
    # Whoever has no partitions relies on this answer alone, whether or not it releases locks early itself.
    asked = fan_out.but(id=f"{fan_out.id}-{counter}", base=(("main", counter),)).result(0)
    assert _commit(server.dsn, asked, early_lock_release=False).outcomes == [answer]
    _restart(server, worker, crash=True)
    assert worker.check(known) == ["duplicate"]


def test_a_thread_is_free_while_its_commit_still_waits_and_a_crash_leaves_that_unanswered(
    server: EmbeddedPostgres, fan_out: FanOutSpec
) -> None:
    worker = _worker(server)
    # A flush that never ends: it waits for a standby, too.
    worker.connection.execute("alter system set synchronous_standby_names = 'nobody'")
    worker.connection.execute("select pg_reload_conf()")
    with ThreadPoolExecutor() as others:
        unanswered = others.submit(_commit, server.dsn, fan_out.result(0))
        try:
            eventually(lambda: worker.check(fan_out.result(0)) == ["duplicate"], what="a commit that is visible")
            lock = "select pg_try_advisory_xact_lock(hashtextextended(%s, 4207))"
            assert worker.one(lock, (fan_out.thread_id,)) == (True,)
            assert not unanswered.done()
        finally:
            worker.connection.execute("alter system reset synchronous_standby_names")
            _restart(server, worker, crash=True)
        assert isinstance(unanswered.exception(30), StoreUnavailable)


@needs_pgbouncer
def test_a_crash_between_commit_and_answer_is_not_hidden_by_a_pooler(
    server: EmbeddedPostgres, fan_out: FanOutSpec
) -> None:
    # A second statement to wait for the disk would be given to the server that came after the crash, and succeed.
    worker = _worker(server)
    database = worker.connection.info.dbname
    lock = "select {}(hashtextextended(%s, 4207))"
    with ThreadPoolExecutor() as others, pgbouncer_for(server.dsn) as bouncer:
        worker.one(lock.format("pg_advisory_lock"), (fan_out.thread_id,))
        answer: Future[CommitReply] = others.submit(_commit, bouncer.through(server.dsn), fan_out.result(0))
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        eventually(lambda: worker.one(waiting) == (1,), what="a commit that waits for its thread")
        # From here on no statement begins, and this returns when none is under way.
        paused = others.submit(bouncer.command, f"pause {database}")
        eventually(lambda: any(d["paused"] for d in bouncer.command("show databases")), what="a pooler that pauses")
        worker.one(lock.format("pg_advisory_unlock"), (fan_out.thread_id,))
        paused.result(30)
        _restart(server, worker, crash=True)
        bouncer.command(f"resume {database}")
        assert answer.result(30).outcomes == [APPLIED]
    assert worker.check(fan_out.result(0)) == ["duplicate"]
