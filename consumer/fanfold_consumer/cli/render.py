"""Output of the operators' commands: tables and JSON on stdout, notes on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

# Wide enough that nothing is cut: what is piped is searched and parsed, and a terminal wraps lines by itself.
_UNCUT_COLUMNS = 2000


def make_console(*, in_place: bool = False) -> Console:
    """A console for stdout. `in_place`: for pictures drawn over each other, which must fit into the terminal."""
    console = Console()
    return console if in_place and console.is_terminal else Console(width=_UNCUT_COLUMNS)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A table as command lines have them: no borders, upper-case heads, numbers (`right`) to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> RenderableType:
    if value is None:
        return Text("-")
    if isinstance(value, Text) or hasattr(value, "__rich_console__"):
        return value
    # Text, not str: ids and errors of others are no markup.
    return Text(printable(str(value)))


def printable(text: str) -> str:
    """`text` of others on one line, with what a terminal would act on, or hide, written as an escape (`\\x1b`)."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """One JSON document on a line of its own, so that repeated ones (`--watch`) are JSON Lines.

    It may end in a terminal as well, so nothing in it is a control character, of C1 neither.
    """
    text = json.dumps(value, ensure_ascii=False)
    click.echo(text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def note(text: str) -> None:
    click.echo(text, err=True)


def brief(duration: timedelta | float) -> str:
    """A duration in its two largest units: `3d 4h`, `12m 5s`, `0s`."""
    seconds = int(duration.total_seconds() if isinstance(duration, timedelta) else duration)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(max(0, seconds), length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
