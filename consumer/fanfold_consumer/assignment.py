"""The partitions this member has, and under which claim. Lives on the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from enum import Enum

from fanfold_consumer.offsets import Tracker
from fanfold_sql import PartitionCommit

TopicPartition = tuple[str, int]


class Phase(Enum):
    STARTING = "starting"
    """Claimed, and the client is on its way to the offset. Records that still come are of an older position: taken
    for new, they would move progress past everything between."""
    RUNNING = "running"
    STOPPED = "stopped"
    """Claimed, but what comes next is not in the log, or cannot be read; an operator decides. The others go on."""
    LEAVING = "leaving"
    """Being handed over: what runs may finish and be committed, nothing more is begun."""
    LOST = "lost"
    """Fenced, rewound or revoked: what is still in flight is dropped."""


_BEGINNING = (Phase.RUNNING, Phase.STOPPED)


@dataclass(slots=True, eq=False)
class Partition:
    """One claim of one partition. A new claim makes a new one, so work in flight can tell that it is of an old one."""

    topic: str
    number: int
    phase: Phase = Phase.STARTING
    progress_id: int = 0
    epoch: int = 0
    commit_seq: int = 0
    topic_id: str = ""
    tracker: Tracker = field(default_factory=lambda: Tracker(None))
    in_flight: int = 0
    """Records accepted and neither committed nor dropped."""
    committed_offset: int | None = None
    mirrored_offset: int | None = None

    @property
    def key(self) -> TopicPartition:
        return self.topic, self.number

    @property
    def lost(self) -> bool:
        """Whether nothing of this claim can be committed any more."""
        return self.phase is Phase.LOST

    @property
    def may_begin(self) -> bool:
        """Whether handlers of this claim may still be started."""
        return self.phase in _BEGINNING

    def progress(self, finishing: Set[int]) -> PartitionCommit | None:
        """What a commit says of this partition that finishes these offsets; None before the first delivery."""
        next_offset, islands = self.tracker.progress(finishing)
        if next_offset is None:
            return None
        return PartitionCommit(self.progress_id, self.epoch, self.commit_seq, next_offset, islands)


class Assignment:
    """The current claims by topic and partition."""

    def __init__(self) -> None:
        self._by_key: dict[TopicPartition, Partition] = {}

    def __iter__(self) -> Iterator[Partition]:
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: TopicPartition) -> Partition | None:
        return self._by_key.get(key)

    def put(self, partition: Partition) -> None:
        """Take the place of an older claim, whose work in flight is dropped from here on."""
        self.drop(partition.key)
        self._by_key[partition.key] = partition

    def drop(self, key: TopicPartition) -> Partition | None:
        partition = self._by_key.pop(key, None)
        if partition is not None:
            partition.phase = Phase.LOST
        return partition

    def take_unmirrored(self) -> dict[TopicPartition, int]:
        """Offsets whose copy in Kafka is of an older commit, from here on taken for copied."""
        offsets: dict[TopicPartition, int] = {}
        for partition in self.held():
            offset = partition.committed_offset
            if offset is not None and offset != partition.mirrored_offset:
                offsets[partition.key] = partition.mirrored_offset = offset
        return offsets

    def forget_mirrored(self, keys: Iterable[TopicPartition]) -> None:
        """Kafka did not take these copies: they are due again."""
        for key in keys:
            partition = self._by_key.get(key)
            if partition is not None:
                partition.mirrored_offset = None

    def held(self) -> list[Partition]:
        """Those that Postgres knows as ours and that we mean to keep."""
        return [p for p in self._by_key.values() if p.phase is not Phase.LEAVING]
