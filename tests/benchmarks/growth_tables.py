"""Tables as they are after a while: filled by plain SQL, in the order and with the kind of ids that members leave
behind; and what a look at them says of the commits since another look."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, Self
from uuid import UUID

import psycopg

from tests.benchmarks.commits import wal_bytes

WIDTH = 100
BRANCH, COUNTER = "main", 1
BASE = {BRANCH: COUNTER}
"""The clock of every thread, and the base of every fan-out: nothing is stale, no clock moves."""

_FAN_OUTS_A_COMMIT = 1_000

# Ids of fan-outs ascend in time (UUIDv7, one a second up to now), those of tasks are as random as UUIDv5. Which thread
# a fan-out is of follows no order.
_FILL = """
with opened as (
    insert into fanfold.fan_out (fan_out_id, thread_id, size, remaining, base, fold, topic, completed_at, folded_at)
    select uuidv7((%(no)s - %(of)s + n) * interval '1 second'), md5('thread-' || floor(random() * %(threads)s))::uuid,
        %(width)s, 0, jsonb_build_object(%(branch)s::text, %(counter)s::int8), 'count', 'bench', now(), now()
    from generate_series(1, %(fan_outs)s) n
    returning fan_out_id, thread_id)
insert into fanfold.result (thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload)
select o.thread_id, gen_random_uuid(), o.fan_out_id, index, 1, 'done', (random() * 1e18)::int8, %(payload)s
from opened o cross join generate_series(0, %(width)s - 1) index"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Counters of the server and one database, or what they moved by.

    Attributes:
        wal_pages: pages written to the WAL as a whole, because they were changed for the first time after a checkpoint.
        fan_out_hot, progress_hot: how many of the updates touched no index.
    """

    wal_bytes: int
    wal_pages: int
    heap_bytes: int
    index_bytes: int
    fan_out_updates: int
    fan_out_hot: int
    progress_updates: int
    progress_hot: int

    @classmethod
    def of(cls, connection: psycopg.Connection[Any]) -> Self:
        row = connection.execute(
            "select s.wal_fpi, pg_relation_size(r.oid), pg_indexes_size(r.oid),"
            " f.n_tup_upd, f.n_tup_hot_upd, p.n_tup_upd, p.n_tup_hot_upd"
            " from pg_stat_wal s, pg_class r, pg_stat_user_tables f, pg_stat_user_tables p"
            " where r.oid = 'fanfold.result'::regclass and f.relid = 'fanfold.fan_out'::regclass"
            " and p.relid = 'fanfold.partition_progress'::regclass"
        ).fetchone()
        assert row is not None
        return cls(wal_bytes(connection), *row)

    def since(self, earlier: Self) -> Self:
        return type(self)(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))


def thread_id(number: int) -> str:
    """As the SQL above names thread `number`."""
    return str(UUID(bytes=hashlib.md5(f"thread-{number}".encode(), usedforsecurity=False).digest()))


def fill(dsn: str, results: int, threads: int, say: Callable[[str], None]) -> None:
    """So many results of complete fan-outs of 100 into an empty database.

    Args:
        results: a multiple of 100.
        threads: how many there are; each gets about the same number of fan-outs, or none.
    """
    fan_outs, payload = results // WIDTH, os.urandom(200)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute(
            "insert into fanfold.thread (thread_id, clock)"
            " select md5('thread-' || n)::uuid, jsonb_build_object(%s::text, %s::int8)"
            " from generate_series(0, %s - 1) n",
            (BRANCH, COUNTER, threads),
        )
        for done in range(0, fan_outs, _FAN_OUTS_A_COMMIT):
            connection.execute(
                _FILL,
                {
                    "no": done,
                    "of": fan_outs,
                    "threads": threads,
                    "width": WIDTH,
                    "branch": BRANCH,
                    "counter": COUNTER,
                    "fan_outs": min(_FAN_OUTS_A_COMMIT, fan_outs - done),
                    "payload": payload,
                },
            )
            written = (done + _FAN_OUTS_A_COMMIT) * WIDTH
            if written % 1_000_000 == 0:
                say(f"filling a table: {written:,} of {results:,} results")
        connection.execute("vacuum (analyze)")
