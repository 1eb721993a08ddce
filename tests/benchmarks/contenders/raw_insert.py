"""A limit: what Postgres takes of the same rows, inserted as fast as one connection can and nothing else done.

Arrays are encoded before the clock starts, so that only the server and the way to it are measured. The rows are those
that a backlog comes to, in a table of the shape of `fanfold.result`: columns, constraints, indexes, storage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format

from tests.benchmarks.backlog import Row, result_rows
from tests.benchmarks.contenders.consuming import DATABASE_URL, say

INSERT = (
    b"insert into raw_insert (thread_id, task_id, fan_out_id, index, run, status, arg_hash, payload)"
    b" select thread_id, task_id, fan_out_id, index, 1, 'done', arg_hash, payload"
    b" from unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::int8[], $6::bytea[])"
    b" as of_batch (thread_id, task_id, fan_out_id, index, arg_hash, payload)"
)
_NAME = b"raw_insert"
_COLUMNS = ("thread_id", "task_id", "fan_out_id", "index", "arg_hash", "payload")
_BINARY = [PyFormat.BINARY] * len(_COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    rows = list(result_rows(options.rows))
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        transformer = Transformer(connection)
        batches = [
            [
                bytes(column or b"")
                for column in transformer.dump_sequence(_columns(rows[first : first + options.batch]), _BINARY)
            ]
            for first in range(0, len(rows), options.batch)
        ]
        server = connection.pgconn
        server.prepare(_NAME, INSERT, transformer.types)
        say(ready=len(rows))
        sys.stdin.readline()
        for batch in batches:
            result = server.exec_prepared(_NAME, batch, [Format.BINARY] * len(_COLUMNS))
            if result.status != ExecStatus.COMMAND_OK:
                raise RuntimeError(f"the insert failed: {result.error_message.decode(errors='replace')}")
        say(done=len(rows))
        # Ended by the parent, so that the end of a process is in nobody's measured time.
        sys.stdin.readline()


def _columns(rows: Sequence[Row]) -> list[list[object]]:
    return [[getattr(row, name) for row in rows] for name in _COLUMNS]


if __name__ == "__main__":
    main()
