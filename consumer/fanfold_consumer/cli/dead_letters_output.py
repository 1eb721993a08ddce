"""What `fanfold dead-letters` prints. Records are others' work: all of their text is shown escaped, and cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from fanfold_consumer.admin import dead_letter_fields, done_count
from fanfold_consumer.cli.render import brief, make_console, make_table, note, print_json, printable
from fanfold_consumer.redrive import Decision
from fanfold_schemas import SchemaError, Task, unpack_headers
from fanfold_sql import DeadLetterCount, FanOutState, StoredDeadLetter

_LISTED_ERROR_CHARS = 120
_SHOWN_CHARS = 2000
_SHOWN_BYTES = 256
_SHOWN_HEADERS = 50


def print_list(
    letters: Sequence[StoredDeadLetter], counts: Sequence[DeadLetterCount], *, resolved_too: bool, as_json: bool
) -> None:
    """A page of letters, and how many there are in all, by code."""
    total = sum(count.count for count in counts)
    newest = max((count.newest_id for count in counts), default=0)
    more = bool(letters) and letters[-1].dead_letter_id < newest
    if as_json:
        print_json(
            {
                "dead_letters": [dead_letter_fields(letter) for letter in letters],
                "counts": {count.code: count.count for count in counts},
                "total": total,
                "next_after": letters[-1].dead_letter_id if more else None,
            }
        )
        return
    console = make_console()
    if letters:
        console.print(_letter_table(letters, resolved_too))
        console.print()
    rows = [[count.code, count.count] for count in counts]
    console.print(make_table(["CODE", "COUNT"], rows, right=["COUNT"]) if rows else Text("no dead letters"))
    if more:
        note(f"{len(letters)} of {total} are listed; go on with --after {letters[-1].dead_letter_id}")


def _letter_table(letters: Sequence[StoredDeadLetter], resolved_too: bool) -> RenderableType:
    now = datetime.now(UTC)
    columns = [
        "ID",
        "AGE",
        "CODE",
        "GROUP",
        "RECORD",
        "THREAD",
        "TASK",
        *(["RESOLUTION"] if resolved_too else []),
        "ERROR",
    ]
    rows = [
        [
            letter.dead_letter_id,
            brief(now - letter.created_at),
            letter.code,
            letter.group_id,
            _record(letter),
            letter.thread_id,
            letter.task_id,
            *([letter.resolution] if resolved_too else []),
            _cut(letter.error, _LISTED_ERROR_CHARS),
        ]
        for letter in letters
    ]
    return make_table(columns, rows, right=["ID", "AGE"])


def print_one(decision: Decision, fan_out: FanOutState | None, *, as_json: bool) -> None:
    """Everything about one letter."""
    letter, task = decision.letter, decision.task
    headers = _headers(letter)
    if as_json:
        print_json(
            dead_letter_fields(letter)
            | {
                "cluster_id": letter.cluster_id,
                "topic_id": letter.topic_id,
                "headers": [[name, None if value is None else _base64(value)] for name, value in headers],
                "key": None if letter.key is None else _base64(letter.key),
                "value": None if letter.value is None else _base64(letter.value),
                "task": None if task is None else _task_fields(task),
                "fan_out_state": None if fan_out is None else fan_out.state,
                "redrive": _outlook_fields(decision),
            }
        )
        return
    rows: list[tuple[str, str]] = [
        ("dead letter", str(letter.dead_letter_id)),
        ("code", letter.code),
        ("error", _cut(letter.error, _SHOWN_CHARS)),
        ("record", f"{_record(letter)} (topic id {letter.topic_id}, cluster {letter.cluster_id})"),
        ("group", letter.group_id),
        ("parked", f"{letter.created_at:%Y-%m-%d %H:%M:%S %Z}, {brief(datetime.now(UTC) - letter.created_at)} ago"),
    ]
    if letter.resolved_at is not None:
        rows.append((letter.resolution or "", f"{letter.resolved_at:%Y-%m-%d %H:%M:%S %Z}"))
    if letter.task_id is not None:
        rows += [
            ("thread", letter.thread_id or "-"),
            ("fan-out", _fan_out_text(letter, fan_out)),
            ("task", letter.task_id),
        ]
    rows += [("header", f"{name}: {_bytes_text(value)}") for name, value in headers[:_SHOWN_HEADERS]]
    if len(headers) > _SHOWN_HEADERS:
        rows.append(("header", f"... and {len(headers) - _SHOWN_HEADERS} more"))
    rows.append(("key", _bytes_text(letter.key)))
    if task is None:
        rows.append(("value", "-" if letter.value is None else _hex(letter.value)))
    else:
        rows += [(name, _text(value)) for name, value in _task_fields(task).items() if value is not None]
    if letter.value_bytes is not None:
        rows.append(("bytes", f"{letter.value_bytes:,}"))
    left = decision.outlook.action is None
    rows.append(("redrive", f"{'would leave it alone' if left else 'would redrive it'}: {decision.outlook.text}"))
    width = max(len(name) for name, _ in rows)
    make_console().print(Group(*(Text(f"{name:<{width}}  {printable(text)}") for name, text in rows)), soft_wrap=True)


class Teller:
    """Tells what is done with each letter, a line each, and sums up.

    Attributes:
        done: letters that something was done with, or would be.
        failed: letters of which nothing came, and should have.
    """

    def __init__(self, verb: str, participle: str, executed: bool, as_json: bool) -> None:
        self._verb = verb
        self._participle = participle
        self._executed = executed
        self._as_json = as_json
        self.done = 0
        self.left = 0
        self.failed = 0

    def tell(self, decision: Decision) -> None:
        letter, outlook = decision.letter, decision.outlook
        done = outlook.action is not None
        self.done += done
        self.left += not done
        self.failed += outlook.fails
        if self._as_json:
            fields = dead_letter_fields(letter)
            kept = (
                "dead_letter_id",
                "group",
                "topic",
                "partition",
                "offset",
                "thread_id",
                "fan_out_id",
                "task_id",
                "code",
            )
            print_json({name: fields[name] for name in kept} | _outlook_fields(decision) | {"executed": self._executed})
            return
        word = (self._participle if self._executed else f"would {self._verb}") if done else "left alone"
        run = "" if decision.run is None else f" (run {decision.run})"
        click.echo(printable(f"{word} {letter.dead_letter_id} ({letter.code}, {_record(letter)}): {outlook.text}{run}"))

    def tell_unknown(self, dead_letter_id: int) -> None:
        """One that was named, and is not there."""
        self.left += 1
        self.failed += 1
        text = "there is no such dead letter: it was pruned, or never was"
        if self._as_json:
            fields = {"action": None, "why": "unknown", "text": text, "run": None, "executed": self._executed}
            print_json({"dead_letter_id": dead_letter_id} | fields)
        else:
            click.echo(f"left alone {dead_letter_id}: {text}")

    def sum_up(self) -> None:
        did = self._participle if self._executed else f"would be {self._participle}"
        note(f"{self.done} {did}, {self.left} left alone")
        if not self._executed and self.done:
            note("nothing was changed; repeat with --execute to do it")
        elif self._executed and self.done and self._verb == "redrive":
            note("they are in the outbox; members publish them, whatever topic those consume")


def _outlook_fields(decision: Decision) -> dict[str, Any]:
    outlook = decision.outlook
    return {"action": outlook.action, "why": outlook.why, "text": outlook.text, "run": decision.run}


def _record(letter: StoredDeadLetter) -> str:
    return f"{letter.topic}-{letter.partition}@{letter.offset}"


def _fan_out_text(letter: StoredDeadLetter, fan_out: FanOutState | None) -> str:
    if fan_out is None:
        return f"{letter.fan_out_id} (not known: pruned, or never opened)"
    return (
        f"{fan_out.fan_out_id} ({fan_out.state}, run {fan_out.run}: {done_count(fan_out)} done, "
        f"{fan_out.failed} failed, {fan_out.remaining} outstanding of {fan_out.size})"
    )


def _task_fields(task: Task) -> dict[str, Any]:
    """What is in a task beside its ids; the arg as text, cut."""
    check = task.arg_check
    return {
        "node": task.node,
        "index": task.index,
        "run": task.run,
        "attempt": task.attempt,
        "base": task.base,
        "arg": _cut(json.dumps(task.arg, ensure_ascii=False, default=_bytes_text), _SHOWN_CHARS),
        "arg_check": None if check is None else f"{check.sha256} ({check.bytes:,} bytes)",
    }


def _headers(letter: StoredDeadLetter) -> list[tuple[str, bytes | None]]:
    try:
        return unpack_headers(letter.headers)
    except SchemaError as error:
        return [("(unreadable)", str(error).encode())]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bytes_text(value: bytes | None) -> str:
    """As text where it is some, else in hex."""
    if value is None:
        return "-"
    try:
        return _cut(value.decode(), _SHOWN_CHARS)
    except UnicodeDecodeError:
        return _hex(value)


def _hex(value: bytes) -> str:
    more = f" ... and {len(value) - _SHOWN_BYTES:,} bytes more" if len(value) > _SHOWN_BYTES else ""
    return value[:_SHOWN_BYTES].hex(" ", 4) + more


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars]} ... and {len(text) - chars:,} characters more"
