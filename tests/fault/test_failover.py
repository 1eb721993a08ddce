"""A failover to a standby that lags: what was claimed before is void, whatever was said about it since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from fanfold_consumer.devstack import EmbeddedPostgres
from fanfold_sql import Fenced, Rewound
from fanfold_sql.migrate import migrate
from tests.sql.support import APPLIED, FanOutSpec, Worker
from tests.support.own_postgres import own_server, standby_of
from tests.support.wait import eventually

F = FanOutSpec(size=2)


class Pair:
    """A primary and a standby that stops following when it is told to."""

    def __init__(self, primary: EmbeddedPostgres, standby: EmbeddedPostgres, stack: ExitStack) -> None:
        self._primary = primary
        self._standby = standby
        self._stack = stack
        self._promoted = False

    def worker(self) -> Worker:
        server = self._standby if self._promoted else self._primary
        return Worker(self._stack.enter_context(psycopg.connect(server.dsn, autocommit=True)))

    def move(self, worker: Worker) -> None:
        """The same member, connected to the server that takes writes now."""
        worker.connection = self.worker().connection

    def stop_following(self) -> None:
        """When the standby has all there is."""
        with psycopg.connect(self._primary.dsn, autocommit=True) as primary:
            row = primary.execute("select pg_current_wal_lsn()").fetchone()
        assert row is not None
        with psycopg.connect(self._standby.dsn, autocommit=True) as standby:
            eventually(
                lambda: standby.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() == (True,),
                what="a standby that has replayed everything",
            )
            standby.execute("alter system set primary_conninfo = ''")
            standby.execute("select pg_reload_conf()")
            eventually(
                lambda: standby.execute("select count(*) from pg_stat_wal_receiver").fetchone() == (0,),
                what="a standby that follows no longer",
            )

    def fail_over(self) -> None:
        self._primary.kill()
        with psycopg.connect(self._standby.dsn, autocommit=True) as standby:
            assert standby.execute("select pg_promote()").fetchone() == (True,)
        self._promoted = True


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        primary = stack.enter_context(own_server({"max_connections": "20", "fsync": "off"}))
        migrate(primary.dsn)
        standby = stack.enter_context(standby_of(primary, {"fsync": "off"}))
        yield Pair(primary, standby, stack)


def test_a_claim_of_before_is_void_and_what_comes_after_has_epochs_that_were_never_given_out(pair: Pair) -> None:
    zombie, successor = pair.worker(), pair.worker()
    old = zombie.claim()
    pair.stop_following()
    taken = successor.claim()
    successor.commit([F.result(0)], partitions=[taken.at(2)])
    late = zombie.claim()
    assert zombie.check(F.result(0)) == ["duplicate"]

    pair.fail_over()
    pair.move(zombie)
    pair.move(successor)

    # The result is lost, and the row says again that the zombie holds the partition: to pass over it would lose it.
    with pytest.raises(Rewound):
        zombie.commit(partitions=[old.at(2)])
    assert zombie.one(
        "select vacant from fanfold.renew_partitions(%s, %s::int8[], %s::int8[])",
        (zombie.owner, [old.progress_id], [old.epoch]),
    ) == (True,)
    # Each claims as often as before: counted on, the zombie's epoch would be that of `late` again.
    successor.claim()
    again = zombie.claim()
    assert again.epoch != late.epoch
    # A call of before that is still under way, as a member repeats it while Postgres is away.
    with pytest.raises((Fenced, Rewound)):
        zombie.commit([F.result(1)], partitions=[late.at(3)])
    assert zombie.commit([F.result(0), F.result(1)], partitions=[again.at(3)]).outcomes == [APPLIED, APPLIED]
