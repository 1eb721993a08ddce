"""The same loop with one insert, one commit and one offset commit a message, as most tutorials have it."""

from __future__ import annotations

import ormsgpack
import psycopg

from tests.benchmarks.contenders.consuming import DATABASE_URL, Reading, options
from tests.benchmarks.contenders.handwritten import handle

UPSERT = (
    "insert into handwritten (thread_id, task_id, index, payload) values (%b, %b, %b, %b)"
    " on conflict (thread_id, task_id) do update set payload = excluded.payload"
)
_WAIT_S = 0.05


def main() -> None:
    asked = options()
    reading = Reading(asked.topic, asked.group)
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        while reading.running:
            # One at a time, which costs the client no request: it has fetched them already.
            for record in reading.records(1, _WAIT_S):
                task = ormsgpack.unpackb(record.value() or b"")
                result = ormsgpack.packb(handle(task["arg"]))
                connection.execute(UPSERT, (task["thread_id"], task["task_id"], task["index"], result), prepare=True)
                # Tutorials wait for the broker here, which is slower still.
                reading.consumer.commit(message=record, asynchronous=True)
                reading.finished(1)
    reading.consumer.close()


if __name__ == "__main__":
    main()
