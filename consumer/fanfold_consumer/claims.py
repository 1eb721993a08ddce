"""Claiming partitions: from what Kafka assigns to what Postgres lets us commit, and back when it does not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException

from fanfold_consumer.assignment import Assignment, Partition, Phase, TopicPartition
from fanfold_consumer.config import FleetConfig
from fanfold_consumer.events import log
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.offsets import Tracker
from fanfold_consumer.patience import Patience
from fanfold_consumer.poller import Poller
from fanfold_producer.errors import ProducerError
from fanfold_producer.kafka import cluster_and_topics
from fanfold_sql import Claim, Store, StoreError

RETRY_S = 0.5
RECLAIM_AFTER_S = 10.0
"""A partition that somebody else holds in Postgres while Kafka still says it is ours: so long Kafka may be behind.
After it, the other must be a member that died between its claim and its first commit."""
TOPIC_CHECK_S = 5.0


class Claims:
    """Keeps the assignment in step with Kafka and Postgres. Lives on the event loop.

    Args:
        dropped: told when work of a claim that was lost has to be let go.
        failed: told when a claim cannot be made for a reason that does not pass.
    """

    def __init__(
        self,
        config: FleetConfig,
        owner_id: UUID,
        assignment: Assignment,
        store: Store,
        patience: Patience,
        metrics: Metrics,
        poller: Poller,
        dropped: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._owner_id = owner_id
        self._assignment = assignment
        self._store = store
        self._patience = patience
        self._metrics = metrics
        self._poller = poller
        self._dropped = dropped
        self._failed = failed
        # What Kafka says is ours; of that, the claims that Postgres gave to another, and since when.
        self._assigned: set[TopicPartition] = set()
        self._fenced: dict[TopicPartition, tuple[Partition, float]] = {}
        self._fenced_now = asyncio.Event()
        self._claiming: dict[TopicPartition, asyncio.Task[None]] = {}

    def on_assigned(self, keys: list[TopicPartition]) -> None:
        self._assigned.update(keys)
        self._claim(keys)

    def on_unassigned(self, keys: list[TopicPartition]) -> None:
        """Kafka took these away: what is being claimed is given back, what was fenced is not claimed again."""
        for key in keys:
            self._assigned.discard(key)
            self._fenced.pop(key, None)

    def on_fenced(self, partitions: Iterable[Partition]) -> None:
        """Those that are lost already, to a later claim of our own perhaps, stay as they are."""
        for partition in partitions:
            if partition.lost:
                continue
            log.warning("partition.fenced", topic=partition.topic, partition=partition.number, epoch=partition.epoch)
            self._metrics.fenced(1)
            self._lose(partition)
            self._fenced[partition.key] = partition, asyncio.get_running_loop().time()
            self._fenced_now.set()

    def on_rewound(self, partitions: Iterable[Partition]) -> None:
        lost = [partition for partition in partitions if not partition.lost]
        for partition in lost:
            log.warning("partition.rewound", topic=partition.topic, partition=partition.number, epoch=partition.epoch)
            self._metrics.rewound(1)
            self._lose(partition)
        self._claim([partition.key for partition in lost])

    def on_partition_error(self, key: TopicPartition, error: KafkaError) -> None:
        partition = self._assignment.get(key)
        if error.code() != KafkaError._AUTO_OFFSET_RESET:
            log.warning("broker.unavailable", topic=key[0], partition=key[1], error=error.name())
        elif partition is not None and partition.phase is Phase.RUNNING:
            partition.phase = Phase.STOPPED
            partition.stopped_because = error.str()
            self._poller.hold_partition(key)
            log.error(
                "partition.stopped",
                topic=key[0],
                partition=key[1],
                next_offset=partition.tracker.next_offset,
                why="the log does not have this offset (retention or truncation); records may have been lost",
                todo=f"fanfold replay --group {self._config.group_id} --topic {key[0]} --partitions {key[1]} "
                "--to-earliest --fence --execute",
            )

    async def renew(self) -> None:
        """Say that we live, hear what was taken from us, and look whether topics are still the same; for ever."""
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while True:
            # A commit that was fenced is no reason to wait: it may be an operator's reset, with nobody else behind it.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._fenced_now.wait(), self._config.renew_interval_s)
            self._fenced_now.clear()
            await self._renew_once(loop.time())
            if loop.time() - checked_at >= TOPIC_CHECK_S:
                checked_at = loop.time()
                await self._check_topics()

    async def settle(self, keys: list[TopicPartition]) -> None:
        """Let claims on their way end, so that none is made after its partition was given up."""
        tasks = {task for key in keys if (task := self._claiming.get(key)) is not None}
        for task in tasks:
            task.cancel()
        # One task claims many partitions; Kafka does not assign those again that it leaves with us.
        broken_off = [key for key, task in self._claiming.items() if task in tasks]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._claim([key for key in broken_off if self._assignment.get(key) is None])

    async def release(self, partitions: list[Partition]) -> None:
        """Give claims back. Not waited for without end: a claim that cannot be given back is fenced by the next."""
        held = [(partition.progress_id, partition.epoch) for partition in partitions]
        if not held:
            return
        try:
            await asyncio.wait_for(self._store.release_partitions(self._owner_id, held), 5.0)
        except (StoreError, TimeoutError):
            return
        for partition in partitions:
            log.info(
                "partition.released",
                topic=partition.topic,
                partition=partition.number,
                next_offset=partition.tracker.next_offset,
            )

    def _lose(self, partition: Partition) -> None:
        if self._assignment.get(partition.key) is partition:
            self._assignment.drop(partition.key)
        partition.phase = Phase.LOST
        self._poller.hold_partition(partition.key)
        self._dropped()

    def _claim(self, keys: list[TopicPartition]) -> None:
        by_topic: dict[str, list[TopicPartition]] = {}
        for key in keys:
            self._fenced.pop(key, None)
            if key in self._assigned and key not in self._claiming:
                by_topic.setdefault(key[0], []).append(key)
        for topic, wanted in by_topic.items():
            task = asyncio.get_running_loop().create_task(self._claim_topic(topic, wanted))
            task.add_done_callback(self._on_claimed)
            for key in wanted:
                self._claiming[key] = task

    def _on_claimed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nothing that waiting would mend (that is waited for): a missing privilege, say.
            self._failed(error)

    async def _claim_topic(self, topic: str, keys: list[TopicPartition]) -> None:
        try:
            cluster_id, topic_id = await self._identify(topic)
            await asyncio.gather(*(self._claim_one(key, cluster_id, topic_id) for key in keys))
        finally:
            for key in keys:
                self._claiming.pop(key, None)

    async def _identify(self, topic: str) -> tuple[str, str]:
        """The cluster's and the topic's id: offsets mean nothing without them."""
        while True:
            try:
                cluster_id, found = await asyncio.to_thread(cluster_and_topics, self._config.quiet_kafka, [topic])
                return cluster_id, found[topic][0]
            except ProducerError as error:
                log.warning("partition.claim_delayed", topic=topic, error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _claim_one(self, key: TopicPartition, cluster_id: str, topic_id: str) -> None:
        topic, number = key
        group = self._config.group_id

        async def claim() -> Claim:
            return await self._store.claim_partition(group, cluster_id, topic, topic_id, number, self._owner_id)

        claimed = await self._patience.call("claim_partition", claim)
        offset = claimed.next_offset
        if offset is None:
            offset = await self._first_offset(key)
            if self._config.start == "latest":
                # Kept at once: a restart before the first commit must not skip what came meanwhile.
                first = offset
                await self._patience.call(
                    "reset_partition",
                    lambda: self._store.reset_partition(
                        group, cluster_id, topic, topic_id, number, epoch=claimed.epoch, next_offset=first
                    ),
                )
                claimed = await self._patience.call("claim_partition", claim)
                offset = claimed.next_offset if claimed.next_offset is not None else first
        partition = Partition(
            topic,
            number,
            Phase.STARTING,
            claimed.progress_id,
            claimed.epoch,
            claimed.commit_seq,
            topic_id,
            Tracker(claimed.next_offset, claimed.islands),
            committed_offset=claimed.next_offset,
        )
        if key not in self._assigned:
            await self.release([partition])
            return
        if claimed.previous_topic_id is not None and claimed.next_offset is None:
            log.warning("topic.recreated", topic=topic, partition=number, was=claimed.previous_topic_id, now=topic_id)
        self._assignment.put(partition)
        self._poller.start_partition(
            key, offset, lambda: self._started(partition), lambda error: self._not_started(partition, error)
        )
        log.info(
            "partition.claimed",
            topic=topic,
            partition=number,
            epoch=claimed.epoch,
            next_offset=offset,
            islands=len(claimed.islands),
        )

    def _started(self, partition: Partition) -> None:
        if partition.phase is Phase.STARTING:
            partition.phase = Phase.RUNNING

    def _not_started(self, partition: Partition, error: KafkaException) -> None:
        log.warning(
            "partition.claim_delayed",
            topic=partition.topic,
            partition=partition.number,
            error=error.args[0].name(),
        )
        if self._assignment.get(partition.key) is partition:
            self._lose(partition)
            asyncio.get_running_loop().call_later(RETRY_S, self._claim, [partition.key])

    async def _first_offset(self, key: TopicPartition) -> int:
        while True:
            try:
                if self._config.start == "latest":
                    return await self._poller.high_watermark(key)
                return await self._poller.low_watermark(key)
            except (KafkaException, TimeoutError) as error:
                log.warning("partition.claim_delayed", topic=key[0], partition=key[1], error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _renew_once(self, now: float) -> None:
        asked = [*(partition for partition, _ in self._fenced.values()), *self._assignment.held()]
        if asked:
            pairs = [(partition.progress_id, partition.epoch) for partition in asked]
            seqs = [partition.commit_seq for partition in asked]
            taken = await self._patience.call(
                "renew_partitions", lambda: self._store.renew_partitions(self._owner_id, pairs, seqs)
            )
            self.on_fenced(partition for partition in asked if partition.progress_id in taken)
            self._fenced_now.clear()
            # What was claimed again or taken away while we asked is not judged by its old claim.
            fenced = {partition: partition.key for partition, _ in self._fenced.values()}
            self._claim(
                [fenced[partition] for partition in asked if partition in fenced and taken.get(partition.progress_id)]
            )
        self._claim([key for key, (_, since) in self._fenced.items() if now - since >= RECLAIM_AFTER_S])

    async def _check_topics(self) -> None:
        """A topic that was deleted and made anew under our feet is another log: claim it as such."""
        topics = {partition.topic for partition in self._assignment.held()}
        if not topics:
            return
        try:
            _, found = await asyncio.to_thread(cluster_and_topics, self._config.quiet_kafka, sorted(topics))
        except ProducerError as error:
            log.warning("topic.unavailable", error=str(error))
            return
        changed = [p for p in self._assignment.held() if p.topic in found and found[p.topic][0] != p.topic_id]
        for partition in changed:
            self._lose(partition)
        self._claim([partition.key for partition in changed])
