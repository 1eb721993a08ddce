"""What an audit is asked to look at, and what it may conclude from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fanfold_consumer.audit.progress import Passed
from fanfold_consumer.replay.log_reader import LogRecord
from fanfold_schemas import Task, header_text
from fanfold_schemas.headers import FAN_OUT_ID, THREAD_ID


@dataclass(frozen=True, slots=True)
class Scope:
    """Topic and range, and whose records.

    Attributes:
        ranges: {partition: (first offset, offset to stop before)}.
        partitions: how many the topic has.
        passed: where the groups stood before the log's end was measured.
        incomplete: why what is not among the records read cannot be taken for missing; None: it is the whole log.
        earlier_topic: whether there was another topic of this name, whose fan-outs are not in this log.
        pruned: what finished before this moment may have been deleted by intention; None: nothing was.
    """

    topic: str
    cluster_id: str
    topic_id: str
    ranges: dict[int, tuple[int, int]]
    partitions: int
    passed: Passed
    incomplete: str | None
    earlier_topic: bool = False
    pruned: datetime | None = None
    thread_id: str | None = None
    fan_out_id: str | None = None

    def may_want(self, record: LogRecord) -> bool:
        """Whether a record may be of those asked for, by its headers: other tasks are not even decoded."""
        return _may_be(record, THREAD_ID, self.thread_id) and _may_be(record, FAN_OUT_ID, self.fan_out_id)

    def wants(self, task: Task) -> bool:
        return self.thread_id in (None, task.thread_id) and self.fan_out_id in (None, task.fan_out.id)

    @property
    def wants_all(self) -> bool:
        return self.thread_id is None and self.fan_out_id is None

    def at(self, partition: int, offset: int) -> str:
        return f"{self.topic}-{partition}@{offset}"


def _may_be(record: LogRecord, header: str, wanted: str | None) -> bool:
    return wanted is None or header_text(record.headers, header) in (wanted, None)
