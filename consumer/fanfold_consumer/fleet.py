"""One member of a consumer group, wired together: publish -> poll -> decode -> run -> commit -> fold -> outbox."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from confluent_kafka import KafkaError, Message

from fanfold_consumer.arrival import arrive
from fanfold_consumer.assignment import Assignment, Partition, Phase, TopicPartition
from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.claims import Claims
from fanfold_consumer.committer import Committer
from fanfold_consumer.config import FleetConfig
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.deadlines import Deadlines
from fanfold_consumer.errors import FanfoldError
from fanfold_consumer.events import log
from fanfold_consumer.execute import Executor
from fanfold_consumer.folds_in_place import FoldsInPlace
from fanfold_consumer.health import HealthServer
from fanfold_consumer.intake import Intake
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.poller import Offsets, Poller
from fanfold_consumer.registry import Registry
from fanfold_consumer.relay import Relay
from fanfold_consumer.watch import Watch
from fanfold_consumer.work import Delivery
from fanfold_producer.sender import Sender
from fanfold_sql import Store

LOOP_STALL_S = 30.0
PUBLISH_PATIENCE_S = 5.0


class FleetFailed(FanfoldError):
    """The member cannot go on. Its uncommitted work is done again by the others."""


class Fleet:
    """A member of the group. `run` returns when `stop` is set and everything is handed over.

    Raises from `run`:
        ConfigError, MigrationNeeded, TopicMissing, KafkaConfigError: at start, before anything was joined.
        FleetFailed: the client or a part of the member broke for good.
    """

    def __init__(self, config: FleetConfig, registry: Registry) -> None:
        config.check()
        self.config = config
        self.registry = registry
        self.metrics = Metrics()
        self.owner_id = uuid.uuid4()
        self.health: HealthServer | None = None
        self._assignment = Assignment()
        self._parking = Parking(config.group_id)
        self._patience = Patience()
        self._claim_store = config.open_claim_store()
        self._claim_store_patience = Patience("claim store")
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._settled_event = asyncio.Event()
        self._fatal: asyncio.Future[None] | None = None
        self._started = False
        self._draining = False
        self._beat_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Join, work until `stop`, drain, leave."""
        loop = asyncio.get_running_loop()
        self._fatal = loop.create_future()
        self._beat_at = loop.time()
        config = self.config
        async with AsyncExitStack() as stack:
            if config.health_port is not None:
                self._serve_health(stack, config.health_host, config.health_port)
            store = await stack.enter_async_context(
                Store.open(
                    config.database_url,
                    pool_size=config.pool_size,
                    prepare=config.prepare,
                    early_lock_release=config.early_lock_release,
                )
            )
            sender = Sender(config.kafka)
            stack.push_async_callback(asyncio.to_thread, sender.close)
            stopping = loop.create_task(stop.wait())
            if not await self._reach_stores(store, stopping):
                return
            self._wire(store, sender, loop)
            parts = [
                loop.create_task(part, name=name)
                for name, part in (
                    ("intake", self._intake.work()),
                    ("committer", self._committer.work()),
                    ("relay", self._relay.work_own()),
                    ("relay-left", self._relay.work_left()),
                    ("folds", self._folds.renew()),
                    ("claims", self._claims.renew()),
                    ("watch", Watch(self._executor, self._intake.verdicts).work()),
                    ("deadlines", self._deadlines.work()),
                    ("mirror", self._mirror()),
                )
            ]
            self._poller.start()
            self._started = True
            log.info(
                "fleet.started",
                group=config.group_id,
                topics=list(config.topics),
                owner=str(self.owner_id),
                handlers=self.registry.names(),
            )
            try:
                waited: list[asyncio.Future[Any]] = [stopping, self._fatal, *parts]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if not self._fatal.done() and not any(part.done() for part in parts):
                    await self._drain()
                broken = [part for part in parts if part.done()]
            finally:
                await self._leave([stopping, *parts])
            self._raise_what_broke(broken)
            log.info("fleet.stopped", group=config.group_id, owner=str(self.owner_id))

    # What the poller tells (see poller.Sink); on the event loop.

    def on_records(self, messages: list[Message]) -> None:
        accepted, size = self._intake.accept(messages)
        self._in_flight += accepted
        self._in_flight_bytes += size
        self._poller.done_with(len(messages) - accepted, sum(map(len, messages)) - size)

    def on_assigned(self, keys: list[TopicPartition]) -> None:
        if not self._draining:  # claimed now, they would be given back at once; the others wait for them either way
            self._claims.on_assigned(keys)

    async def revoke(self, keys: list[TopicPartition]) -> Offsets:
        return await self._hand_over(keys, self.config.revoke_grace_s)

    def on_lost(self, keys: list[TopicPartition]) -> None:
        self._claims.on_unassigned(keys)
        for key in keys:
            partition = self._assignment.drop(key)
            if partition is not None:
                log.warning("partition.lost", topic=key[0], partition=key[1], epoch=partition.epoch)
        self._drop_lost()

    def on_end(self, key: TopicPartition, offset: int) -> None:
        partition = self._assignment.get(key)
        if partition is None or partition.phase is not Phase.RUNNING:
            return
        partition.tracker.reach_end(offset)
        # Even with records in flight: the commit that finishes them may be on its way, without this.
        if partition.tracker.next_offset != partition.committed_offset:
            self._committer.move(partition)

    def on_partition_error(self, key: TopicPartition, error: KafkaError) -> None:
        self._claims.on_partition_error(key, error)

    def on_not_mirrored(self, keys: list[TopicPartition]) -> None:
        self._assignment.forget_mirrored(keys)

    def on_fatal(self, why: str) -> None:
        self._fail(f"the Kafka client failed for good: {why}")

    # What a commit finds out (see committer.Owner).

    def on_fenced(self, partitions: Iterable[Partition]) -> None:
        self._claims.on_fenced(partitions)

    def on_rewound(self, partitions: Iterable[Partition]) -> None:
        self._claims.on_rewound(partitions)

    # In flight: bounded by number and by bytes.

    def _settled(self, deliveries: list[Delivery]) -> None:
        size = 0
        records = len(deliveries)
        for delivery in deliveries:
            delivery.partition.in_flight -= 1
            size += delivery.size
            if delivery.in_place is not None:
                records -= 1
        self._in_flight_bytes -= size
        self._in_flight -= records
        self._poller.done_with(records, size)
        self._settled_event.set()

    # Leaving partitions.

    async def _hand_over(self, keys: list[TopicPartition], grace_s: float) -> Offsets:
        """Finish and commit what runs, within a bound, and release. Returns the offsets for Kafka's copy."""
        self._claims.on_unassigned(keys)
        await self._claims.settle(keys)
        leaving = [partition for key in keys if (partition := self._assignment.get(key)) is not None]
        for partition in leaving:
            partition.phase = Phase.LEAVING
        self._executor.drop_queued()
        left_over = await self._wait_settled(leaving, grace_s)
        if left_over:
            log.warning("fleet.drain_exceeded", in_flight=left_over, bound_s=grace_s)
        offsets = {p.key: p.committed_offset for p in leaving if p.committed_offset is not None}
        for partition in leaving:
            self._assignment.drop(partition.key)
        self._executor.abandon_lost()
        await self._claims.release(leaving)
        return offsets

    def _drop_lost(self) -> None:
        """Let go of what nobody could commit: queued or running, it is begun anew under the next claim."""
        self._executor.drop_queued()
        self._executor.abandon_lost()

    async def _wait_settled(self, partitions: list[Partition], bound_s: float) -> int:
        """How many deliveries are still in flight after waiting for them."""
        try:
            async with asyncio.timeout(bound_s):
                while any(partition.in_flight for partition in partitions):
                    self._settled_event.clear()
                    await self._settled_event.wait()
        except TimeoutError:
            pass
        return sum(partition.in_flight for partition in partitions)

    async def _drain(self) -> None:
        log.info("fleet.drain_started", in_flight=self._in_flight, bound_s=self.config.drain_s)
        self._draining = True
        self._poller.set_welcome(False)
        keys = [partition.key for partition in self._assignment]
        offsets = await self._hand_over(keys, self.config.drain_s)
        if offsets:
            self._poller.mirror(offsets)
        # What the last commits left to publish is leased to us: others would wait for the lease to end.
        await self._relay.settle(PUBLISH_PATIENCE_S)

    async def _leave(self, tasks: list[asyncio.Task[Any]]) -> None:
        await self._poller.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._executor.close()

    # The rest.

    def _wire(self, store: Store, sender: Sender, loop: asyncio.AbstractEventLoop) -> None:
        config = self.config
        lease_ms = int(config.relay_lease_s * 1000)
        self._poller = Poller(
            config.consumer_settings(),
            config.topics,
            loop,
            self,
            incremental=config.cooperative,
            records_max=config.poll_records_max,
            in_flight_max=config.in_flight_max,
            in_flight_bytes_max=config.in_flight_bytes_max,
            revoke_timeout_s=config.revoke_grace_s + 15.0,
        )
        self._relay = Relay(
            store, sender, self._patience, self.metrics, interval_s=config.relay_interval_s, lease_ms=lease_ms
        )
        self._executor = Executor(
            self.registry,
            store,
            self._parking,
            self._patience,
            self.metrics,
            ClaimChecks(self._claim_store, self._claim_store_patience, bytes_max=config.in_flight_bytes_max),
            concurrency=min(config.concurrency, config.in_flight_max),
            sync_workers=config.sync_workers,
            process_workers=config.process_workers,
            retry_in_place_s=config.retry_in_place_s,
            finish=lambda completion: self._committer.finish(completion),
            failed=lambda error: self._fail(f"a worker broke off: {type(error).__name__}: {error}"),
        )
        self._folds = FoldsInPlace(store, self._patience, self._executor, self._relay, lease_ms=lease_ms)
        self._committer = Committer(
            store,
            self.owner_id,
            self._parking,
            self._patience,
            self.metrics,
            self,
            results_max=min(config.batch_results_max, config.in_flight_max),
            bytes_max=config.batch_bytes_max,
            lease_ms=lease_ms,
            settled=self._settled,
            publish=self._relay.publish,
            folds=self._folds,
        )
        self._deadlines = Deadlines(store, self._patience, self.metrics)
        self._intake = Intake(
            self._assignment,
            store,
            self._parking,
            self._patience,
            self.metrics,
            self._deadlines,
            run=self._executor.submit,
            finish=self._committer.finish,
        )
        self._claims = Claims(
            config,
            self.owner_id,
            self._assignment,
            store,
            self._patience,
            self.metrics,
            self._poller,
            dropped=self._drop_lost,
            failed=lambda error: self._fail(f"a partition cannot be claimed: {error}"),
        )

    async def _reach_stores(self, store: Store, stopping: asyncio.Task[Any]) -> bool:
        """All stores may be started after us. False: told to stop before they were there."""
        starting = asyncio.create_task(self._arrive(store))
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            self._parking.publish_for(starting.result())
            return True
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        log.info("fleet.stopped", group=self.config.group_id, owner=str(self.owner_id))
        return False

    async def _arrive(self, store: Store) -> frozenset[str]:
        if self._claim_store is not None:
            await self._claim_store_patience.call("start", self._claim_store.probe)
        return await arrive(self.config, store, self._patience)

    async def _mirror(self) -> None:
        """Copy offsets to Kafka, for lag tools and autoscalers; also this member's own heartbeat and gauges."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.config.mirror_interval_s)
            self._beat_at = loop.time()
            offsets = self._assignment.take_unmirrored()
            if offsets:
                self._poller.mirror(offsets)
            self._note_gauges()

    def _note_gauges(self) -> None:
        self.metrics.in_flight.set(self._in_flight)
        self.metrics.in_flight_bytes.set(self._in_flight_bytes)
        self.metrics.store_away.set(self._patience.store_is_away)
        self.metrics.claim_store_away.set(self._claim_store_patience.store_is_away)
        phases = Counter(partition.phase for partition in self._assignment)
        for phase in Phase:
            self.metrics.partitions.labels(phase.value).set(phases[phase])

    def _serve_health(self, stack: AsyncExitStack, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()

        def live() -> str | None:
            if not self._started:
                return None
            stalled_s = loop.time() - self._beat_at
            if stalled_s > LOOP_STALL_S:
                node = self._executor.node_of(asyncio.current_task(loop))
                by = "" if node is None else f": the handler of {node!r} blocks it; declare it with `def`, or await"
                return f"the event loop has not turned for {stalled_s:.0f} s{by}"
            return self._poller.why_not_polling()

        def ready() -> str | None:
            if not self._started:
                return "starting: waiting for Postgres and Kafka"
            if self._claim_store_patience.store_is_away:
                return "the claim store does not answer"
            return "Postgres does not answer" if self._patience.store_is_away else None

        try:
            self.health = HealthServer(host, port, self.metrics.registry, live=live, ready=ready)
        except OSError as error:
            raise FleetFailed(
                f"cannot listen on {host}:{port} for health: {error}; choose another --health-port"
            ) from error
        stack.push_async_callback(asyncio.to_thread, self.health.close)
        log.info("health.started", host=host, port=self.health.port)

    def _fail(self, why: str) -> None:
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(FleetFailed(why))

    def _raise_what_broke(self, parts: list[asyncio.Task[None]]) -> None:
        if self._fatal is not None and self._fatal.done():
            self._fatal.result()
        for part in parts:
            error = part.exception()
            raise FleetFailed(f"{part.get_name()} broke off: {type(error).__name__}: {error}") from error
