"""The loop that a competent user writes: at least once, a batch at a time, one upsert for all of it.

What was tried, by processor time per task of client and server together, which is what runs out first: batches of 200,
500 and 1,000 cost more, 5,000 the same, 10,000 a little more; arrays in text instead of binary nearly twice as much;
`executemany` in place of `unnest` about twice; COPY into a temporary table and an insert from there the same; waiting
for the broker with each offset commit the same, and time besides.
"""

from __future__ import annotations

from typing import Any

import ormsgpack
import psycopg

from tests.benchmarks.contenders.consuming import DATABASE_URL, Reading, options

UPSERT = (
    "insert into handwritten (thread_id, task_id, index, payload)"
    " select * from unnest(%b::text[], %b::text[], %b::int4[], %b::bytea[])"
    " on conflict (thread_id, task_id) do update set payload = excluded.payload"
)
_WAIT_S = 0.05


def handle(arg: Any) -> Any:
    return arg


def main() -> None:
    asked = options("batch")
    reading = Reading(asked.topic, asked.group)
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        while reading.running:
            records = reading.records(asked.batch, _WAIT_S)
            if not records:
                continue
            threads, ids, indexes, payloads = [], [], [], []
            for record in records:
                task = ormsgpack.unpackb(record.value() or b"")
                threads.append(task["thread_id"])
                ids.append(task["task_id"])
                indexes.append(task["index"])
                payloads.append(ormsgpack.packb(handle(task["arg"])))
            connection.execute(UPSERT, (threads, ids, indexes, payloads), prepare=True)
            # The results are in the table by now, so it is at least once without waiting for an answer, too.
            reading.consumer.commit(asynchronous=True)
            reading.finished(len(records))
    reading.consumer.close()


if __name__ == "__main__":
    main()
