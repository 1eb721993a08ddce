"""Replay by offsets: a group goes on from elsewhere. Committed work is recognised, so nothing runs twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_consumer.replay.plan import PlannedOffset
from fanfold_sql import PartitionState, Store, StoreUnavailable

LIVE_IDLE_SECONDS = 10.0
"""Members say that they live every second or so; one that was silent for longer is taken for dead."""

_LOOK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class GroupTopic:
    """A group's view of one topic; offsets are bound to the cluster and to the topic's id."""

    group_id: str
    cluster_id: str
    topic: str
    topic_id: str


@dataclass(frozen=True, slots=True)
class ResetOutcome:
    """What became of a partition: `reset`, `unchanged`, `claimed` (by somebody meanwhile), `unknown`."""

    partition: int
    word: str
    detail: str | None = None


async def read_progress(store: Store, at: GroupTopic) -> dict[int, PartitionState]:
    """{partition: the group's progress}, of the topic as it is now, not of an earlier one of its name."""
    states = await store.list_partitions(at.group_id, at.topic)
    return {s.partition: s for s in states if (s.cluster_id, s.topic_id) == (at.cluster_id, at.topic_id)}


def live_members(states: Iterable[PartitionState]) -> list[PartitionState]:
    """The partitions that somebody holds who was heard of lately."""
    return [
        state
        for state in states
        if state.owner is not None and state.idle_seconds is not None and state.idle_seconds < LIVE_IDLE_SECONDS
    ]


async def await_no_members(
    store: Store, at: GroupTopic, partitions: Iterable[int], wait_s: float
) -> dict[int, PartitionState]:
    """The group's progress once no live member holds any of the partitions, or as it is after `wait_s`."""
    wanted = frozenset(partitions)
    deadline = time.monotonic() + wait_s
    while True:
        states = await read_progress(store, at)
        held = live_members(state for p, state in states.items() if p in wanted)
        left = deadline - time.monotonic()
        if not held or left <= 0:
            return states
        await asyncio.sleep(min(_LOOK_AGAIN_S, left))


def changes(planned: PlannedOffset, state: PartitionState | None) -> bool:
    """Whether a reset would make a difference; where it makes none, a live member is left alone."""
    if state is None or state.next_offset is None:
        return planned.next_offset != planned.log.low
    return state.next_offset != planned.next_offset or bool(state.islands) or state.stopped is not None


def refuse_live_members(at: GroupTopic, held: Sequence[PartitionState]) -> None:
    """Raise `ReplayRefused` if somebody holds partitions that would be reset: who, and what to do."""
    if not held:
        return
    owners: dict[str, list[PartitionState]] = {}
    for state in held:
        owners.setdefault(str(state.owner), []).append(state)
    lines = [
        f"  member {owner} holds {at.topic}-{','.join(str(s.partition) for s in states)}, "
        f"last seen {min(s.idle_seconds or 0.0 for s in states):.1f} s ago"
        for owner, states in owners.items()
    ]
    raise ReplayRefused(
        f"cannot replay {at.topic} for group {at.group_id}: {len(held)} partitions are being worked on.\n"
        + "\n".join(lines)
        + "\nStop these members and repeat (`--wait 30` waits until they are gone), or pass `--fence`: "
        "then they drop what is in flight and go on from the new offsets by themselves."
    )


async def reset_partitions(
    store: Store, at: GroupTopic, planned: Sequence[PlannedOffset], states: Mapping[int, PartitionState]
) -> list[ResetOutcome]:
    """Make the group go on from the planned offsets, each partition in a transaction of its own.

    A partition that somebody claimed after `states` were read is left as it is (`claimed`).
    """
    outcomes: list[ResetOutcome] = []
    for plan in planned:
        state = states.get(plan.partition)
        if not changes(plan, state):
            outcomes.append(ResetOutcome(plan.partition, "unchanged"))
            continue
        try:
            done = await store.reset_partition(
                at.group_id,
                at.cluster_id,
                at.topic,
                at.topic_id,
                plan.partition,
                epoch=-1 if state is None else state.epoch,
                next_offset=plan.next_offset,
            )
        except StoreUnavailable as error:
            # The others are still tried: each outcome is reported, and a half-done reset is no worse than
            # none.
            outcomes.append(ResetOutcome(plan.partition, "unknown", str(error)))
            continue
        outcomes.append(
            ResetOutcome(plan.partition, "reset")
            if done
            else ResetOutcome(plan.partition, "claimed", "a member claimed it meanwhile; nothing was changed, repeat")
        )
    return outcomes
