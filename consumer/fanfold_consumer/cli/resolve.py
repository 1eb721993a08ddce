"""`fanfold resolve`: partitions that stopped, what can be done about each and what it costs, and doing it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from fanfold_consumer.admin import open_store
from fanfold_consumer.cli.options import database_option, json_option, kafka_options
from fanfold_consumer.cli.render import make_console, make_table, note, print_json
from fanfold_consumer.cli.replay_output import print_dry_run, print_executed
from fanfold_consumer.events import configure_logging, log
from fanfold_consumer.replay.cost import cost_of, given_up
from fanfold_consumer.replay.errors import ReplayRefused
from fanfold_consumer.replay.log_offsets import read_log_ranges
from fanfold_consumer.replay.plan import LogRange, PlannedOffset, plan_offsets
from fanfold_consumer.replay.reset import GroupTopic, read_progress, reset_partitions
from fanfold_consumer.replay.targets import FromFile, Target, ToCurrent, ToEarliest, ToLatest, ToOffset
from fanfold_consumer.replay.unreadable import Prober
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics
from fanfold_sql import PartitionState, Store

_NUMBERS = ["PARTITION", "CURRENT-OFFSET", "LOG-START-OFFSET", "LOG-END-OFFSET"]


@dataclass(frozen=True, slots=True)
class SkipBatch:
    """The first offset after the batch that cannot be read; where that is has to be found out."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to go on with a partition. `next_offset` None: it is found out when it is asked for."""

    option: str
    next_offset: int | None
    cost: str


@dataclass(frozen=True, slots=True)
class Standstill:
    """The stopped partitions of a group in a topic, and what the log has of them."""

    at: GroupTopic
    states: dict[int, PartitionState]
    logs: dict[int, LogRange]


@click.command()
@click.option("--group", required=True, help="The group whose partitions stopped.")
@click.option("--topic", required=True, help="The topic.")
@click.option("--partition", "partitions", type=click.IntRange(min=0), multiple=True, help="Only this one. Repeatable.")
@click.option("--retry", is_flag=True, help="Go on where it stopped: the log was mended.")
@click.option("--skip-batch", is_flag=True, help="Go on behind the batch that cannot be read.")
@click.option("--to-earliest", is_flag=True, help="Go on at the beginning of what is left.")
@click.option("--to-latest", is_flag=True, help="Go on at the end: give up what is there now.")
@click.option("--to-offset", type=click.IntRange(min=0), help="Go on at this offset. One partition at a time.")
@click.option("--execute", is_flag=True, help="Do it. Without it, only say what would be done.")
@kafka_options
@database_option
@json_option
def resolve(
    kafka: KafkaConfig,
    database_url: str,
    group: str,
    topic: str,
    partitions: tuple[int, ...],
    retry: bool,
    skip_batch: bool,
    to_earliest: bool,
    to_latest: bool,
    to_offset: int | None,
    execute: bool,
    as_json: bool,
) -> None:
    """List the partitions that stopped, with what can be done about each and what is given up by it; or do it.

    Says what would be done; --execute does it: members notice within a second and go on from there. Partitions
    that did not stop are left alone: to move those, use `fanfold replay`.

    \b
    fanfold resolve --group g --topic t
    fanfold resolve --group g --topic t --partition 3 --to-earliest --execute
    """
    targets: dict[str, Target | SkipBatch | None] = {
        "--retry": ToCurrent() if retry else None,
        "--skip-batch": SkipBatch() if skip_batch else None,
        "--to-earliest": ToEarliest() if to_earliest else None,
        "--to-latest": ToLatest() if to_latest else None,
        "--to-offset": None if to_offset is None else ToOffset(to_offset),
    }
    given = {name: target for name, target in targets.items() if target is not None}
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} contradict each other; give one")
    if execute and not given:
        raise click.UsageError(f"say what to do: one of {', '.join(targets)}")
    if to_offset is not None and len(partitions) != 1:
        raise click.UsageError("--to-offset is about one partition: name it with --partition")
    configure_logging(json=as_json)
    kafka = kafka.muted()
    target = next(iter(given.values()), None)
    if not asyncio.run(_resolve(kafka, database_url, group, topic, frozenset(partitions), target, execute, as_json)):
        raise click.exceptions.Exit(1)


async def _resolve(
    kafka: KafkaConfig,
    database_url: str,
    group: str,
    topic: str,
    partitions: frozenset[int],
    target: Target | SkipBatch | None,
    execute: bool,
    as_json: bool,
) -> bool:
    """Whether all went as asked."""
    async with open_store(database_url) as store:
        found = await _survey(kafka, store, group, topic, partitions)
        if target is None:
            _print_choices(found, as_json)
            return True
        planned = _plan(found, await asyncio.to_thread(_fixed, kafka, found, target))
        if not execute:
            print_dry_run(found.at, planned, [], as_json)
            return True
        outcomes = await reset_partitions(store, found.at, planned, found.states)
        done = {outcome.partition for outcome in outcomes if outcome.word == "reset"}
        for plan in planned:
            for low, high in plan.given_up or () if plan.partition in done else ():
                log.warning(
                    "offsets.given_up", group=group, topic=topic, partition=plan.partition, first=low, next_offset=high
                )
        print_executed(found.at, planned, outcomes, as_json)
        return len(done) == len(planned)


async def _survey(kafka: KafkaConfig, store: Store, group: str, topic: str, partitions: frozenset[int]) -> Standstill:
    cluster_id, topics = await asyncio.to_thread(cluster_and_topics, kafka, [topic])
    at = GroupTopic(group, cluster_id, topic, topics[topic][0])
    progress = await read_progress(store, at)
    states = {p: state for p, state in progress.items() if state.stopped and (not partitions or p in partitions)}
    others = sorted(partitions - states.keys())
    if others:
        raise ReplayRefused(
            f"{topic}-{', '.join(map(str, others))} did not stop for group {group}: nothing to resolve. "
            "Look with `fanfold status`; to move offsets all the same, use `fanfold replay`"
        )
    logs = await asyncio.to_thread(read_log_ranges, kafka, topic, states)
    return Standstill(at, states, logs)


def _fixed(kafka: KafkaConfig, found: Standstill, target: Target | SkipBatch) -> Target:
    """A target in numbers. Blocks."""
    if not isinstance(target, SkipBatch):
        return target
    offsets: dict[int, int] = {}
    prober = Prober(kafka, found.at.topic)
    for partition, state in found.states.items():
        log_range = found.logs[partition]
        start = log_range.low if state.next_offset is None else state.next_offset
        offsets[partition] = prober.first_readable(partition, start, log_range.high)
        if offsets[partition] == start:
            raise ReplayRefused(_nothing_to_skip(found.at, state, start))
    return FromFile(offsets)


def _nothing_to_skip(at: GroupTopic, state: PartitionState, start: int) -> str:
    return (
        f"{at.topic}-{state.partition} can be read at {start}, where group {at.group_id} stands: there is no batch "
        "to be skipped.\nEither what lies before the batch is still being worked on: repeat when CURRENT-OFFSET no "
        "longer moves. Or the log was mended: go on with --retry"
    )


def _plan(found: Standstill, target: Target) -> list[PlannedOffset]:
    planned = plan_offsets(target, found.logs, {p: state.next_offset for p, state in found.states.items()})
    if isinstance(target, ToCurrent):
        moved = [plan for plan in planned if plan.current not in (None, plan.next_offset)]
        if moved:
            raise ReplayRefused(
                f"cannot go on with {found.at.topic} where it stopped: "
                + "; ".join(f"partition {p.partition} stands at {p.current}, {p.note}" for p in moved)
            )
    return [_with_cost(found, plan) for plan in planned]


def _with_cost(found: Standstill, plan: PlannedOffset) -> PlannedOffset:
    state = found.states[plan.partition]
    cost = cost_of(state, plan.log, plan.next_offset)
    return replace(
        plan,
        note=f"{plan.note}; {cost}" if plan.note else cost,
        given_up=given_up(state, plan.log, plan.next_offset),
    )


def _choices(state: PartitionState, log_range: LogRange) -> list[Choice]:
    low, high, current = log_range.low, log_range.high, state.next_offset
    choices = []
    if current is None or low <= current <= high:
        choices.append(Choice("--retry", current, "nothing is given up; it stops again unless the log has been mended"))
    if state.stopped == "unreadable":
        choices.append(Choice("--skip-batch", None, "the batch is given up; which offsets, it says before it does it"))
    else:
        choices.append(Choice("--to-earliest", low, cost_of(state, log_range, low)))
    choices += [
        Choice("--to-latest", high, cost_of(state, log_range, high)),
        Choice("--to-offset N", None, "what is not finished below N is given up"),
    ]
    return choices


def _print_choices(found: Standstill, as_json: bool) -> None:
    at, states, logs = found.at, found.states, found.logs
    numbers = sorted(states)
    if as_json:
        print_json(
            {
                "group": at.group_id,
                "topic": at.topic,
                "cluster_id": at.cluster_id,
                "topic_id": at.topic_id,
                "partitions": [_fields(states[p], logs[p]) for p in numbers],
            }
        )
        return
    if not numbers:
        note(f"no partition of {at.topic} stopped for group {at.group_id}")
        return
    rows = [
        [at.group_id, at.topic, p, states[p].next_offset, logs[p].low, logs[p].high, states[p].stopped] for p in numbers
    ]
    make_console().print(make_table(["GROUP", "TOPIC", *_NUMBERS, "STOPPED"], rows, right=_NUMBERS))
    for number in numbers:
        _tell(states, logs, number)
    note("nothing was changed; repeat with one of these and --execute to do it")


def _tell(states: Mapping[int, PartitionState], logs: Mapping[int, LogRange], number: int) -> None:
    state = states[number]
    note(f"\npartition {number}: {state.stopped_because}")
    choices: Sequence[Choice] = _choices(state, logs[number])
    for choice in choices:
        to = "" if choice.next_offset is None else f"from {choice.next_offset}: "
        note(f"  {choice.option:14} {to}{choice.cost}")


def _fields(state: PartitionState, log_range: LogRange) -> dict[str, Any]:
    return {
        "partition": state.partition,
        "stopped": state.stopped,
        "stopped_because": state.stopped_because,
        "current_offset": state.next_offset,
        "log_start_offset": log_range.low,
        "log_end_offset": log_range.high,
        "choices": [
            {"option": choice.option, "new_offset": choice.next_offset, "cost": choice.cost}
            for choice in _choices(state, log_range)
        ],
    }
