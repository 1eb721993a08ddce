"""`fanfold status`: how far fan-outs and partitions are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from fanfold_consumer.admin import (
    PartitionRow,
    TopicFacts,
    current_partitions,
    done_count,
    fan_out_fields,
    is_overdue,
    open_store,
    partition_fields,
    partition_rows,
    read_topic_facts,
    settle_ends,
)
from fanfold_consumer.cli.options import database_option, json_option
from fanfold_consumer.cli.render import brief, make_console, make_table, note, print_json
from fanfold_consumer.errors import FanfoldError
from fanfold_producer.errors import KafkaConfigError
from fanfold_producer.kafka import KafkaConfig
from fanfold_sql import FanOutState, PartitionState, Store

_STYLES = {"open": "cyan", "folding": "yellow", "done": "green", "failed": "red", "stale": "dim", "cancelled": "dim"}
_BAR_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show."""

    fan_out_id: str | None
    group: str | None
    topic: str | None
    state: str | None
    limit: int
    all_topic_ids: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """What there is. `partitions` None: a single fan-out was asked for."""

    fan_outs: list[FanOutState]
    partitions: list[PartitionRow] | None
    problem: str | None
    at: datetime


@click.command()
@click.argument("fan_out_id", required=False)
@click.option("--group", help="Partitions of this group only.")
@click.option("--topic", help="Partitions of this topic only.")
@click.option(
    "--state",
    type=click.Choice(list(_STYLES)),
    help="Fan-outs in this state only.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Fan-outs, newest first.")
@click.option("--all", "all_topic_ids", is_flag=True, help="Also progress kept for earlier topics of the same name.")
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="Look again every so often, until Ctrl-C; with FAN_OUT_ID until it is done or failed.",
)
@database_option
@click.option(
    "--bootstrap-servers",
    envvar="KAFKA_BOOTSTRAP_SERVERS",
    show_envvar=True,
    help="Kafka brokers, for LOG-END-OFFSET and LAG. Optional.",
)
@click.option("-X", "properties", multiple=True, metavar="KEY=VALUE", help="librdkafka setting. Repeatable.")
@json_option
def status(
    fan_out_id: str | None,
    group: str | None,
    topic: str | None,
    state: str | None,
    limit: int,
    all_topic_ids: bool,
    watch_s: float | None,
    database_url: str,
    bootstrap_servers: str | None,
    properties: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show fan-outs with their progress, and partitions with their offsets and lag.

    ISLANDS is how many offsets above CURRENT-OFFSET are finished already; SEEN, how long ago the owner last
    said that it lives. Kafka is asked for the ends of the log only; without it, the rest is shown.
    """
    wanted = Wanted(fan_out_id, group, topic, state, limit, all_topic_ids)
    kafka = _kafka(bootstrap_servers, properties)
    try:
        asyncio.run(_show(wanted, database_url, kafka, watch_s, as_json))
    except KeyboardInterrupt:
        if watch_s is None:
            raise


def _kafka(bootstrap_servers: str | None, properties: Sequence[str]) -> KafkaConfig | str:
    try:
        return KafkaConfig.from_env(bootstrap_servers, properties)
    except KafkaConfigError as error:
        if bootstrap_servers or properties:
            raise
        return "; ".join(error.problems)


async def _show(
    wanted: Wanted, database_url: str, kafka: KafkaConfig | str, watch_s: float | None, as_json: bool
) -> None:
    async with open_store(database_url) as store:
        picture = await _look(store, wanted, kafka)
        with _display(as_json, watched=watch_s is not None) as show:
            show(picture)
            while watch_s is not None and not _settled(wanted, picture):
                await asyncio.sleep(watch_s)
                picture = await _look(store, wanted, kafka)
                show(picture)


@contextmanager
def _display(as_json: bool, *, watched: bool) -> Iterator[Callable[[Picture], None]]:
    """How a picture is shown: as JSON, in place on a terminal that watches, else one below the other."""
    console = make_console(in_place=watched)

    def print_below(picture: Picture) -> None:
        console.print(_render(picture))
        _explain(picture)

    if as_json:
        yield lambda picture: print_json(_fields(picture))
    elif watched and console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda picture: live.update(_render(picture), refresh=True)
    else:
        yield print_below


def _settled(wanted: Wanted, picture: Picture) -> bool:
    return wanted.fan_out_id is not None and picture.fan_outs[0].ended


async def _look(store: Store, wanted: Wanted, kafka: KafkaConfig | str) -> Picture:
    now = datetime.now(UTC)
    if wanted.fan_out_id is not None:
        found = await store.read_fan_out(wanted.fan_out_id)
        if found is None:
            raise FanfoldError(
                f"nothing is known of fan-out {wanted.fan_out_id}: it appears here when its first result is "
                "committed. Check the id, and that a fleet consumes its topic (`fanfold status`)"
            )
        return Picture([found], None, None, now)
    fan_outs = await store.list_fan_outs(state=wanted.state, limit=wanted.limit)
    states = await store.list_partitions(wanted.group, wanted.topic)
    facts = await asyncio.to_thread(_facts, kafka, states)
    if not wanted.all_topic_ids:
        states = current_partitions(states, facts)
    return Picture(fan_outs, partition_rows(states, facts), facts.problem, now)


def _facts(kafka: KafkaConfig | str, states: list[PartitionState]) -> TopicFacts:
    if isinstance(kafka, str):
        return TopicFacts(problem=kafka)
    if not states:
        return TopicFacts()
    return settle_ends(kafka, states, read_topic_facts(kafka, (state.topic for state in states)))


def _fields(picture: Picture) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "at": picture.at.isoformat(),
        "fan_outs": [fan_out_fields(state, picture.at) for state in picture.fan_outs],
    }
    if picture.partitions is not None:
        fields["partitions"] = [partition_fields(row) for row in picture.partitions]
        fields["kafka_problem"] = picture.problem
    return fields


def _explain(picture: Picture) -> None:
    if picture.partitions and picture.problem:
        note(f"note: LOG-END-OFFSET and LAG are not known everywhere: {picture.problem}")
    stopped = [row.state for row in picture.partitions or () if row.state.stopped is not None]
    for group, topic in dict.fromkeys((state.group_id, state.topic) for state in stopped):
        note(f"note: partitions stopped; what can be done: `fanfold resolve --group {group} --topic {topic}`")


def _render(picture: Picture) -> RenderableType:
    fan_outs = fan_out_table(picture.fan_outs, picture.at) if picture.fan_outs else Text("no fan-outs")
    if picture.partitions is None:
        return fan_outs
    partitions = _partition_table(picture.partitions) if picture.partitions else Text("no partitions")
    return Group(fan_outs, Text(), partitions)


def fan_out_table(fan_outs: Sequence[FanOutState], now: datetime) -> RenderableType:
    return make_table(
        [
            "FAN-OUT",
            "THREAD",
            "STATE",
            "PROGRESS",
            "DONE",
            "FAILED",
            "REMAINING",
            "SIZE",
            "RUN",
            "FOLD",
            "AGE",
        ],
        [
            [
                state.fan_out_id,
                state.thread_id,
                Text(
                    f"{state.state} (overdue)" if is_overdue(state, now) else state.state,
                    style=_STYLES.get(state.state, ""),
                ),
                ProgressBar(state.size, state.size - state.remaining, width=_BAR_COLUMNS),
                done_count(state),
                state.failed,
                state.remaining,
                state.size,
                state.run,
                state.fold,
                brief(now - state.created_at),
            ]
            for state in fan_outs
        ],
        right=["DONE", "FAILED", "REMAINING", "SIZE", "RUN", "AGE"],
    )


def _partition_table(rows: Sequence[PartitionRow]) -> RenderableType:
    numbers = ["PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "EPOCH", "ISLANDS", "SEEN"]
    return make_table(
        ["GROUP", "TOPIC", *numbers[:4], "OWNER", *numbers[4:], "STOPPED"],
        [
            [
                row.state.group_id,
                row.state.topic,
                row.state.partition,
                row.state.next_offset,
                row.end,
                row.lag,
                None if row.state.owner is None else str(row.state.owner)[:8],
                row.state.epoch,
                sum(high - low for low, high in row.state.islands),
                None if row.state.idle_seconds is None else f"{brief(row.state.idle_seconds)} ago",
                None if row.state.stopped is None else Text(row.state.stopped, style="red"),
            ]
            for row in rows
        ],
        right=numbers,
    )
