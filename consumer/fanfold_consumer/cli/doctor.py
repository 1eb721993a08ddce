"""`fanfold doctor`: is everything around a fleet as its guarantees need it?"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from textwrap import shorten
from typing import Any

import click
from rich.text import Text

from fanfold_consumer.cli.options import database_option, json_option, kafka_options, parsed
from fanfold_consumer.cli.prune import parse_age
from fanfold_consumer.cli.render import make_console, make_table, note, print_json
from fanfold_consumer.config import FleetConfig
from fanfold_consumer.doctor import Finding, Status, diagnose
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import DEFAULT_TOPIC

_STYLES: dict[Status, str] = {"fail": "bold red", "warn": "yellow", "skipped": "dim", "ok": "green"}
# In the table, where what is wrong stands in full below.
_VALUE_CHARS = 80
_DEFAULTS: Any = FleetConfig.__dataclass_fields__


@click.command()
@click.option("--topic", default=DEFAULT_TOPIC, show_default=True, help="The topic to look at.")
@click.option("--group", help="Count the members of this group only.")
@click.option(
    "--members",
    type=click.IntRange(1, 10_000),
    help="Members there are to be; default: those that hold partitions now.",
)
@click.option(
    "--pool-size", type=int, default=_DEFAULTS["pool_size"].default, show_default=True, help="As given to members."
)
@click.option(
    "--batch-results-max",
    type=int,
    default=_DEFAULTS["batch_results_max"].default,
    show_default=True,
    help="As given to members.",
)
@click.option("--prepare/--no-prepare", default=True, help="As given to members.")
@click.option(
    "--database-cores",
    type=click.IntRange(1, 10_000),
    help="Cores of the database server; default: this machine's if it runs here.",
)
@click.option(
    "--prune-older-than",
    "prune_after",
    callback=parsed(parse_age),
    metavar="AGE",
    help="As given to `fanfold prune`: 30d, say.",
)
@click.option("--strict", is_flag=True, help="Exit status 1 after warnings, too.")
@database_option
@kafka_options
@json_option
def doctor(
    topic: str,
    group: str | None,
    members: int | None,
    pool_size: int,
    batch_results_max: int,
    prepare: bool,
    database_cores: int | None,
    prune_after: timedelta | None,
    strict: bool,
    database_url: str,
    kafka: KafkaConfig,
    as_json: bool,
) -> None:
    """Check Postgres, PgBouncer, Kafka and the clients' settings, and say how to mend what is wrong.

    Nothing is changed or written anywhere. Run it as the role, and with the options, that members have. Exit
    status 1 if something failed.
    """
    config = FleetConfig(
        # A name is needed to make a consumer for its settings; it joins nothing.
        group_id=group or "fanfold-doctor",
        topics=(topic,),
        kafka=kafka,
        database_url=database_url,
        pool_size=pool_size,
        batch_results_max=batch_results_max,
        prepare=prepare,
    )
    config.check()
    findings = asyncio.run(
        diagnose(config, group=group, members=members, database_cores=database_cores, prune_after=prune_after)
    )
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        _show(findings)
    bad = ("fail", "warn") if strict else ("fail",)
    sys.exit(1 if any(finding.status in bad for finding in findings) else 0)


def _show(findings: Sequence[Finding]) -> None:
    columns = ["STATUS", "CHECK", "VALUE", "BOUND"]
    make_console().print(make_table(columns, [_row(finding) for finding in findings]))
    for finding in filter(_to_mend, findings):
        click.echo(f"\n{finding.status} {finding.check}: {finding.value}\n  why: {finding.why}\n  fix: {finding.fix}")
    counts = Counter(finding.status for finding in findings)
    note("\n" + ", ".join(f"{counts[status]} {status}" for status in _STYLES))


def _row(finding: Finding) -> list[object]:
    value = shorten(finding.value, _VALUE_CHARS, placeholder="…") if _to_mend(finding) else finding.value
    return [Text(finding.status, style=_STYLES[finding.status]), finding.check, value, finding.bound]


def _to_mend(finding: Finding) -> bool:
    return finding.status in ("fail", "warn")
