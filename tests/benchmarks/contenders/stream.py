"""No-op fan-outs of 100 at a given rate, beside what is measured: `stream TOPIC`.

Its stdin takes lines of JSON: {"tasks_per_s": 2000} goes on at that rate until the next line, 0 stops, {"fan_outs": 50}
writes so many as fast as they go. When it stops, and after such a batch, it says {"sent": fan-outs in all}.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

from fanfold_producer.kafka import KafkaConfig
from tests.benchmarks.records import Mould, Plain, echoes

WIDTH = 100


def main(topic: str) -> None:
    plain = Plain(KafkaConfig.from_env())
    mould = Mould(topic, echoes(WIDTH), "total")
    sent = 0
    pause_s: float | None = None
    due = 0.0
    print(json.dumps({"ready": True}), flush=True)
    while True:
        wait_s = None if pause_s is None else max(0.0, due - time.monotonic())
        for told in _told(wait_s):
            if told is None:
                return
            if "fan_outs" in told:
                for _ in range(told["fan_outs"]):
                    plain.queue(mould.cast()[1])
                sent += told["fan_outs"]
            rate = told.get("tasks_per_s", 0)
            pause_s = WIDTH / rate if rate else None
            due = time.monotonic()
            if pause_s is None:
                plain.flush()
                print(json.dumps({"sent": sent}), flush=True)
        # What could not be written in time is left out: a stream that catches up would be a series of bursts.
        if pause_s is not None and time.monotonic() >= due:
            plain.queue(mould.cast()[1])
            sent += 1
            due = max(due + pause_s, time.monotonic() - pause_s)


def _told(wait_s: float | None) -> Iterator[dict[str, Any] | None]:
    """The line that came within so many seconds, if one did; None at the end of stdin."""
    if select.select([sys.stdin], [], [], wait_s)[0]:
        line = sys.stdin.readline()
        yield json.loads(line) if line else None


if __name__ == "__main__":
    main(sys.argv[1])
