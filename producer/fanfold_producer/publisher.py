"""Publish fan-outs: checked as a whole, written all or none, harmless to repeat."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from types import TracebackType
from typing import Any

from fanfold_producer.claim_store import ClaimStore
from fanfold_producer.client import CLOSE_TIMEOUT_S, QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX
from fanfold_producer.errors import FanOutUnknown
from fanfold_producer.fan_out import BuiltFanOut, OnDeadline, build_now
from fanfold_producer.handle import FanOutHandle
from fanfold_producer.kafka import KafkaConfig
from fanfold_producer.loop_worker import LoopWorker
from fanfold_producer.results import Results
from fanfold_producer.sender import Sender
from fanfold_producer.transaction import TransactionalSender
from fanfold_schemas import DEFAULT_TOPIC, check_id, check_topic
from fanfold_schemas.limits import FAN_OUT_SIZE_MAX
from fanfold_sql import FanOutState


class Publisher:
    """Publishes fan-outs to one Kafka cluster. Make one a process; it is safe to share between workers and loops.

    Use it as a context manager (`with` or `async with`) or call `close`. Clients and connections are made when
    they are first needed.

    Args:
        kafka: where Kafka is.
        topic: where fan-outs go that name no other topic.
        database_url: Postgres, for `FanOutHandle.result` and `.progress`: a URL or key=value string; empty: the
            PG* variables; None: handles only carry ids.
        atomic: write each fan-out in a Kafka transaction, so that its tasks become visible together or never, as
            far as the broker keeps to it: Apache Kafka does; the embedded broker shows aborted records as well.
            False: tasks become visible one by one; for brokers without transactions, and for many small fan-outs
            at once, since transactions of one publisher come one after another.
        source: the CloudEvents source of the records, such as the name of your service.
        queue_records_max: records that may wait for the broker; beyond it callers wait.
        queue_bytes_max: the same in bytes.
        prepare: prepared statements, where the connection is direct.
        claim_store: where large args go and large results come from; None: large args are refused.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        topic: str = DEFAULT_TOPIC,
        database_url: str | None = None,
        atomic: bool = True,
        source: str = "fanfold",
        queue_records_max: int = QUEUE_RECORDS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        prepare: bool = True,
        claim_store: ClaimStore | None = None,
    ) -> None:
        self._kafka = kafka
        self._topic = check_topic(topic)
        self._atomic = atomic
        self._source = source
        self._limits = {"queue_records_max": queue_records_max, "queue_bytes_max": queue_bytes_max}
        self._transactional_id = f"fanfold-{uuid.uuid4()}"
        self._lock = threading.Lock()
        self._closed = False
        self._sender: Sender | None = None
        self._transactions: TransactionalSender | None = None
        self._claim_store = claim_store
        self._results = Results(database_url, prepare=prepare, claim_store=claim_store)
        self._worker = LoopWorker("fanfold-publisher")

    def fan_out(
        self,
        thread_id: str,
        sends: Iterable[object],
        *,
        fan_out_id: str | None = None,
        fold: str | None = None,
        base: Mapping[str, int] | None = None,
        quorum: int | None = None,
        max_failures: int | None = None,
        deadline: datetime | timedelta | None = None,
        on_deadline: OnDeadline = "fail",
        topic: str | None = None,
        traceparent: str | None = None,
        timeout: float = 60.0,
    ) -> FanOutHandle:
        """Publish tasks that belong together; return when all of them are acknowledged.

        Everything is checked and encoded before the first byte leaves. Tasks are keyed by their task_id, so that
        one fan-out spreads over all partitions.

        Args:
            thread_id: the thread the tasks belong to; 1 to 200 of `[A-Za-z0-9._:-]`, as all ids.
            sends: 1 to 100,000 of `Send`, `langgraph.types.Send` or `(node, arg)`, each of at most 1 MiB as a
                record, 64 MiB with a claim store. Encoded records are held in memory until the call returns.
            fan_out_id: name it, and publishing again is the same work, done once (with the same arguments:
                tasks that contradict their fan-out are refused by the fleet). None: a new one.
            fold: name of a built-in fold or of a `@fold` handler, run once when the fan-out is complete.
            base: the thread's clock that this was derived from, {branch: counter}; None: it is never stale.
            quorum: so many successes complete it, and the other tasks are not run any more; None: all tasks do, failed
                ones included.
            max_failures: more failed tasks than this end it as failed: no fold, and the other tasks are not run any
                more. 0: the first failure does. None: it completes with as many as there are.
            deadline: when it ends, complete or not, by the clock of Postgres, once a member has seen a task of it.
                With a `fan_out_id`, a datetime: a timedelta would move.
            on_deadline: `fail` it, or `fold` the results it has; either way the other tasks are not run any more.
            topic: instead of the publisher's.
            traceparent: W3C trace context, written to every record.
            timeout: seconds for the writing, waiting for other callers' transactions included.

        Raises:
            SchemaError, TypeError, ValueError: an argument is wrong; the path says which. Nothing was published.
            PublishError: not all records are acknowledged. With `atomic`, nothing is visible, unless the message
                says that this is unknown. Publish again under the same `fan_out_id`.
            ClaimStoreUnavailable: large args could not be put. Nothing was published; publish again.
            KafkaConfigError: librdkafka does not take the settings.
        """
        built = self._build(
            thread_id,
            sends,
            topic,
            fan_out_id=fan_out_id,
            fold=fold,
            base=base,
            quorum=quorum,
            max_failures=max_failures,
            deadline=deadline,
            on_deadline=on_deadline,
            traceparent=traceparent,
        )
        writer = self._writer(built)
        if self._claim_store is not None and built.large_args:
            self._worker.submit(self._claim_store.put_all(built.fan_out.id, built.large_args, timeout)).result()
        writer.send(built.records, timeout)
        return self._handle(built)

    async def afan_out(
        self,
        thread_id: str,
        sends: Iterable[object],
        *,
        fan_out_id: str | None = None,
        fold: str | None = None,
        base: Mapping[str, int] | None = None,
        quorum: int | None = None,
        max_failures: int | None = None,
        deadline: datetime | timedelta | None = None,
        on_deadline: OnDeadline = "fail",
        topic: str | None = None,
        traceparent: str | None = None,
        timeout: float = 60.0,  # noqa: ASYNC109
    ) -> FanOutHandle:
        """`fan_out` for an event loop, which is never blocked: encoding, too, happens elsewhere."""
        # The caller's iterable is its own: it is read here, where the caller expects it to be.
        listed = sends if isinstance(sends, str | bytes | Mapping) else list(islice(sends, FAN_OUT_SIZE_MAX + 1))
        built = await asyncio.to_thread(
            self._build,
            thread_id,
            listed,
            topic,
            fan_out_id=fan_out_id,
            fold=fold,
            base=base,
            quorum=quorum,
            max_failures=max_failures,
            deadline=deadline,
            on_deadline=on_deadline,
            traceparent=traceparent,
        )
        writer = self._writer(built)
        if self._claim_store is not None and built.large_args:
            await self._claim_store.put_all(built.fan_out.id, built.large_args, timeout)
        await writer.asend(built.records, timeout)
        return self._handle(built)

    def handle(self, fan_out_id: str) -> FanOutHandle:
        """A handle for a fan-out that somebody published before.

        Raises:
            FanOutUnknown: the database has no result of it yet. Ask again later.
            DatabaseNeeded, StoreError: as the methods of `FanOutHandle`.
        """
        check_id(fan_out_id, "$.fan_out_id")
        return self._attached(fan_out_id, self._worker.submit(self._results.progress(fan_out_id)).result())

    async def ahandle(self, fan_out_id: str) -> FanOutHandle:
        """`handle` for an event loop."""
        check_id(fan_out_id, "$.fan_out_id")
        reading = self._worker.submit(self._results.progress(fan_out_id))
        return self._attached(fan_out_id, await asyncio.wrap_future(reading))

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Let go of all clients; handles cannot wait any longer. Closing again does nothing.

        A transaction under way is finished first. Records of other calls that gave up waiting get `timeout`
        seconds more.
        """
        with self._lock:
            self._closed = True
            sender, self._sender = self._sender, None
            transactions, self._transactions = self._transactions, None
        if transactions is not None:
            transactions.close()
        if sender is not None:
            sender.close(timeout)
        self._worker.close(self._results.close())

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _build(self, thread_id: str, sends: Iterable[object], topic: str | None, **options: Any) -> BuiltFanOut:
        topic = self._topic if topic is None else topic
        return build_now(thread_id, sends, topic=topic, source=self._source, claim_store=self._claim_store, **options)

    def _writer(self, built: BuiltFanOut) -> Sender | TransactionalSender:
        with self._lock:
            if self._closed:
                raise RuntimeError("this publisher is closed; make a new one")
            # One record is all or none by itself and needs no transaction around it.
            if self._atomic and len(built.records) > 1:
                if self._transactions is None:
                    self._transactions = TransactionalSender(
                        self._kafka, transactional_id=self._transactional_id, **self._limits
                    )
                return self._transactions
            if self._sender is None:
                self._sender = Sender(self._kafka, **self._limits)
            return self._sender

    def _handle(self, built: BuiltFanOut) -> FanOutHandle:
        return FanOutHandle(
            built.fan_out.id,
            built.thread_id,
            built.fan_out.size,
            built.task_ids,
            results=self._results,
            worker=self._worker,
        )

    def _attached(self, fan_out_id: str, state: FanOutState | None) -> FanOutHandle:
        if state is None:
            raise FanOutUnknown(
                f"fan-out {fan_out_id} is not in the database: none of its results is committed yet, or they are "
                "committed elsewhere. Ask again later, or check the database_url"
            )
        return FanOutHandle(fan_out_id, state.thread_id, state.size, (), results=self._results, worker=self._worker)


__all__ = ["Publisher"]
