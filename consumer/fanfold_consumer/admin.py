"""What operators see: fan-outs with their progress, partitions with their lag, a thread and all it has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fanfold_consumer.replay.log_offsets import read_log_ends
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.plan import LogRange
from fanfold_producer.errors import ProducerError, TopicMissing
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics
from fanfold_schemas import ClaimCheck, payload_check
from fanfold_sql import (
    DeadLetterFilter,
    FanOutState,
    PartitionState,
    Store,
    StoredDeadLetter,
    StoredResult,
    ThreadState,
    connect,
)

KAFKA_TIMEOUT_S = 5.0


@asynccontextmanager
async def open_store(database_url: str) -> AsyncIterator[Store]:
    """A store for one command. Raises `StoreUnavailable` with the server's own reason if it is away."""
    connect(database_url).close()
    async with Store.open(database_url, pool_size=2, prepare=False) as store:
        yield store


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says about the topics of interest. `problem`: why it does not say more."""

    cluster_id: str | None = None
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition as an operator sees it. `end` and `lag` None: the broker was not asked or did not say."""

    state: PartitionState
    end: int | None
    lag: int | None


def read_topic_facts(kafka: KafkaConfig, topics: Iterable[str]) -> TopicFacts:
    """Ask the broker, briefly; blocks. Raises nothing: a status without Kafka is still a status."""
    # Each failed connection would be a line on stderr; the note that is made of `problem` says it once.
    quiet = kafka.muted()
    names, missing = sorted(set(topics)), []
    try:
        try:
            cluster_id, found = cluster_and_topics(quiet, names, timeout=KAFKA_TIMEOUT_S)
        except TopicMissing as error:
            missing = list(error.topics)
            rest = [name for name in names if name not in missing]
            cluster_id, found = cluster_and_topics(quiet, rest, timeout=KAFKA_TIMEOUT_S)
        counts = {name: count for name, (_, count) in found.items()}
        ends = read_log_ends(quiet, counts, timeout_s=KAFKA_TIMEOUT_S)
    except ProducerError as error:
        return TopicFacts(problem=str(error))
    problem = f"no such topic any more: {', '.join(missing)}" if missing else None
    return TopicFacts(cluster_id, {name: topic_id for name, (topic_id, _) in found.items()}, ends, problem)


def settle_ends(kafka: KafkaConfig, states: Sequence[PartitionState], facts: TopicFacts) -> TopicFacts:
    """Correct log ends that are below what was read already, by reading on from them; blocks.

    A broker may report an end too low by up to a batch. Where the log was really cut off, it stays as it is.
    """
    doubtful: dict[str, dict[int, LogRange]] = {}
    for state in states:
        end = facts.ends.get((state.topic, state.partition))
        if end is not None and _is_current(state, facts) and _read_up_to(state) > end > 0:
            doubtful.setdefault(state.topic, {})[state.partition] = LogRange(0, end)
    ends = dict(facts.ends)
    try:
        for topic, logs in doubtful.items():
            with LogReader(kafka, topic) as reader:
                for partition, log in reader.measure_ends(logs).items():
                    ends[topic, partition] = log.high
    except ProducerError as error:
        return replace(facts, problem=str(error))
    return replace(facts, ends=ends)


def _claimed_at(state: PartitionState) -> float:
    return state.claimed_at.timestamp() if state.claimed_at is not None else 0.0


def current_partitions(states: Sequence[PartitionState], facts: TopicFacts) -> list[PartitionState]:
    """Without progress that was kept for an earlier topic of the same name.

    Where the broker says nothing about a topic, the one that turned up last is taken for the current one.
    """
    newest: dict[tuple[str, str], PartitionState] = {}
    for state in states:
        known = newest.get((state.group_id, state.topic))
        if known is None or _claimed_at(state) > _claimed_at(known):
            newest[state.group_id, state.topic] = state
    return [
        state
        for state in states
        if (
            _is_current(state, facts)
            if state.topic in facts.topic_ids
            else state.topic_id == newest[state.group_id, state.topic].topic_id
        )
    ]


def partition_rows(states: Sequence[PartitionState], facts: TopicFacts) -> list[PartitionRow]:
    return [_partition_row(state, facts) for state in states]


def _partition_row(state: PartitionState, facts: TopicFacts) -> PartitionRow:
    # Offsets of an earlier topic of this name have no end to be compared with.
    end = facts.ends.get((state.topic, state.partition)) if _is_current(state, facts) else None
    # As Kafka's tools count it, without the islands: the copy of the offsets in Kafka knows nothing of those.
    lag = None if end is None or state.next_offset is None else end - state.next_offset
    return PartitionRow(state, end, lag)


def _read_up_to(state: PartitionState) -> int:
    return max([state.next_offset or 0, *(high for _, high in state.islands)])


def _finished_above(state: PartitionState) -> int:
    return sum(high - low for low, high in state.islands)


def _is_current(state: PartitionState, facts: TopicFacts) -> bool:
    return (state.cluster_id, state.topic_id) == (facts.cluster_id, facts.topic_ids.get(state.topic))


@dataclass(frozen=True, slots=True)
class FanOutDetail:
    """A fan-out, a page of its results in index order (the fold's own, -1, first), and its dead letters."""

    state: FanOutState
    results: list[StoredResult]
    dead_letters: list[StoredDeadLetter]


@dataclass(frozen=True, slots=True)
class ThreadDetail:
    """A thread, its fan-outs (newest first), and the newest of them in detail."""

    thread: ThreadState
    fan_outs: list[FanOutState]
    details: list[FanOutDetail]


async def read_thread_detail(
    store: Store, thread_id: str, *, fan_outs_max: int, details_max: int, results_max: int
) -> ThreadDetail | None:
    """All that is kept for a thread, within limits; None if nothing is."""
    thread = await store.read_thread(thread_id)
    if thread is None:
        return None
    fan_outs = await store.list_fan_outs(thread_id=thread_id, limit=fan_outs_max)
    details = [
        FanOutDetail(
            state,
            await store.read_results(state.fan_out_id, after=-2, limit=results_max),
            await store.list_dead_letters(DeadLetterFilter(fan_out_id=state.fan_out_id), limit=results_max),
        )
        for state in fan_outs[:details_max]
    ]
    return ThreadDetail(thread, fan_outs, details)


def fan_out_fields(state: FanOutState, now: datetime) -> dict[str, Any]:
    """A fan-out for `--json`. Keys are added, never renamed."""
    return {
        "fan_out_id": state.fan_out_id,
        "thread_id": state.thread_id,
        "state": state.state,
        "size": state.size,
        "done": done_count(state),
        "failed": state.failed,
        "remaining": state.remaining,
        "run": state.run,
        "base": state.base,
        "fold": state.fold,
        "quorum": state.quorum,
        "max_failures": state.max_failures,
        "deadline_ms": state.deadline_ms,
        "on_deadline": state.on_deadline,
        "ended_by": state.ended_by,
        "overdue": is_overdue(state, now),
        "topic": state.topic,
        "created_at": state.created_at.isoformat(),
        "completed_at": _iso(state.completed_at),
        "folded_at": _iso(state.folded_at),
    }


def done_count(state: FanOutState) -> int:
    return state.size - state.remaining - state.failed


def is_overdue(state: FanOutState, now: datetime) -> bool:
    due_ms = state.deadline_ms
    return due_ms is not None and not state.ended and now.timestamp() * 1000 > due_ms


def partition_fields(row: PartitionRow) -> dict[str, Any]:
    """A partition for `--json`. Keys are added, never renamed."""
    state = row.state
    return {
        "group": state.group_id,
        "topic": state.topic,
        "partition": state.partition,
        "current_offset": state.next_offset,
        "log_end_offset": row.end,
        "lag": row.lag,
        "owner": None if state.owner is None else str(state.owner),
        "epoch": state.epoch,
        "islands": [list(island) for island in state.islands],
        "finished_above": _finished_above(state),
        "idle_seconds": state.idle_seconds,
        "stopped": state.stopped,
        "stopped_because": state.stopped_because,
        "cluster_id": state.cluster_id,
        "topic_id": state.topic_id,
    }


def result_check(result: StoredResult) -> ClaimCheck | None:
    """The claim check that stands for a result's value, if one does."""
    return None if result.payload is None else payload_check(result.payload)


def value_bytes(result: StoredResult) -> int | None:
    """How large a result's value is, wherever it lies; None: it has none."""
    check = result_check(result)
    if check is not None:
        return check.bytes
    return None if result.payload is None else len(result.payload)


def result_fields(result: StoredResult) -> dict[str, Any]:
    """A result for `--json`. Keys are added, never renamed. `sha256`: of the object it is a claim check for."""
    check = result_check(result)
    return {
        "index": result.index,
        "task_id": result.task_id,
        "status": result.status,
        "run": result.run,
        "payload_bytes": value_bytes(result),
        "sha256": None if check is None else check.sha256,
        "committed_at": result.committed_at.isoformat(),
    }


def dead_letter_fields(letter: StoredDeadLetter) -> dict[str, Any]:
    """A dead letter for `--json`. Keys are added, never renamed."""
    return {
        "dead_letter_id": letter.dead_letter_id,
        "group": letter.group_id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "thread_id": letter.thread_id,
        "fan_out_id": letter.fan_out_id,
        "task_id": letter.task_id,
        "code": letter.code,
        "error": letter.error,
        "value_bytes": letter.value_bytes,
        "created_at": letter.created_at.isoformat(),
        "resolution": letter.resolution,
        "resolved_at": _iso(letter.resolved_at),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
