"""What the demo shows: a live picture on a terminal, plain lines elsewhere, and at the end what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.stdlib_index.audit import FOLD, Call

_BAR_COLUMNS = 44
_STRIP_COLUMNS = 60
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PIPE_COLUMNS = 120
_STYLES = {"running": "green", "killed": "bold red", "starting": "dim", "waiting": "yellow"}


@dataclass(frozen=True, slots=True)
class MemberRow:
    number: int
    pid: int
    state: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """The fleet and the fan-out at one moment."""

    members: tuple[MemberRow, ...]
    done: int
    size: int
    state: str


class Screen:
    """A context manager. `say` for what happened, `show` for how it stands."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        if not self.console.is_terminal:
            self.console = Console(width=_PIPE_COLUMNS, no_color=True)
        self._live: Live | None = None
        self._last: tuple[object, ...] = ()

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, seconds: float, text: str) -> None:
        self.console.print(Text(f"{seconds:5.1f} s  {text}"), soft_wrap=True)

    def show(self, seconds: float, picture: Picture) -> None:
        if self._live is not None:
            self._live.update(_render(picture), refresh=True)
            return
        # Without a terminal: a line whenever somebody's state or partitions changed, or another tenth is done.
        now = (picture.members, picture.done * 10 // max(1, picture.size))
        if now != self._last:
            self._last = now
            members = "; ".join(
                f"{row.number} {row.state} {','.join(map(str, row.partitions)) or '-'}" for row in picture.members
            )
            self.say(seconds, f"{picture.done}/{picture.size} {picture.state}  members: {members}")

    def tell(self, rows: Sequence[tuple[str, object, str]]) -> None:
        """The summary: what, how often, and where that number comes from."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("WHAT HAPPENED")
        table.add_column("COUNT", justify="right")
        table.add_column("MEASURED BY", style="dim")
        for what, count, source in rows:
            table.add_row(what, str(count), source)
        self.console.print()
        self.console.print(table)

    def draw_strip(self, calls: Sequence[Call], pids: Sequence[int], killed: int, killed_at: float) -> None:
        """Handler calls over time, a row a member; ✗ marks the kill -9, F the fold."""
        begin, end = calls[0].at, max(calls[-1].at, killed_at)
        step = max(0.001, (end - begin) / _STRIP_COLUMNS)

        def column(at: float) -> int:
            return min(_STRIP_COLUMNS - 1, max(0, int((at - begin) / step)))

        counts = {pid: [0] * _STRIP_COLUMNS for pid in pids}
        for call in calls:
            counts[call.pid][column(call.at)] += 1
        highest = max(max(row) for row in counts.values())
        self.console.print()
        for number, pid in enumerate(pids, 1):
            strip = [_BLOCKS[-(-count * (len(_BLOCKS) - 1) // highest)] for count in counts[pid]]
            for call in calls:
                if call.pid == pid and call.what == FOLD:
                    strip[column(call.at)] = "F"
            if pid == killed:
                strip[column(killed_at)] = "✗"
            self.console.print(Text(f"member {number}  {''.join(strip)}"), no_wrap=True)
        legend = f"handler calls over {end - begin:.1f} s   ✗ kill -9   F fold"
        self.console.print(Text(f"{'':8}  {legend}", style="dim"), no_wrap=True)

    def draw_answer(self, answer: Mapping[str, Any]) -> None:
        """The fold's result, a dictionary of `LibraryIndex`; empty if there is none."""
        self.console.print()
        if not answer:
            self.console.print(Text("there is no answer"))
            return
        self.console.print(
            Text(
                f"{answer['files']:,} files with {answer['lines']:,} lines; {answer['identifiers']:,} identifiers, "
                f"{answer['distinct_identifiers']:,} of them distinct; {len(answer['problems'])} files are no Python"
            )
        )
        top = answer["top_identifiers"]
        highest, width = max(count for _, count in top), max(len(name) for name, _ in top)
        for name, count in top:
            bar = "█" * max(1, count * _BAR_COLUMNS // highest)
            self.console.print(Text(f"  {name:>{width}}  {bar} {count:,}"), no_wrap=True)


def _render(picture: Picture) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MEMBER", justify="right")
    table.add_column("PID", justify="right")
    table.add_column("STATE")
    table.add_column("PARTITIONS", no_wrap=True)
    for row in picture.members:
        partitions = " ".join(map(str, row.partitions))
        table.add_row(str(row.number), str(row.pid), Text(row.state, style=_STYLES.get(row.state, "")), partitions)
    percent = 100 * picture.done // max(1, picture.size)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text("fan-out"),
        ProgressBar(max(1, picture.size), picture.done, width=_BAR_COLUMNS),
        Text(f"{picture.done}/{picture.size}  {percent} %  {picture.state}"),
    )
    return Group(Text(), table, Text(), bar)
