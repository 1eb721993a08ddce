"""`fanfold thread ID`: everything that is kept for one thread."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from fanfold_consumer.admin import (
    FanOutDetail,
    ThreadDetail,
    dead_letter_fields,
    fan_out_fields,
    open_store,
    read_thread_detail,
    result_check,
    result_fields,
    value_bytes,
)
from fanfold_consumer.cli.options import database_option, json_option
from fanfold_consumer.cli.render import make_console, make_table, print_json, printable
from fanfold_consumer.cli.status import fan_out_table
from fanfold_consumer.errors import FanfoldError
from fanfold_schemas import FOLD_INDEX

_ERROR_CHARS = 100


@click.command()
@click.argument("thread_id")
@click.option(
    "--fan-outs",
    "fan_outs_max",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Newest first.",
)
@click.option(
    "--details",
    "details_max",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="For how many of them to list results and dead letters.",
)
@click.option(
    "--results",
    "results_max",
    type=click.IntRange(1, 100_001),
    default=50,
    show_default=True,
    help="Results, and dead letters, of a fan-out at most.",
)
@database_option
@json_option
def thread(
    thread_id: str, fan_outs_max: int, details_max: int, results_max: int, database_url: str, as_json: bool
) -> None:
    """Show a thread: its clock, its fan-outs, and the results and dead letters of the newest ones.

    Results are listed by index, the fold's own (`fold`) first; payloads are not shown.
    """
    detail = asyncio.run(_read(database_url, thread_id, fan_outs_max, details_max, results_max))
    if detail is None:
        raise FanfoldError(
            f"nothing is known of thread {thread_id}: it appears here when the first result for it is "
            "committed. Check the id, and that a fleet consumes its tasks (`fanfold status`)"
        )
    now = datetime.now(UTC)
    if as_json:
        print_json(_fields(detail, now))
    else:
        make_console().print(_render(detail, now))


async def _read(
    database_url: str, thread_id: str, fan_outs_max: int, details_max: int, results_max: int
) -> ThreadDetail | None:
    async with open_store(database_url) as store:
        return await read_thread_detail(
            store, thread_id, fan_outs_max=fan_outs_max, details_max=details_max, results_max=results_max
        )


def _fields(detail: ThreadDetail, now: datetime) -> dict[str, Any]:
    listed = {d.state.fan_out_id: d for d in detail.details}
    fan_outs = []
    for state in detail.fan_outs:
        fields = fan_out_fields(state, now)
        known = listed.get(state.fan_out_id)
        if known is not None:
            fields["results"] = [result_fields(result) for result in known.results]
            fields["dead_letters"] = [dead_letter_fields(letter) for letter in known.dead_letters]
        fan_outs.append(fields)
    return {
        "thread_id": detail.thread.thread_id,
        "clock": detail.thread.clock,
        "created_at": detail.thread.created_at.isoformat(),
        "fan_outs": fan_outs,
    }


def _render(detail: ThreadDetail, now: datetime) -> RenderableType:
    clock = ", ".join(f"{branch or repr('')}: {n}" for branch, n in sorted(detail.thread.clock.items()))
    parts: list[RenderableType] = [
        Text(f"thread  {detail.thread.thread_id}"),
        Text(f"clock   {printable(clock) or '-'}"),
        Text(f"since   {detail.thread.created_at:%Y-%m-%d %H:%M:%S %Z}"),
        Text(),
        fan_out_table(detail.fan_outs, now),
    ]
    for entry in detail.details:
        parts.extend(_fan_out_parts(entry))
    return Group(*parts)


def _fan_out_parts(entry: FanOutDetail) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(), Text(f"fan-out {entry.state.fan_out_id}", style="bold")]
    parts.append(
        make_table(
            ["INDEX", "TASK", "STATUS", "RUN", "BYTES", "COMMITTED", "CLAIM CHECK"],
            [
                [
                    "fold" if result.index == FOLD_INDEX else result.index,
                    result.task_id,
                    result.status,
                    result.run,
                    value_bytes(result),
                    f"{result.committed_at:%Y-%m-%d %H:%M:%S}",
                    None if (check := result_check(result)) is None else check.sha256,
                ]
                for result in entry.results
            ],
            right=["INDEX", "RUN", "BYTES"],
        )
    )
    finished = entry.state.size - entry.state.remaining
    listed = sum(result.index != FOLD_INDEX and result.status != "pending" for result in entry.results)
    if finished > listed:
        parts.append(Text(f"... and {finished - listed} more (`--results`)"))
    if entry.dead_letters:
        parts.append(
            make_table(
                ["DEAD LETTER", "TASK", "CODE", "RESOLUTION", "RECORD", "ERROR"],
                [
                    [
                        letter.dead_letter_id,
                        letter.task_id,
                        letter.code,
                        letter.resolution,
                        f"{letter.topic}-{letter.partition}@{letter.offset}",
                        letter.error.replace("\n", " ")[:_ERROR_CHARS],
                    ]
                    for letter in entry.dead_letters
                ],
                right=["DEAD LETTER"],
            )
        )
    return parts
