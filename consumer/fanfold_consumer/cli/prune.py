"""`fanfold prune`: delete what is finished and old."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from datetime import UTC, datetime, timedelta

import click

from fanfold_consumer.admin import open_store
from fanfold_consumer.cli.options import claim_store_option, database_option, json_option
from fanfold_consumer.cli.render import note, print_json
from fanfold_consumer.replay.targets import parse_duration
from fanfold_producer.claim_store import ClaimStore, Swept
from fanfold_sql import Pruned

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_is_age = re.compile(r"^(\d{1,6})([smhdw])\Z").match


def parse_age(text: str) -> timedelta:
    """`90s`, `30m`, `12h`, `7d`, `4w`, or an ISO 8601 duration like `P7D`."""
    found = _is_age(text)
    if found is not None:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no age like 30m, 12h, 7d, 4w or P7D") from None


def _age(_context: click.Context, _parameter: click.Parameter, value: str) -> timedelta:
    try:
        age = parse_age(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if age > timedelta(days=36_500):
        raise click.BadParameter(f"{value} is more than a hundred years")
    return age


@click.command()
@click.option(
    "--older-than",
    "age",
    required=True,
    callback=_age,
    metavar="AGE",
    help="How long ago it must have been created and finished: 30m, 12h, 7d, 4w or ISO 8601 (P7D).",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Fan-outs, and dead letters, deleted in one transaction at most.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@claim_store_option
@database_option
@json_option
def prune(age: timedelta, batch: int, yes: bool, claim_store: str | None, database_url: str, as_json: bool) -> None:
    """Delete finished fan-outs with their results, and dead letters, that are old.

    Nothing unfinished is deleted, and progress is kept. A task of a deleted fan-out that is replayed runs
    again as if it were new: keep results for as long as the topic keeps records.

    With a claim store, also its objects that are old and whose fan-outs this database does not have (any more).
    """
    objects = None if claim_store is None else ClaimStore.open(claim_store)
    before = datetime.now(UTC) - age
    if not yes:
        click.confirm(
            f"Delete for good what was finished or parked before {before:%Y-%m-%d %H:%M:%S} UTC"
            f"{_orphans(database_url, objects, before)}?",
            abort=True,
            err=True,
        )
    total = asyncio.run(_prune(database_url, before, batch))
    swept = None if objects is None else asyncio.run(_sweep(database_url, objects, before))
    if as_json:
        counts = {} if swept is None else {"objects": swept.objects, "object_bytes": swept.bytes}
        print_json({"before": before.isoformat(), **dataclasses.asdict(total), **counts})
    else:
        click.echo(
            f"deleted {total.fan_outs} fan-outs, {total.results} results, {total.threads} threads, "
            f"{total.dead_letters} dead letters"
            + ("" if swept is None else f", {swept.objects} objects ({swept.bytes:,} bytes)")
        )
    if not (total.fan_outs or total.dead_letters or (swept is not None and swept.objects)):
        note("nothing was that old")


async def _prune(database_url: str, before: datetime, batch: int) -> Pruned:
    total = Pruned(0, 0, 0, 0)
    async with open_store(database_url) as store:
        while True:
            gone = await store.prune(before, limit=batch)
            if not gone.fan_outs and not gone.dead_letters:
                return total
            total = Pruned(
                total.fan_outs + gone.fan_outs,
                total.results + gone.results,
                total.threads + gone.threads,
                total.dead_letters + gone.dead_letters,
            )


async def _sweep(database_url: str, objects: ClaimStore, before: datetime, *, delete: bool = True) -> Swept:
    """After the rows, so that the objects of what has just been deleted go with it."""
    async with open_store(database_url) as store:
        return await objects.sweep(before, store.existing_fan_outs, delete=delete)


def _orphans(database_url: str, objects: ClaimStore | None, before: datetime) -> str:
    """What a claim store has beyond that, for the question: a wrong database is noticed by a large number here."""
    if objects is None:
        return ""
    found = asyncio.run(_sweep(database_url, objects, before, delete=False))
    return (
        f", with its objects in {objects.name} and {found.objects} more ({found.bytes:,} bytes) "
        "whose fan-outs this database does not have"
    )
