"""`fanfold publish`: a file's lines as the tasks of a fan-out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fanfold_consumer.cli.options import (
    claim_check_bytes_min_option,
    claim_store_option,
    database_option,
    json_option,
    kafka_options,
)
from fanfold_consumer.cli.render import note, print_json
from fanfold_consumer.errors import FanfoldError
from fanfold_producer.claim_store import ClaimStore
from fanfold_producer.errors import ProducerError
from fanfold_producer.fan_out import OnDeadline, build_fan_out, deadline_to_ms
from fanfold_producer.files import (
    LARGE_LINE_BYTES_MAX,
    LINE_BYTES_MAX,
    Format,
    Part,
    at_line,
    derive_fan_out_id,
    format_of,
    open_input,
    part_id,
    read_lines,
    read_parts,
)
from fanfold_producer.handle import FanOutHandle
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics, create_topics
from fanfold_producer.publisher import Publisher
from fanfold_schemas import DEFAULT_TOPIC, SchemaError, VectorClock, check_id, check_topic
from fanfold_schemas.limits import FAN_OUT_SIZE_MAX

_LOOK_EVERY_S = 0.5
_MOMENTS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make of the file."""

    name: str
    fmt: Format
    topic: str
    thread_id: str
    node: str | None
    fold: str | None
    base: dict[str, int]
    policy: dict[str, Any]
    deadline: datetime | None
    fan_out_id: str | None
    split: int | None
    claim_store: ClaimStore | None


def _base(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    base: dict[str, int] = {}
    for value in values:
        branch, equals, counter = value.rpartition("=")
        if not equals or not (counter.isascii() and counter.isdigit()):
            raise click.BadParameter(f"{value[:60]!r} is no branch=counter, such as main=3")
        if branch in base:
            raise click.BadParameter(f"branch {branch[:60]!r} is given twice")
        base[branch] = int(counter)
    try:
        return VectorClock(base).to_dict()
    except SchemaError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--topic", default=DEFAULT_TOPIC, show_default=True, help="Where to publish.")
@click.option("--thread", "thread_id", required=True, metavar="ID", help="The thread the tasks belong to.")
@click.option("--node", metavar="NAME", help="Handler of every task: then each line is only its argument.")
@click.option("--fold", metavar="NAME", help="What to fold the results with; none: they stand for themselves.")
@click.option("--base", multiple=True, callback=_base, metavar="BRANCH=N", help="Clock it derives from. Repeatable.")
@click.option("--quorum", type=click.IntRange(1, FAN_OUT_SIZE_MAX), help="So many successes complete a fan-out.")
@click.option(
    "--max-failures", type=click.IntRange(0, FAN_OUT_SIZE_MAX), help="More failed tasks end a fan-out as failed."
)
@click.option(
    "--deadline",
    type=click.DateTime(_MOMENTS),
    help="When a fan-out ends, complete or not: 2030-01-31T12:00:00+00:00, or UTC.",
)
@click.option(
    "--on-deadline",
    type=click.Choice(["fail", "fold"]),
    default="fail",
    show_default=True,
    help="Fail it, or fold the results it has.",
)
@click.option("--fan-out-id", metavar="ID", help="Default: derived from the contents and the options above.")
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["auto", "jsonl", "csv"]),
    default="auto",
    show_default=True,
    help="'auto': CSV if the name ends in .csv, else JSON Lines.",
)
@click.option(
    "--split",
    type=click.IntRange(1, FAN_OUT_SIZE_MAX),
    metavar="N",
    help="Publish fan-outs of N tasks each, under the ids <id>.N.0, <id>.N.1 and so on.",
)
@click.option(
    "--create-topic",
    "partitions",
    type=click.IntRange(1, 10_000),
    metavar="PARTITIONS",
    help="Create the topic first if there is none.",
)
@click.option(
    "--atomic/--no-atomic",
    default=True,
    show_default=True,
    help="A Kafka transaction a fan-out; --no-atomic for brokers without them.",
)
@click.option("--wait", is_flag=True, help="Wait for the result and print it. Needs the database.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer than this.")
@claim_store_option
@claim_check_bytes_min_option
@database_option
@kafka_options
@json_option
def publish(
    file: str,
    topic: str,
    thread_id: str,
    node: str | None,
    fold: str | None,
    base: dict[str, int],
    quorum: int | None,
    max_failures: int | None,
    deadline: datetime | None,
    on_deadline: OnDeadline,
    fan_out_id: str | None,
    fmt: str,
    split: int | None,
    partitions: int | None,
    atomic: bool,
    wait: bool,
    timeout_s: float | None,
    claim_store: str | None,
    claim_check_bytes_min: int,
    database_url: str,
    kafka: KafkaConfig,
    as_json: bool,
) -> None:
    """Publish a file's lines as the tasks of one fan-out; `-` reads standard input.

    JSON Lines: {"node": ..., "arg": ..., "task_id": ...} per line, task_id optional; with --node, any JSON value,
    which is the argument. CSV: a header, then each row as a map of text; needs --node.

    All lines are checked before anything is published. Publishing the same file again with the same options is
    the same work and is done once.
    """
    chosen: Format = format_of(file) if fmt == "auto" else "csv" if fmt == "csv" else "jsonl"
    if chosen == "csv" and node is None:
        raise click.UsageError("CSV rows name no handler: pass --node NAME")
    try:
        check_topic(topic)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--topic") from error
    check_id(thread_id, "--thread")
    for value, option in ((node, "--node"), (fold, "--fold"), (fan_out_id, "--fan-out-id")):
        if value is not None:
            check_id(value, option)
    name = "standard input" if file == "-" else file
    store = None if claim_store is None else ClaimStore.open(claim_store, bytes_min=claim_check_bytes_min)
    if on_deadline == "fold" and deadline is None:
        raise click.UsageError("--on-deadline fold needs a --deadline at which to fold")
    if deadline is not None and deadline.tzinfo is None:
        deadline = deadline.replace(tzinfo=UTC)
    policy = {"quorum": quorum, "max_failures": max_failures, "on_deadline": on_deadline}
    wanted = Wanted(name, chosen, topic, thread_id, node, fold, base, policy, deadline, fan_out_id, split, store)
    publisher = Publisher(
        kafka,
        topic=topic,
        database_url=database_url if wait else None,
        atomic=atomic,
        source="fanfold-cli",
        claim_store=store,
    )
    try:
        with open_input(file, sys.stdin.buffer) as source, publisher, _progress() as progress:
            handles = _publish(wanted, source, publisher, kafka, partitions, progress)
            if not as_json:
                _say_published(handles, topic)
            results = asyncio.run(_wait(handles, timeout_s, progress)) if wait else None
    except TimeoutError as error:
        raise FanfoldError(str(error)) from error
    except ProducerError as error:
        raise FanfoldError(str(error)) from error
    _print(handles, results, topic, as_json)


def _publish(
    wanted: Wanted,
    source: IO[bytes],
    publisher: Publisher,
    kafka: KafkaConfig,
    partitions: int | None,
    progress: Progress,
) -> list[FanOutHandle]:
    fan_out_id = wanted.fan_out_id or derive_fan_out_id(
        source, wanted.fmt, wanted.thread_id, wanted.node, wanted.fold, wanted.base
    )
    checking = progress.add_task("checking", total=None)
    only: list[Part] = []
    tasks = 0
    for number, part in enumerate(_parts(wanted, source, progress, checking)):
        tasks += len(part.sends)
        if wanted.split is None:
            only.append(part)  # one fan-out at most, which is checked as a whole when it is built
        else:
            _check(wanted, part, part_id(fan_out_id, wanted.split, number))
    progress.update(checking, total=tasks, completed=tasks)
    # Before the first record, so that a missing topic is one clear error and not a timeout for each of them.
    if partitions is not None:
        create_topics(kafka, {wanted.topic: partitions}, replication=-1)
    else:
        cluster_and_topics(kafka, [wanted.topic])
    publishing = progress.add_task("publishing", total=tasks)
    handles = []
    parts: Iterator[Part] = iter(only) if wanted.split is None else _parts(wanted, source)
    for number, part in enumerate(parts):
        try:
            handle = publisher.fan_out(
                wanted.thread_id,
                part.sends,
                fan_out_id=part_id(fan_out_id, wanted.split, number),
                fold=wanted.fold,
                base=wanted.base,
                deadline=wanted.deadline,
                **wanted.policy,
            )
        except SchemaError as error:
            raise at_line(wanted.name, part, error) from error
        handles.append(handle)
        progress.advance(publishing, len(part.sends))
    return handles


def _parts(wanted: Wanted, source: IO[bytes], progress: Progress | None = None, bar: Any = None) -> Iterator[Part]:
    def seen(number: int) -> None:
        if progress is not None and number % 1000 == 0:
            progress.update(bar, completed=number)

    line_bytes_max = LINE_BYTES_MAX if wanted.claim_store is None else LARGE_LINE_BYTES_MAX
    lines = read_lines(source, wanted.fmt, wanted.node, line_bytes_max)
    return read_parts(wanted.name, lines, split=wanted.split, seen=seen)


def _check(wanted: Wanted, part: Part, fan_out_id: str) -> None:
    try:
        build_fan_out(
            wanted.thread_id,
            part.sends,
            topic=wanted.topic,
            fan_out_id=fan_out_id,
            fold=wanted.fold,
            base=wanted.base,
            deadline_ms=deadline_to_ms(wanted.deadline, datetime.now(UTC), repeatable=True),
            **wanted.policy,
            claim_check_bytes_min=None if wanted.claim_store is None else wanted.claim_store.bytes_min,
        )
    except SchemaError as error:
        raise at_line(wanted.name, part, error) from error


async def _wait(handles: list[FanOutHandle], timeout_s: float | None, progress: Progress) -> list[Any]:
    """The results, waited for one after another; `timeout_s` is for each."""
    results = []
    for handle in handles:
        bar = progress.add_task(f"waiting for {handle.fan_out_id}", total=handle.size)
        waiting = asyncio.ensure_future(handle.aresult(timeout_s))
        while not (await asyncio.wait({waiting}, timeout=_LOOK_EVERY_S))[0]:
            state = await handle.aprogress()
            if state is not None:
                progress.update(bar, completed=state.size - state.remaining)
        results.append(await waiting)
        progress.update(bar, completed=handle.size)
    return results


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on stderr when that is a terminal, else nothing: pipes and logs get the summary only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _say_published(handles: list[FanOutHandle], topic: str) -> None:
    for handle in handles:
        note(f"published {handle.size} tasks of fan-out {handle.fan_out_id} to {topic}")


def _print(handles: list[FanOutHandle], results: list[Any] | None, topic: str, as_json: bool) -> None:
    if as_json:
        fan_outs: list[dict[str, Any]] = [
            {"fan_out_id": handle.fan_out_id, "thread_id": handle.thread_id, "size": handle.size, "topic": topic}
            for handle in handles
        ]
        if results is not None:
            for fan_out, result in zip(fan_outs, results, strict=True):
                fan_out["result"] = msgspec.to_builtins(result)
        print_json({"fan_outs": fan_outs})
    elif results is not None:
        for result in results:
            click.echo(msgspec.json.encode(result))
    else:
        for handle in handles:
            click.echo(handle.fan_out_id)


__all__ = ["publish"]
