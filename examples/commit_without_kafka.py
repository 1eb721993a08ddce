"""One result, committed from a script: no Kafka, no fleet, the same procedure with the same answers.

DATABASE_URL names a migrated database. Run it twice: the second time each commit is a `duplicate` and changes nothing.
"""

from __future__ import annotations

import os

import psycopg

COMMIT = (
    "select outcome, completed from fanfold.commit_result(p_thread_id => 'nightly', p_fan_out_id => 'nightly-1',"
    " p_size => 3, p_task_id => %s, p_index => %s, p_payload => %s)"
)

with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    for index, report in enumerate([b"sales", b"stock", b"staff"]):
        outcome, completed = connection.execute(COMMIT, (f"report-{index}", index, report)).fetchone() or ("", False)
        print(f"report-{index}: {outcome}{', and the fan-out is complete' if completed else ''}")
