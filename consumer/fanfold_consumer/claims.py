"""Claiming partitions: from what Kafka assigns to what Postgres lets us commit, and back when it does not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
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
from fanfold_consumer.replay.log_offsets import read_log_ranges
from fanfold_consumer.replay.plan import LogRange
from fanfold_consumer.replay.reset import GroupTopic
from fanfold_consumer.replay.unreadable import UNREADABLE
from fanfold_producer.errors import ProducerError
from fanfold_producer.kafka import cluster_and_topics
from fanfold_sql import Claim, Stopped, Store, StoreError

RETRY_S = 0.5
RECLAIM_AFTER_S = 10.0
"""A partition that somebody else holds in Postgres while Kafka still says it is ours: so long Kafka may be behind.
After it, the other must be a member that died between its claim and its first commit."""
TOPIC_CHECK_S = 5.0
# Errors after which nobody can read on by himself: the log does not have the offset (retention, or it was cut off), or
# has a batch there that comes again as often as it is asked for.
_STOPS: Mapping[int, Stopped] = {
    KafkaError._AUTO_OFFSET_RESET: "gone",
    KafkaError._LOG_TRUNCATION: "gone",
    **dict.fromkeys(UNREADABLE, "unreadable"),
}
_REFUSALS = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


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
        self._noting: set[asyncio.Task[None]] = set()
        # Of the topics that our Kafka client knows.
        self._topic_ids: dict[str, str] = {}

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
        stopped = _STOPS.get(error.code())
        if error.code() in _REFUSALS:
            log.error("partition.refused", topic=key[0], partition=key[1], error=error.name())
        elif stopped is None:
            log.warning("broker.unavailable", topic=key[0], partition=key[1], error=error.name())
        elif partition is not None and partition.phase is Phase.RUNNING:
            partition.phase = Phase.STOPPED
            self._poller.hold_partition(key)
            noted = asyncio.get_running_loop().create_task(self._note_stop(partition, stopped, error.str()))
            self._noting.add(noted)
            noted.add_done_callback(self._on_noted)

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

    def _stop(self, partition: Partition, stopped: Stopped, because: str) -> None:
        """Read no further; what is in flight is finished and committed."""
        partition.phase = Phase.STOPPED
        log.error(
            "partition.stopped",
            topic=partition.topic,
            partition=partition.number,
            next_offset=partition.tracker.next_offset,
            stopped=stopped,
            why=because,
            todo=f"fanfold resolve --group {self._config.group_id} --topic {partition.topic}",
        )

    async def _note_stop(self, partition: Partition, stopped: Stopped, because: str) -> None:
        await self._check_topics()
        if partition.lost:  # its topic was made anew: nothing is gone that anybody would have to decide about
            return
        self._stop(partition, stopped, because)
        progress_id, epoch = partition.progress_id, partition.epoch
        await self._patience.call(
            "stop_partition",
            lambda: self._store.stop_partition(self._owner_id, progress_id, epoch, stopped, because),
        )

    def _on_noted(self, task: asyncio.Task[None]) -> None:
        self._noting.discard(task)
        self._on_claimed(task)

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
        numbers = [number for _, number in keys]
        try:
            at, count = await self._identify(topic)
            if self._topic_ids.setdefault(topic, at.topic_id) != at.topic_id:
                # Made anew. librdkafka holds the leader epochs of the new topic, which begin at 0, against those of the
                # old one, and may go on asking who does not lead it (librdkafka#4898). Its successor is assigned anew.
                self._topic_ids[topic] = at.topic_id
                self._poller.renew_client()
                return
            claims = await self._claim_each(at, numbers)
            if self._config.start == "latest" and _without_progress(numbers, claims):
                await self._begin_at_end(at, count)
                claims = await self._claim_each(at, numbers)
            fresh = _without_progress(numbers, claims)
            logs = await self._read_logs(at, fresh) if fresh else {}
            for number, claim in zip(numbers, claims, strict=True):
                offset = logs[number].low if claim.next_offset is None else claim.next_offset
                await self._take(at, number, claim, offset)
        finally:
            for key in keys:
                self._claiming.pop(key, None)

    async def _identify(self, topic: str) -> tuple[GroupTopic, int]:
        """The cluster's and the topic's id, without which offsets mean nothing, and how many partitions there are."""
        while True:
            try:
                cluster_id, found = await asyncio.to_thread(cluster_and_topics, self._config.kafka.muted(), [topic])
                topic_id, count = found[topic]
                return GroupTopic(self._config.group_id, cluster_id, topic, topic_id), count
            except ProducerError as error:
                log.warning("partition.claim_delayed", topic=topic, error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _claim_each(self, at: GroupTopic, numbers: list[int]) -> list[Claim]:
        def claim(number: int) -> Callable[[], Awaitable[Claim]]:
            return lambda: self._store.claim_partition(
                at.group_id, at.cluster_id, at.topic, at.topic_id, number, self._owner_id
            )

        return await asyncio.gather(*(self._patience.call("claim_partition", claim(number)) for number in numbers))

    async def _begin_at_end(self, at: GroupTopic, count: int) -> None:
        """`--start latest`, kept at once and for all partitions together: a restart before the first commit must not
        skip what came meanwhile, nor a partition that is added later what came before anybody noticed it."""
        logs = await self._read_logs(at, range(count))
        ends = [logs[number].high for number in range(count)]
        await self._patience.call(
            "begin_group",
            lambda: self._store.begin_group(at.group_id, at.cluster_id, at.topic, at.topic_id, ends),
        )

    async def _read_logs(self, at: GroupTopic, numbers: Sequence[int]) -> dict[int, LogRange]:
        while True:
            try:
                return await asyncio.to_thread(read_log_ranges, self._config.kafka.muted(), at.topic, numbers)
            except ProducerError as error:
                log.warning("partition.claim_delayed", topic=at.topic, error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _take(self, at: GroupTopic, number: int, claimed: Claim, offset: int) -> None:
        topic, key = at.topic, (at.topic, number)
        partition = Partition(
            topic,
            number,
            Phase.STARTING,
            claimed.progress_id,
            claimed.epoch,
            claimed.commit_seq,
            at.topic_id,
            Tracker(claimed.next_offset, claimed.islands),
            committed_offset=claimed.next_offset,
        )
        if key not in self._assigned:
            await self.release([partition])
            return
        if claimed.previous_topic_id is not None and claimed.next_offset is None:
            was = claimed.previous_topic_id
            log.warning("topic.recreated", topic=topic, partition=number, was=was, now=at.topic_id)
        self._assignment.put(partition)
        if claimed.stopped_because is None:
            self._poller.start_partition(
                key, offset, lambda: self._started(partition), lambda error: self._not_started(partition, error)
            )
        else:
            self._poller.hold_partition(key)
            self._stop(partition, "gone", claimed.stopped_because)
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
            _, found = await asyncio.to_thread(cluster_and_topics, self._config.kafka.muted(), sorted(topics))
        except ProducerError as error:
            log.warning("topic.unavailable", error=str(error))
            return
        changed = [p for p in self._assignment.held() if p.topic in found and found[p.topic][0] != p.topic_id]
        for partition in changed:
            self._lose(partition)
        self._claim([partition.key for partition in changed])


def _without_progress(numbers: Sequence[int], claims: Sequence[Claim]) -> list[int]:
    return [number for number, claim in zip(numbers, claims, strict=True) if claim.next_offset is None]
