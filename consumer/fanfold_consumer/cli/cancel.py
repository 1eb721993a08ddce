"""`fanfold cancel`: end a fan-out, or everything that a thread has open."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from fanfold_consumer.admin import open_store
from fanfold_consumer.cli.options import database_option, json_option
from fanfold_consumer.cli.render import note, print_json
from fanfold_consumer.errors import FanfoldError
from fanfold_schemas import SchemaError, check_id
from fanfold_sql import FanOutState, Store

_FAN_OUTS_MAX = 10_000
_ENDED = ("done", "failed", "cancelled")


def _id(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_id(value, f"--{parameter.opts[0].lstrip('-')}")
    except SchemaError as error:
        raise click.BadParameter(error.detail) from error


@click.command()
@click.option("--fan-out", "fan_out_id", callback=_id, metavar="ID", help="The fan-out to end.")
@click.option(
    "--thread",
    "thread_id",
    callback=_id,
    metavar="ID",
    help="Its thread; alone: everything the thread has open.",
)
@click.option("--execute", is_flag=True, help="Do it. Without it, only say what would be done.")
@database_option
@json_option
def cancel(fan_out_id: str | None, thread_id: str | None, execute: bool, database_url: str, as_json: bool) -> None:
    """End a fan-out, or everything that a thread has open. There is no way back.

    Queued tasks are skipped without running, results that come later are refused, and nothing is folded.
    """
    if fan_out_id is None and thread_id is None:
        raise click.UsageError("name a fan-out (--fan-out ID), or a thread whose fan-outs are all to end (--thread ID)")
    report = asyncio.run(_cancel(database_url, fan_out_id, thread_id, execute))
    if as_json:
        print_json(report)
    else:
        for ended in report["fan_outs"]:
            left = f"{ended['remaining']} of {ended['size']} results outstanding" if ended["size"] else "not begun"
            click.echo(f"{'cancelled' if execute else 'would cancel'} {ended['fan_out_id']}: {left}")
        if report["clock"] is not None:
            click.echo(f"the clock of {thread_id} is now {report['clock']}")
    if not report["fan_outs"]:
        note("nothing was open")
    elif not execute:
        note("nothing was changed; add --execute to do it")


async def _cancel(database_url: str, fan_out_id: str | None, thread_id: str | None, execute: bool) -> dict[str, Any]:
    async with open_store(database_url) as store:
        if fan_out_id is not None:
            ended = await _cancel_fan_out(store, fan_out_id, thread_id, execute)
            return {"executed": execute, "clock": None, "fan_outs": [ended]}
        assert thread_id is not None
        states = await store.list_fan_outs(thread_id=thread_id, limit=_FAN_OUTS_MAX)
        outstanding = {state.fan_out_id: _outstanding(state) for state in states if state.state not in _ENDED}
        if not execute:
            return {"executed": False, "clock": None, "fan_outs": list(outstanding.values())}
        done = await store.cancel_thread(thread_id)
        return {
            "executed": True,
            "clock": done.clock,
            "fan_outs": [outstanding.get(id, _unseen(id)) for id in done.fan_out_ids],
        }


async def _cancel_fan_out(store: Store, fan_out_id: str, thread_id: str | None, execute: bool) -> dict[str, Any]:
    state = await store.read_fan_out(fan_out_id)
    if state is None and thread_id is None:
        raise FanfoldError(
            f"no result of fan-out {fan_out_id} is in yet, so only its publisher knows its thread. "
            "Name it with --thread, and the fan-out is cancelled before it begins."
        )
    answer = await store.cancel_fan_out(fan_out_id, thread_id) if execute else None
    if answer == "done" or (answer is None and state is not None and state.state in ("done", "failed")):
        raise FanfoldError(f"fan-out {fan_out_id} has its outcome already; nothing was changed.")
    return _unseen(fan_out_id) if state is None else _outstanding(state)


def _outstanding(state: FanOutState) -> dict[str, Any]:
    return {"fan_out_id": state.fan_out_id, "size": state.size, "remaining": state.remaining, "failed": state.failed}


def _unseen(fan_out_id: str) -> dict[str, Any]:
    return {"fan_out_id": fan_out_id, "size": None, "remaining": None, "failed": None}
