"""`fanfold audit`: is every task of a topic accounted for?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from fanfold_consumer.admin import open_store
from fanfold_consumer.audit import Auditor, Passed, Report, Scope
from fanfold_consumer.audit.retention import what_is_gone
from fanfold_consumer.cli.audit_output import print_report, show_progress
from fanfold_consumer.cli.options import database_option, json_option, kafka_options, parsed
from fanfold_consumer.cli.prune import parse_age
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.plan import LogRange
from fanfold_consumer.replay.survey import existing_partitions, look_up, measure_log
from fanfold_consumer.replay.targets import parse_datetime, parse_duration, parse_partitions
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import check_id
from fanfold_sql import PartitionState, Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. Offsets and times None: from the beginning, to the end."""

    topic: str
    group: str | None
    partitions: frozenset[int] | None
    from_offset: int | None
    to_offset: int | None
    from_ms: int | None
    to_ms: int | None
    thread_id: str | None
    fan_out_id: str | None
    pruned: datetime | None

    @property
    def whole(self) -> bool:
        given = (self.partitions, self.from_offset, self.to_offset, self.from_ms, self.to_ms)
        return all(value is None for value in given)


@click.command()
@click.option("--topic", required=True, help="The topic to read.")
@click.option("--group", help="Judge by where this group stands; default: by where all that read the topic do.")
@click.option("--partitions", callback=parsed(parse_partitions), help="Only these, as in 0,3-5.")
@click.option("--from-offset", type=click.IntRange(min=0), metavar="N", help="From this offset.")
@click.option("--to-offset", type=click.IntRange(min=0), metavar="N", help="To this offset, itself left out.")
@click.option(
    "--from-datetime",
    callback=parsed(parse_datetime),
    metavar="ISO8601",
    help="From the first record at or after this time; UTC unless it says otherwise.",
)
@click.option(
    "--to-datetime",
    callback=parsed(parse_datetime),
    metavar="ISO8601",
    help="To the first record at or after this time, itself left out.",
)
@click.option(
    "--by-duration",
    callback=parsed(parse_duration),
    metavar="ISO8601",
    help="From the first record of the last so long, as in PT2H or P7D.",
)
@click.option(
    "--thread", "thread_id", callback=parsed(lambda text: check_id(text, "--thread")), help="Only this thread."
)
@click.option(
    "--fan-out", "fan_out_id", callback=parsed(lambda text: check_id(text, "--fan-out")), help="Only this fan-out."
)
@click.option(
    "--prune-older-than",
    "age",
    callback=parsed(parse_age),
    metavar="AGE",
    help="As given to `fanfold prune`, 30d say: what is older and gone was deleted by intention.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="Findings to show; all are counted.",
)
@kafka_options
@database_option
@json_option
def audit(
    kafka: KafkaConfig,
    database_url: str,
    topic: str,
    group: str | None,
    partitions: frozenset[int] | None,
    from_offset: int | None,
    to_offset: int | None,
    from_datetime: int | None,
    to_datetime: int | None,
    by_duration: timedelta | None,
    thread_id: str | None,
    fan_out_id: str | None,
    age: timedelta | None,
    limit: int,
    as_json: bool,
) -> None:
    """Read a topic, or a range of it, and hold it against the tables: what is done, waiting, refused, dead or missing.

    It only reads, and members may go on working. Exit status 1: something is not accounted for.

    \b
    fanfold audit --topic t
    fanfold audit --topic t --group g --by-duration PT2H
    fanfold audit --topic t --thread order-17 --json
    """
    if sum(value is not None for value in (from_offset, from_datetime, by_duration)) > 1:
        raise click.UsageError("--from-offset, --from-datetime and --by-duration contradict each other; give one")
    if to_offset is not None and to_datetime is not None:
        raise click.UsageError("--to-offset and --to-datetime contradict each other; give one")
    now = datetime.now(UTC)
    from_ms = from_datetime if by_duration is None else int((now - by_duration).timestamp() * 1000)
    pruned = None if age is None else now - age
    wanted = Wanted(
        topic, group, partitions, from_offset, to_offset, from_ms, to_datetime, thread_id, fan_out_id, pruned
    )
    kafka = kafka.muted(but_warnings=True)
    if not asyncio.run(_audit(kafka, database_url, wanted, limit, as_json)):
        raise click.exceptions.Exit(1)


async def _audit(kafka: KafkaConfig, database_url: str, wanted: Wanted, limit: int, as_json: bool) -> bool:
    async with open_store(database_url) as store:
        scope = await _scope(kafka, store, wanted)
        report = Report(limit)
        if not scope.passed.groups:
            whose = "no group reads it" if wanted.group is None else f"group {wanted.group} has no progress there"
            report.notes.append(f"{whose}: what has no result is taken to wait")
        if scope.incomplete is not None:
            report.notes.append(
                f"{scope.incomplete}: results without a task, and tasks that were never published, are not looked for"
            )
        auditor = Auditor(
            store,
            scope,
            report,
            open_reader=lambda: LogReader(kafka, scope.topic),
            measure=lambda: measure_log(kafka, scope.topic, range(scope.partitions)),
        )
        with show_progress(scope) as on_read:
            await auditor.run(on_read)
    print_report(scope, report, as_json)
    return report.is_clean


async def _scope(kafka: KafkaConfig, store: Store, wanted: Wanted) -> Scope:
    cluster_id, topic_id, count = await asyncio.to_thread(look_up, kafka, wanted.topic)
    partitions = existing_partitions(wanted.topic, wanted.partitions, count)
    # Progress before the ends of the log: what a group passes from here on is not held against it.
    states = await store.list_partitions(None, wanted.topic)
    here = [state for state in states if (state.cluster_id, state.topic_id) == (cluster_id, topic_id)]
    passed = Passed(state for state in here if wanted.group in (None, state.group_id))
    logs = await asyncio.to_thread(measure_log, kafka, wanted.topic, partitions, wanted.from_ms)
    upto = logs
    if wanted.to_ms is not None:
        upto = await asyncio.to_thread(measure_log, kafka, wanted.topic, partitions, wanted.to_ms)
    incomplete: str | None = "only a part of the topic was read"
    if wanted.whole:
        incomplete = await asyncio.to_thread(what_is_gone, kafka, wanted.topic, logs)
    return Scope(
        wanted.topic,
        cluster_id,
        topic_id,
        {partition: _range(wanted, log, upto[partition]) for partition, log in logs.items()},
        count,
        passed,
        incomplete,
        earlier_topic=_was_another(states, here),
        pruned=wanted.pruned,
        thread_id=wanted.thread_id,
        fan_out_id=wanted.fan_out_id,
    )


def _was_another(states: list[PartitionState], here: list[PartitionState]) -> bool:
    return len(states) > len(here)


def _range(wanted: Wanted, log: LogRange, upto: LogRange) -> tuple[int, int]:
    low, high = log.low, log.high
    if wanted.from_ms is not None:
        low = log.high if log.at_time is None else log.at_time
    if wanted.to_ms is not None and upto.at_time is not None:
        high = upto.at_time
    low, high = max(low, wanted.from_offset or 0), high if wanted.to_offset is None else min(high, wanted.to_offset)
    return min(low, log.high), max(min(high, log.high), min(low, log.high))
