"""A hand-written at-least-once consumer for handlers that wait.

One asyncio task for each record, at most `--limit` at once; what has finished is stored in one statement while more
finishes, and then the offsets below the first unfinished one are committed. It reads the records that the fleet reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import defaultdict
from typing import Any

import ormsgpack
import psycopg
from confluent_kafka import Message, TopicPartition

from tests.benchmarks.contenders.consuming import DATABASE_URL, Reading, options

READ_MAX = 500
POLL_S = 0.05

TABLES = """
create table if not exists slept (
    fan_out_id text collate "C", index int4, payload bytea not null, primary key (fan_out_id, index))
"""
_STORE = "insert into slept select * from unnest(%s::text[], %s::int4[], %s::bytea[]) on conflict do nothing"


async def sleep(arg: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic_ns()
    await asyncio.sleep(arg["seconds"])
    return {"begun": begun, "ended": time.monotonic_ns(), "slept": arg["seconds"], "text": arg["text"]}


class Sleeper:
    def __init__(self, reading: Reading, limit: int, connection: psycopg.AsyncConnection[Any]) -> None:
        self._reading = reading
        self._connection = connection
        self._places = asyncio.Semaphore(limit)
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: list[tuple[int, int, str, int, bytes]] = []
        self._news = asyncio.Event()
        self._unfinished: dict[int, set[int]] = defaultdict(set)
        self._next: dict[int, int] = {}

    async def read(self) -> None:
        """Read as much as there are places for."""
        while True:
            await self._places.acquire()
            room = 1
            while room < READ_MAX and not self._places.locked():
                await self._places.acquire()
                room += 1
            messages = await asyncio.to_thread(self._poll, room)
            for _ in range(room - len(messages)):
                self._places.release()
            for message in messages:
                task = asyncio.create_task(self._handle(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def store(self) -> None:
        """Store what has finished, for as long as something does."""
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._finished = self._finished, []
            _, _, ids, indexes, payloads = zip(*batch, strict=True)
            await self._connection.execute(_STORE, (list(ids), list(indexes), list(payloads)), binary=True)
            for partition, offset, *_ in batch:
                self._unfinished[partition].discard(offset)
            offsets = [
                TopicPartition(
                    self._reading.topic, partition, min(self._unfinished[partition], default=self._next[partition])
                )
                for partition in {partition for partition, *_ in batch}
            ]
            self._reading.consumer.commit(offsets=offsets, asynchronous=True)

    def _poll(self, room: int) -> list[Message]:
        first = self._reading.consumer.poll(POLL_S)
        if first is None or first.error() is not None:
            return []
        messages = [first, *self._reading.records(room - 1, 0)] if room > 1 else [first]
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            self._unfinished[partition].add(offset)
            self._next[partition] = offset + 1
        return messages

    async def _handle(self, message: Message) -> None:
        task = ormsgpack.unpackb(message.value() or b"")
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        del message
        try:
            payload = ormsgpack.packb(await sleep(task["arg"]))
        finally:
            self._places.release()
        self._finished.append((partition, offset, task["fan_out"]["id"], task["index"], payload))
        self._news.set()


async def main() -> None:
    asked = options("limit")
    reading = Reading(asked.topic, asked.group)
    connection = await psycopg.AsyncConnection.connect(DATABASE_URL, autocommit=True)
    connection.prepare_threshold = 0
    sleeper = Sleeper(reading, asked.limit, connection)
    both = asyncio.gather(sleeper.read(), sleeper.store())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, both.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await both


if __name__ == "__main__":
    asyncio.run(main())
