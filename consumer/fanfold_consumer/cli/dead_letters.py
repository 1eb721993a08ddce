"""`fanfold dead-letters`: look at parked records, send them again, or be done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from fanfold_consumer.admin import open_store
from fanfold_consumer.cli.dead_letters_output import Teller, print_list, print_one
from fanfold_consumer.cli.options import database_option, json_option, kafka_options
from fanfold_consumer.cli.prune import parse_age
from fanfold_consumer.errors import FanfoldError
from fanfold_consumer.redrive import Action, Decision, Outlook, Why, chunks, preview, redrive, resolved
from fanfold_consumer.replay.requeue import persist
from fanfold_consumer.replay.targets import parse_datetime
from fanfold_producer.errors import TopicMissing
from fanfold_producer.kafka import KafkaConfig, cluster_and_topics
from fanfold_sql import DeadLetterFilter, FanOutState, Store, StoredDeadLetter, StoreUnavailable
from fanfold_sql.dead_letters import resolve_dead_letters

Command = TypeVar("Command", bound=Callable[..., Any])


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.now(UTC) - parse_age(value)
    except ValueError:
        pass
    except OverflowError as error:
        raise click.BadParameter(f"{value} ago is before all time") from error
    try:
        return datetime.fromtimestamp(parse_datetime(value) / 1000, UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value[:40]!r} is no time like 2030-01-31T12:00 (UTC) and no age like 30m, 12h, 7d or PT2H"
        ) from error


def _filters(command: Command) -> Command:
    """Adds the options that choose letters; the command gets them as keyword arguments for `_where`."""
    for option in reversed(
        (
            click.option("--topic", help="Records of this topic only."),
            click.option("--group", "group_id", help="Parked by this group only."),
            click.option("--thread", "thread_id", metavar="ID", help="Tasks of this thread only."),
            click.option("--fan-out", "fan_out_id", metavar="ID", help="Tasks of this fan-out only."),
            click.option("--task", "task_id", metavar="ID", help="This task only."),
            click.option(
                "--code", "codes", multiple=True, metavar="CODE", help="Of this code. Repeatable: any of them."
            ),
            click.option(
                "--since",
                callback=_moment,
                metavar="TIME",
                help="Parked at or after this time: ISO 8601, UTC unless it says otherwise, or an age (30m, 7d, PT2H).",
            ),
            click.option(
                "--until", callback=_moment, metavar="TIME", help="Parked before this time, written likewise."
            ),
        )
    ):
        command = option(command)
    return command


def _where(**given: Any) -> DeadLetterFilter:
    """What is not given (None, or no code) lets all pass."""
    return DeadLetterFilter(**{name: value for name, value in given.items() if value})


_ids = click.argument("ids", nargs=-1, type=click.IntRange(min=1), metavar="[ID]...")
_limit = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="So many at most, the oldest first.")
_execute = click.option("--execute", is_flag=True, help="Do it. Without it, only say what would be done.")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at parked records, send them again, or be done with them."""


@dead_letters.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Oldest first.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="ID", help="Those with a higher id only.")
@click.option("--all", "resolved_too", is_flag=True, help="Also those that were redriven or dropped.")
@database_option
@json_option
def list_(limit: int, after: int, resolved_too: bool, database_url: str, as_json: bool, **filters: Any) -> None:
    """List parked records, oldest first, and count them by code."""
    where = replace(_where(**filters), unresolved=not resolved_too)

    async def read() -> None:
        async with open_store(database_url) as store:
            counts = await store.count_dead_letters(where)
            letters = await store.list_dead_letters(where, after=after, limit=limit)
        print_list(letters, counts, resolved_too=resolved_too, as_json=as_json)

    asyncio.run(read())


@dead_letters.command()
@click.argument("dead_letter_id", type=click.IntRange(min=1), metavar="ID")
@click.option(
    "--value-to",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the record's value, as it was, to a file that does not exist yet.",
)
@database_option
@json_option
def show(dead_letter_id: int, value_to: Path | None, database_url: str, as_json: bool) -> None:
    """Show one parked record: where it stood, why it was parked, what is in it, and what redriving it would do."""
    found, fan_out = asyncio.run(_read_one(database_url, dead_letter_id))
    letter = found.letter
    if value_to is not None:
        if letter.value is None:
            raise FanfoldError(f"dead letter {dead_letter_id} has no value to write to {value_to}")
        try:
            with value_to.open("xb") as file:
                file.write(letter.value)
        except OSError as error:
            raise FanfoldError(f"cannot write the value of dead letter {dead_letter_id}: {error}") from error
    print_one(found, fan_out, as_json=as_json)


async def _read_one(database_url: str, dead_letter_id: int) -> tuple[Decision, FanOutState | None]:
    async with open_store(database_url) as store:
        found = await preview(store, [dead_letter_id])
        if not found:
            raise FanfoldError(
                f"there is no dead letter {dead_letter_id}: it was pruned, or never was; "
                "`fanfold dead-letters list --all` shows those that there are"
            )
        fan_out_id = found[0].letter.fan_out_id
        return found[0], None if fan_out_id is None else await store.read_fan_out(fan_out_id)


@dead_letters.command("redrive")
@_ids
@_filters
@_limit
@_execute
@kafka_options
@database_option
@json_option
def redrive_(
    ids: tuple[int, ...],
    limit: int | None,
    execute: bool,
    kafka: KafkaConfig,
    database_url: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Send parked records again, by their ids or by a filter.

    A task that failed runs again under a new run: its fan-out waits for it, and folds anew. Any other record is
    published again as it was. What is redriven is redriven once; if it dies again, it is a new dead letter.
    """
    request = _request(ids, filters, limit, database_url)
    topics = _Topics(kafka.muted(but_warnings=True))

    async def act(store: Store, letters: Sequence[StoredDeadLetter]) -> list[Decision]:
        missing = await topics.missing({letter.topic for letter in letters})
        run = redrive if execute else preview
        return await run(store, [letter.dead_letter_id for letter in letters], missing)

    _go_through(request, Teller("redrive", "redriven", execute, as_json), act)


@dead_letters.command()
@_ids
@_filters
@_limit
@_execute
@database_option
@json_option
def drop(
    ids: tuple[int, ...], limit: int | None, execute: bool, database_url: str, as_json: bool, **filters: Any
) -> None:
    """Mark parked records as done with, by their ids or by a filter.

    They are not listed any more, and stay until they are pruned. Their fan-outs are not changed.
    """
    request = _request(ids, filters, limit, database_url)

    async def act(store: Store, letters: Sequence[StoredDeadLetter]) -> list[Decision]:
        dropped = {letter.dead_letter_id for letter in letters if letter.resolution is None}
        if execute:
            dropped = await persist(_drop, store, sorted(dropped))
        return [
            Decision(letter, _DROP if letter.dead_letter_id in dropped else resolved(letter.resolution) or _RESOLVED)
            for letter in letters
        ]

    _go_through(request, Teller("drop", "dropped", execute, as_json), act)


_DROP = Outlook(Action.DROP, None, "it is done with, and stays until it is pruned")
_RESOLVED = Outlook(None, Why.REDRIVEN, "it was redriven or dropped meanwhile")


async def _drop(store: Store, ids: Sequence[int]) -> set[int]:
    async with store.transaction() as connection:
        return await resolve_dead_letters(connection, ids, "dropped")


@dataclass(frozen=True, slots=True)
class _Request:
    """Which letters were asked for. `ids`: those that were named."""

    ids: tuple[int, ...]
    where: DeadLetterFilter
    limit: int | None
    database_url: str


def _request(ids: tuple[int, ...], filters: dict[str, Any], limit: int | None, database_url: str) -> _Request:
    where = _where(**filters)
    if bool(ids) == (where != DeadLetterFilter()):
        raise click.UsageError("say which dead letters: their ids, or a filter such as --topic or --code, but not both")
    if ids and limit is not None:
        raise click.UsageError("--limit goes with a filter; ids are few enough as they are")
    if ids:
        # Resolved ones, too: whoever names one wants to hear why nothing is done.
        return _Request(ids, DeadLetterFilter(ids=ids), limit, database_url)
    return _Request((), replace(where, unresolved=True), limit, database_url)


def _go_through(
    request: _Request,
    teller: Teller,
    act: Callable[[Store, Sequence[StoredDeadLetter]], Awaitable[list[Decision]]],
) -> None:
    """Do `act` with all that were asked for, piece by piece, and tell what became of each; exit 1 if one failed."""

    async def walk() -> None:
        async with open_store(request.database_url) as store:
            named = set(request.ids)
            async for letters in chunks(store, request.where, limit=request.limit):
                named.difference_update(letter.dead_letter_id for letter in letters)
                for decision in await act(store, letters):
                    teller.tell(decision)
            for dead_letter_id in sorted(named):
                teller.tell_unknown(dead_letter_id)

    try:
        asyncio.run(walk())
    except StoreUnavailable as error:
        raise FanfoldError(
            f"Postgres went away after {teller.done} dead letters: {error}. "
            "Repeat the command: what is done already is not done again"
        ) from error
    teller.sum_up()
    if teller.failed:
        raise click.exceptions.Exit(1)


class _Topics:
    """Which topics are there, asked once for each."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka
        self._there: set[str] = set()
        self._missing: set[str] = set()

    async def missing(self, topics: set[str]) -> set[str]:
        """Those of them that do not exist."""
        asked = topics - self._there - self._missing
        if asked:
            try:
                await asyncio.to_thread(cluster_and_topics, self._kafka, asked)
            except TopicMissing as error:
                self._missing.update(error.topics)
            self._there.update(asked - self._missing)
        return topics & self._missing
