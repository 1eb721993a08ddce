"""A limit: what a bare consume loop takes, with nothing done to the records."""

from __future__ import annotations

from tests.benchmarks.contenders.consuming import Reading, options

_BATCH = 5000
_WAIT_S = 0.05


def main() -> None:
    asked = options()
    reading = Reading(asked.topic, asked.group)
    while reading.running:
        records = reading.records(_BATCH, _WAIT_S)
        if records:
            reading.finished(len(records))
    reading.consumer.close()


if __name__ == "__main__":
    main()
