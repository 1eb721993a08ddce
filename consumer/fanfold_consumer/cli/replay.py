"""`fanfold replay`: read a topic again (`kafka-consumer-groups.sh --reset-offsets`), or publish tasks again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from fanfold_consumer.admin import open_store
from fanfold_consumer.cli.options import claim_store_option, database_option, json_option, kafka_options, parsed
from fanfold_consumer.cli.render import note
from fanfold_consumer.cli.replay_output import print_dry_run, print_executed, print_tally, reading_progress
from fanfold_consumer.cli.verify import Verification
from fanfold_consumer.cli.verify import verify as verify_range
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.plan import LogRange, PlannedOffset, plan_offsets
from fanfold_consumer.replay.rerun import republish
from fanfold_consumer.replay.reset import (
    GroupTopic,
    await_no_members,
    changes,
    live_members,
    read_progress,
    refuse_live_members,
    reset_partitions,
)
from fanfold_consumer.replay.sift import Selection
from fanfold_consumer.replay.survey import existing_partitions, look_up, measure_log
from fanfold_consumer.replay.targets import (
    FromFile,
    ShiftBy,
    Target,
    ToCurrent,
    ToEarliest,
    ToLatest,
    ToOffset,
    ToTime,
    format_offsets,
    parse_datetime,
    parse_duration,
    parse_offsets,
    parse_partitions,
)
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import SchemaError, check_id
from fanfold_sql import PartitionState, Store


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    kafka: KafkaConfig
    database_url: str
    group: str | None
    topic: str
    partitions: frozenset[int] | None
    target: Target
    execute: bool
    export: bool
    fence: bool
    wait_s: float
    as_json: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is: the topic's log and where the group stands in it (empty without a group)."""

    at: GroupTopic
    logs: dict[int, LogRange]
    states: dict[int, PartitionState]

    def plan(self, target: Target) -> list[PlannedOffset]:
        return plan_offsets(target, self.logs, {p: state.next_offset for p, state in self.states.items()})


def _since(text: str) -> int:
    return int((datetime.now(UTC) - parse_duration(text)).timestamp() * 1000)


@click.command()
@click.option("--group", help="The group that is to read again. Not needed with --thread and --rerun.")
@click.option("--topic", required=True, help="The topic; `name:0,3-5` names partitions too.")
@click.option("--partitions", callback=parsed(parse_partitions), help="Only these, as in 0,3-5.")
@click.option("--to-earliest", is_flag=True, help="From the beginning of the log.")
@click.option("--to-latest", is_flag=True, help="From the end of the log: skip what is there now.")
@click.option("--to-current", is_flag=True, help="From where the group stands; with --export, a backup.")
@click.option("--to-offset", type=click.IntRange(min=0), help="From this offset.")
@click.option("--shift-by", type=int, help="So many offsets forward, or back if negative.")
@click.option(
    "--to-datetime",
    callback=parsed(parse_datetime),
    metavar="ISO8601",
    help="From the first record at or after this time; UTC unless it says otherwise.",
)
@click.option(
    "--by-duration",
    callback=parsed(_since),
    metavar="ISO8601",
    help="From the first record of the last so long, as in PT2H or P7D.",
)
@click.option(
    "--from-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="From the offsets in a CSV file, as --export prints it.",
)
@click.option("--thread", "thread_id", help="Publish the tasks of this thread again, from the range that was named.")
@click.option(
    "--rerun",
    is_flag=True,
    help="Publish the tasks of the range with a new run: handlers run again, new results overwrite the old.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Run the handlers of tasks and folds of the range again without effect, and compare with what is stored. What "
    "handlers do outside they do again: run it where that is harmless.",
)
@click.option(
    "--handlers", multiple=True, metavar="MODULE", help="With --verify: module with @task and @fold. Repeatable."
)
@click.option("--fan-out", "fan_out_id", help="With --verify: only this fan-out.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=32,
    show_default=True,
    help="With --verify: handlers running at once.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="With --verify: the first so many tasks only.")
@click.option(
    "--sample", type=click.IntRange(1, 10_000), metavar="N", help="With --verify: so many tasks, chosen at random."
)
@click.option("--seed", type=int, default=0, show_default=True, help="With --sample: the same choice again.")
@click.option("--export", is_flag=True, help="Print `topic,partition,offset` lines and change nothing.")
@click.option("--execute", is_flag=True, help="Do it. Without it, only say what would be done.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done: the default.")
@click.option("--fence", is_flag=True, help="Take the partitions from live members; they go on by themselves.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="Wait so long for live members to be gone.",
)
@claim_store_option
@kafka_options
@database_option
@json_option
def replay(
    kafka: KafkaConfig,
    database_url: str,
    group: str | None,
    topic: str,
    partitions: frozenset[int] | None,
    to_earliest: bool,
    to_latest: bool,
    to_current: bool,
    to_offset: int | None,
    shift_by: int | None,
    to_datetime: int | None,
    by_duration: int | None,
    from_file: Path | None,
    thread_id: str | None,
    rerun: bool,
    verify: bool,
    handlers: tuple[str, ...],
    fan_out_id: str | None,
    concurrency: int,
    limit: int | None,
    sample: int | None,
    seed: int,
    export: bool,
    execute: bool,
    dry_run: bool,
    fence: bool,
    wait_s: float,
    claim_store: str | None,
    as_json: bool,
) -> None:
    """Read a topic again, from an offset or a time, or publish its tasks once more.

    Says what would be done; --execute does it. Replaying repairs: work that is committed is recognised and
    its handlers do not run. Only --rerun runs them again, and --verify, which changes nothing but compares.

    \b
    fanfold replay --group g --topic t --to-earliest --execute
    fanfold replay --topic t --thread order-17 --execute
    fanfold replay --topic t --by-duration PT2H --rerun --execute
    fanfold replay --topic t --verify --handlers tasks --sample 100
    """
    topic, partitions = _split_topic(topic, partitions)
    targets: dict[str, Target | None] = {
        "--to-earliest": ToEarliest() if to_earliest else None,
        "--to-latest": ToLatest() if to_latest else None,
        "--to-current": ToCurrent() if to_current else None,
        "--to-offset": None if to_offset is None else ToOffset(to_offset),
        "--shift-by": None if shift_by is None else ShiftBy(shift_by),
        "--to-datetime": None if to_datetime is None else ToTime(to_datetime),
        "--by-duration": None if by_duration is None else ToTime(by_duration),
        "--from-file": None if from_file is None else _file_target(from_file, topic, group),
    }
    verification = None
    if verify:
        verification = Verification(handlers, thread_id, fan_out_id, concurrency, limit, sample, seed, claim_store)
    _check_verification(verification, handlers, fan_out_id, rerun or export or execute or fence or wait_s > 0)
    selection = Selection(thread_id, rerun) if thread_id is not None or rerun or verify else None
    target = _one_target(targets, needed=selection is None)
    _check_combination(group, target, selection, execute, dry_run, export, fence or wait_s > 0)
    kafka = kafka.muted(but_warnings=True)
    request = Request(kafka, database_url, group, topic, partitions, target, execute, export, fence, wait_s, as_json)
    if verification is not None:
        if not asyncio.run(_verify(request, verification)):
            raise click.exceptions.Exit(1)
    elif selection is not None:
        asyncio.run(_republish(request, selection))
    elif not asyncio.run(_reset(request)):
        raise click.exceptions.Exit(1)


def _split_topic(topic: str, partitions: frozenset[int] | None) -> tuple[str, frozenset[int] | None]:
    # Kafka's tools write the partitions behind the topic's name, which can have no colon of its own.
    name, colon, numbers = topic.partition(":")
    if not colon:
        return topic, partitions
    if partitions is not None:
        raise click.UsageError("name partitions behind the topic or with --partitions, not both")
    try:
        return name, parse_partitions(numbers)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--topic") from error


def _file_target(file: Path, topic: str, group: str | None) -> FromFile:
    try:
        return FromFile(parse_offsets(file.read_text(encoding="utf-8"), topic=topic, group=group))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="--from-file") from error


def _one_target(targets: dict[str, Target | None], *, needed: bool) -> Target:
    given = {name: target for name, target in targets.items() if target is not None}
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} contradict each other; give one")
    if not given and needed:
        raise click.UsageError(f"say from where: one of {', '.join(targets)}")
    return next(iter(given.values()), ToEarliest())


def _check_verification(
    verification: Verification | None, handlers: tuple[str, ...], fan_out_id: str | None, changes_things: bool
) -> None:
    problems = []
    if verification is None:
        if handlers or fan_out_id is not None:
            problems.append("--handlers and --fan-out go with --verify")
    else:
        if not handlers:
            problems.append("--handlers is missing: which modules' handlers should be verified?")
        if changes_things:
            problems.append("--verify changes nothing: leave out --rerun, --execute, --export, --fence and --wait")
        if verification.limit is not None and verification.sample is not None:
            problems.append("--limit and --sample contradict each other; give one")
    if problems:
        raise click.UsageError("; ".join(problems))


def _check_combination(
    group: str | None,
    target: Target,
    selection: Selection | None,
    execute: bool,
    dry_run: bool,
    export: bool,
    about_members: bool,
) -> None:
    problems = []
    if sum((execute, dry_run, export)) > 1:
        problems.append("--execute, --dry-run and --export exclude each other")
    if selection is None and group is None:
        problems.append("--group is missing: whose offsets should be reset?")
    if selection is not None:
        if group is None and isinstance(target, ToCurrent | ShiftBy):
            problems.append("--to-current and --shift-by count from where a group stands: name it with --group")
        if export or about_members:
            problems.append(
                "--export, --fence and --wait are about a group's offsets; --thread and --rerun change none"
            )
        if selection.thread_id is not None:
            try:
                check_id(selection.thread_id, "--thread")
            except SchemaError as error:
                problems.append(error.detail)
    if problems:
        raise click.UsageError("; ".join(problems))


async def _reset(request: Request) -> bool:
    """Replay by offsets; whether all went as asked."""
    async with open_store(request.database_url) as store:
        survey = await _survey(request, store, wait_s=request.wait_s if request.execute else 0.0)
        planned = survey.plan(request.target)
        moving = [p.partition for p in planned if changes(p, survey.states.get(p.partition))]
        held = live_members(survey.states[p] for p in moving if p in survey.states)
        if request.export:
            click.echo(format_offsets(request.topic, ((p.partition, p.next_offset) for p in planned)), nl=False)
            return True
        if not request.execute:
            print_dry_run(survey.at, planned, held, request.as_json)
            return True
        if not request.fence:
            refuse_live_members(survey.at, held)
        outcomes = await reset_partitions(store, survey.at, planned, survey.states)
        print_executed(survey.at, planned, outcomes, request.as_json)
        return all(outcome.word in ("reset", "unchanged") for outcome in outcomes)


async def _republish(request: Request, selection: Selection) -> None:
    async with open_store(request.database_url) as store:
        survey = await _survey(request, store, wait_s=0.0)
        planned = survey.plan(request.target)
        ranges = {p.partition: (p.next_offset, p.log.high) for p in planned}
        with LogReader(request.kafka, request.topic) as reader:
            reader.start(ranges)
            with reading_progress(reader) as on_chunk:
                tally = await republish(
                    store, reader, request.topic, selection, execute=request.execute, on_chunk=on_chunk
                )
        print_tally(request.topic, selection, ranges, tally, request.execute, request.as_json)
        if request.execute and tally.queued:
            note("they are in the outbox; members that consume this topic publish them")


async def _verify(request: Request, verification: Verification) -> bool:
    async with open_store(request.database_url) as store:
        survey = await _survey(request, store, wait_s=0.0)
        ranges = {p.partition: (p.next_offset, p.log.high) for p in survey.plan(request.target)}
        return await verify_range(request.kafka, store, survey.at, ranges, verification, request.as_json)


async def _survey(request: Request, store: Store, *, wait_s: float) -> Survey:
    cluster_id, topic_id, count = await asyncio.to_thread(look_up, request.kafka, request.topic)
    at = GroupTopic(request.group or "", cluster_id, request.topic, topic_id)
    wanted = existing_partitions(request.topic, request.partitions, count)
    states: dict[int, PartitionState] = {}
    if request.group is not None:
        states = await _settled_progress(request, store, at, wanted, wait_s)
    at_ms = request.target.at_ms if isinstance(request.target, ToTime) else None
    logs = await asyncio.to_thread(measure_log, request.kafka, request.topic, wanted, at_ms)
    return Survey(at, logs, {p: state for p, state in states.items() if p in logs})


async def _settled_progress(
    request: Request, store: Store, at: GroupTopic, wanted: Sequence[int], wait_s: float
) -> dict[int, PartitionState]:
    if wait_s > 0:
        return await await_no_members(store, at, wanted, wait_s)
    return await read_progress(store, at)
