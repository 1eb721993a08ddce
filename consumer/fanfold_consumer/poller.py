"""The one worker that owns the Kafka client. Nobody else touches it: the client serialises its calls, so a commit from
another thread would wait for a poll, and a poll for it.

Records go to the event loop in batches; what comes back are commands (seek, resume, mirror offsets), run between polls.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from fanfold_consumer.assignment import TopicPartition
from fanfold_consumer.events import log

POLL_S = 0.05
COMPANY_S = 0.001
"""How long a record waits for others. Those of one fan-out are in several partitions, and the broker answers with the
first that has any; taken apart, they cost a check and a commit for each partition."""
PATIENCE_S = 1.0
"""How long polling may simply wait for room. Beyond it partitions are paused and polling goes on, so that the group
hears from us; pausing at once would throw away what the client has fetched ahead, at every short wait."""
WATERMARK_S = 5.0
STALL_S = 30.0
SEEK_PATIENCE_S = 0.5
"""How long a partition may not be ready to seek before it is assigned anew."""
Command = Callable[[Consumer], None]
Offsets = dict[TopicPartition, int]


class Sink(Protocol):
    """What the poller tells the fleet. All are called on the event loop, but for `revoke`, which it awaits."""

    def on_records(self, messages: list[Message]) -> None: ...
    def on_assigned(self, keys: list[TopicPartition]) -> None: ...
    async def revoke(self, keys: list[TopicPartition]) -> Offsets: ...
    def on_lost(self, keys: list[TopicPartition]) -> None: ...
    def on_end(self, key: TopicPartition, offset: int) -> None: ...
    def on_partition_error(self, key: TopicPartition, error: KafkaError) -> None: ...
    def on_not_mirrored(self, keys: list[TopicPartition]) -> None: ...
    def on_fatal(self, why: str) -> None: ...


class Poller:
    """Polls on a thread of its own until closed.

    Args:
        incremental: whether the group's protocol hands out partitions incrementally.
        records_max: records handed to the loop at once.
        in_flight_max: records handed to the loop of which `done_with` was not told yet; never more.
        in_flight_bytes_max: bytes of their values; from there on no more are polled, so it is passed by one batch.
        revoke_timeout_s: how long a hand-over may keep the thread from polling.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        topics: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        *,
        incremental: bool,
        records_max: int,
        in_flight_max: int,
        in_flight_bytes_max: int,
        revoke_timeout_s: float,
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._loop = loop
        self._sink = sink
        self._incremental = incremental
        self._records_max = records_max
        self._in_flight_max = in_flight_max
        self._in_flight_bytes_max = in_flight_bytes_max
        self._revoke_timeout_s = revoke_timeout_s
        self._commands: SimpleQueue[Command] = SimpleQueue()
        # What was handed to the loop and what it is done with; the first is written by this thread, the second by the
        # loop, so each may be read by both. Their difference is what is in flight.
        self._handed = self._handed_bytes = 0
        self._done_with = self._done_with_bytes = 0
        self._welcome = True
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._renewing = threading.Event()
        self._paused_for_room = False
        # Paused because they are not claimed yet, or stopped: room does not resume these.
        self._held_back: set[TopicPartition] = set()
        # The latest start of each partition, by its callback; an older one that is still being tried is void.
        self._starting: dict[TopicPartition, Callable[[], None]] = {}
        # Where each was started.
        self._offsets: Offsets = {}
        self._mirror_fails = False
        self._polled_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="fanfold-poller", daemon=True)

    def start(self) -> None:
        self._polled_at = time.monotonic()
        self._thread.start()

    def set_welcome(self, welcome: bool) -> None:
        """Whether records may come at all."""
        self._welcome = welcome
        self._changed.set()

    def done_with(self, records: int, size: int) -> None:
        """So many of the records handed over, and bytes of their values, are in flight no more."""
        self._done_with_bytes += size
        self._done_with += records
        self._changed.set()

    def do(self, command: Command) -> None:
        """Run a command on the client, soon, on its own thread."""
        self._commands.put(command)

    def start_partition(
        self,
        key: TopicPartition,
        offset: int,
        started: Callable[[], None],
        failed: Callable[[KafkaException], None],
    ) -> None:
        """Seek to an offset and let records come. Right after an assignment the client may not be ready to seek yet:
        then it is tried again, unless the partition was held or started anew meanwhile. One that stopped at an offset
        the log does not have never becomes ready: it is assigned anew.

        `started` is called on the loop after every record of an older position and before the first of the new one:
        the loop takes what this thread hands it in order.
        """
        self._starting[key] = started
        give_up_at = time.monotonic() + SEEK_PATIENCE_S

        def command(consumer: Consumer) -> None:
            if self._starting.get(key) is not started or key not in _keys(consumer.assignment()):
                return
            try:
                consumer.seek(KafkaPartition(key[0], key[1], offset))
            except KafkaException as error:
                if error.args[0].code() not in (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS):
                    self._loop.call_soon_threadsafe(failed, error)
                    return
                if time.monotonic() < give_up_at:
                    self._loop.call_soon_threadsafe(self._loop.call_later, 0.02, self.do, command)
                    return
                self._assign_anew(consumer, KafkaPartition(key[0], key[1], offset))
            self._offsets[key] = offset
            self._loop.call_soon_threadsafe(started)
            self._held_back.discard(key)
            if not self._paused_for_room:
                consumer.resume([KafkaPartition(*key)])

        self.do(command)

    def hold_partition(self, key: TopicPartition) -> None:
        """Let no more records of a partition come until it is started again."""
        self._starting.pop(key, None)

        def command(consumer: Consumer) -> None:
            if key in _keys(consumer.assignment()):
                self._held_back.add(key)
                consumer.pause([KafkaPartition(*key)])

        self.do(command)

    def mirror(self, offsets: Offsets) -> None:
        """Copy offsets to Kafka for those who look there; not waited for. The sink hears of those it did not take."""

        def command(consumer: Consumer) -> None:
            consumer.commit(offsets=_kafka_offsets(offsets), asynchronous=True)

        self.do(command)

    def why_not_polling(self) -> str | None:
        """None while it polls, or was closed. May be asked from any thread."""
        if self._closing.is_set():
            return None
        if not self._thread.is_alive():
            return "the thread that polls Kafka has ended"
        silent_s = time.monotonic() - self._polled_at
        # A hand-over keeps it from polling, within bounds.
        if silent_s > STALL_S + self._revoke_timeout_s:
            return f"Kafka has not been polled for {silent_s:.0f} s"
        return None

    def renew_client(self) -> None:
        """Leave the group and join it with a new client, which knows nothing of what topics were before."""
        self._renewing.set()

    async def close(self) -> None:
        """Leave the group; partitions still held are revoked through the sink on the way."""
        self._closing.set()
        self._changed.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._renewing.clear()
                self._held_back.clear()
                self._offsets.clear()
                self._paused_for_room = False
                self._own_client()
        except Exception as error:
            # Settings that the client does not take, or a fault of ours: nobody else would notice that this thread,
            # the member's only ear, has ended.
            self._to_loop(self._sink.on_fatal, _text(error))

    def _own_client(self) -> None:
        consumer = Consumer(
            {**self._settings, "on_commit": self._on_mirrored}, logger=logging.getLogger("fanfold.kafka")
        )
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        try:
            while not (self._closing.is_set() or self._renewing.is_set()):
                self._polled_at = time.monotonic()
                self._run_commands(consumer)
                self._poll(consumer, self._wait_for_room(consumer))
        finally:
            # What the fleet asked for before it closed, mirrored offsets above all, still happens.
            self._run_commands(consumer)
            consumer.close()

    def _run_commands(self, consumer: Consumer) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            try:
                command(consumer)
            except KafkaException as error:
                # A command for a partition that has just gone: the rebalance says the rest.
                log.warning("broker.unavailable", error=error.args[0].name())

    def _poll(self, consumer: Consumer, room: int) -> None:
        # poll() returns with the first record there is; consume() alone would wait to fill its batch.
        first = consumer.poll(POLL_S)
        if first is None:
            return
        messages = [first, *consumer.consume(room - 1, COMPANY_S)] if room > 1 else [first]
        records: list[Message] = []
        ends = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends.append((message, error))
            else:
                # In order: what comes behind a batch that cannot be read must find its partition stopped.
                self._hand_over(records)
                records = []
                self._on_error(message, error)
        self._hand_over(records)
        # After the records: the end of a partition counts only once everything before it was delivered.
        for message, error in ends:
            self._on_error(message, error)

    def _hand_over(self, records: list[Message]) -> None:
        if records:
            self._handed += len(records)
            self._handed_bytes += sum(map(len, records))
            self._to_loop(self._sink.on_records, records)

    def _room(self) -> int:
        """How many records may come now."""
        if not self._welcome or self._handed_bytes - self._done_with_bytes >= self._in_flight_bytes_max:
            return 0
        return min(self._records_max, self._in_flight_max - (self._handed - self._done_with))

    def _wait_for_room(self, consumer: Consumer) -> int:
        """The room there is, once there is some; 0 when polling goes on without, its partitions paused."""
        deadline = time.monotonic() + PATIENCE_S
        while (room := self._room()) <= 0 and not self._closing.is_set():
            if self._paused_for_room:
                return 0
            if time.monotonic() >= deadline:
                self._paused_for_room = True
                consumer.pause(consumer.assignment())
                return 0
            self._changed.clear()
            self._changed.wait(POLL_S)
            self._run_commands(consumer)
        self._resume(consumer)
        return room

    def _resume(self, consumer: Consumer) -> None:
        if self._paused_for_room:
            self._paused_for_room = False
            consumer.resume([p for p in consumer.assignment() if (p.topic, p.partition) not in self._held_back])

    def _on_assign(self, consumer: Consumer, parts: list[KafkaPartition]) -> None:
        # Until the claim says where to read. It must be an offset that the log has (any other is an error at once) and
        # a number: OFFSET_END is looked up by the client, and if we seek before the answer is there, it looks again
        # half a second later and jumps to the end, over everything that we were going to read.
        for part, end in zip(parts, _log_ends(consumer, parts), strict=True):
            part.offset = end
        if self._incremental:
            consumer.incremental_assign(parts)
        else:
            consumer.assign(parts)
        if parts:
            consumer.pause(parts)
        keys = _keys(parts)
        self._held_back.update(keys)
        self._to_loop(self._sink.on_assigned, keys)

    def _on_revoke(self, consumer: Consumer, parts: list[KafkaPartition]) -> None:
        keys = _keys(parts)
        if keys and self._loop.is_running():
            handed_over = asyncio.run_coroutine_threadsafe(self._sink.revoke(keys), self._loop)
            try:
                offsets = handed_over.result(self._revoke_timeout_s)
                if offsets:
                    consumer.commit(offsets=_kafka_offsets(offsets), asynchronous=False)
            except TimeoutError:
                handed_over.cancel()
            except KafkaException as error:
                log.warning("offsets.mirror_failed", error=error.args[0].name())
        self._unassign(consumer, parts)

    def _on_lost(self, consumer: Consumer, parts: list[KafkaPartition]) -> None:
        self._to_loop(self._sink.on_lost, _keys(parts))
        self._unassign(consumer, parts)

    def _on_mirrored(self, error: KafkaError | None, parts: list[KafkaPartition]) -> None:
        failed = [part for part in parts if error is not None or part.error is not None]
        if failed:
            if not self._mirror_fails:  # said once: it is tried again until it works
                why = error or failed[0].error
                log.warning("offsets.mirror_failed", error=why.name() if why is not None else None)
            self._to_loop(self._sink.on_not_mirrored, _keys(failed))
        self._mirror_fails = bool(failed)

    def _assign_anew(self, consumer: Consumer, part: KafkaPartition) -> None:
        if self._incremental:
            consumer.incremental_unassign([part])
            consumer.incremental_assign([part])
            return
        # The others, from where each was started: what they delivered since comes again and is known. Where they are
        # now nobody can say for sure: right after a seek the client still names the old position.
        others = [p for p in consumer.assignment() if (p.topic, p.partition) != (part.topic, part.partition)]
        for other in others:
            other.offset = self._offsets.get((other.topic, other.partition), 0)
        consumer.assign([*others, part])
        consumer.pause([p for p in others if (p.topic, p.partition) in self._held_back])

    def _unassign(self, consumer: Consumer, parts: list[KafkaPartition]) -> None:
        self._held_back.difference_update(_keys(parts))
        if self._incremental:
            consumer.incremental_unassign(parts)
        else:
            consumer.unassign()

    def _on_error(self, message: Message, error: KafkaError) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF:
            assert topic is not None
            assert partition is not None
            assert offset is not None
            self._to_loop(self._sink.on_end, (topic, partition), offset)
        elif error.fatal():
            self._to_loop(self._sink.on_fatal, error.str())
        elif topic is not None and partition is not None and partition >= 0:
            self._to_loop(self._sink.on_partition_error, (topic, partition), error)
        else:
            log.warning("broker.unavailable", error=error.name(), topic=topic)

    def _to_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            self._closing.set()  # the loop is gone: nobody is left to poll for


def _log_ends(consumer: Consumer, parts: Sequence[KafkaPartition]) -> list[int]:
    ends: list[int] = []
    try:
        for part in parts:
            ends.append(consumer.get_watermark_offsets(part, timeout=WATERMARK_S)[1])  # noqa: PERF401  keeps the first
    except KafkaException:
        # The broker is away. Most logs begin at 0, and paused as they are, nothing is read from there.
        ends += [0] * (len(parts) - len(ends))
    return ends


def _text(error: Exception) -> str:
    return error.args[0].str() if isinstance(error, KafkaException) else f"{type(error).__name__}: {error}"


def _keys(parts: Sequence[KafkaPartition]) -> list[TopicPartition]:
    return [(part.topic, part.partition) for part in parts]


def _kafka_offsets(offsets: Offsets) -> list[KafkaPartition]:
    return [KafkaPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
