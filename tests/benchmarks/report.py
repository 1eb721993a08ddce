"""What a run found: figures, ratios and notes, as JSON, as a table, and as one last line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measure import Progress, median, spread

NOT_MEASURED = "n/a"

# The values of the last line, and which ratio each of them is.
_LAST_LINE: Mapping[str, tuple[str, str]] = {
    "vs_handwritten": ("throughput", "fleet ÷ hand-written, 2 processes"),
    "vs_langgraph": ("peers", "fleet ÷ LangGraph in-process"),
    "of_insert_limit": ("throughput", "fleet ÷ raw insert, 2 processes"),
    "fanin100_vs_aput_writes": ("fan_in", "100 by 4 members, p99 ÷ aput_writes p99"),
    "flat_10k_vs_100": ("fan_in", "cost per result, 10,000-wide ÷ 100-wide"),
}
_THROUGHPUT = ("throughput", "fleet, 2 processes")


@dataclass(frozen=True, slots=True)
class Figure:
    """One contender's samples.

    Attributes:
        benchmark: the part's `NAME`.
        name: the contender, with its parameters, as in "fleet, 2 processes".
        unit: of each value, as in "tasks/s".
        values: one a round, in order.
    """

    benchmark: str
    name: str
    unit: str
    values: list[float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two contenders compared.

    Attributes:
        bound: what it must reach; none: shown for comparison.
        at_most: the bound is an upper one.
    """

    benchmark: str
    name: str
    value: float
    bound: float | None
    at_most: bool

    @property
    def holds(self) -> bool:
        if self.bound is None:
            return True
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Attributes:
        machine: facts by name, in the order in which they are shown; "broker" among them.
        notes: what was skipped or is to be known, and why.
    """

    machine: dict[str, str]
    figures: list[Figure]
    ratios: list[Ratio]
    notes: list[str]

    @classmethod
    def of(cls, machine: Mapping[str, str], items: Iterable[Figure | Ratio | str]) -> Report:
        """Sort what the parts yielded."""
        everything = list(items)
        return cls(
            dict(machine),
            [item for item in everything if isinstance(item, Figure)],
            [item for item in everything if isinstance(item, Ratio)],
            [item for item in everything if isinstance(item, str)],
        )

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Report:
        return msgspec.json.decode(data, type=cls)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.to_json())

    def figure(self, benchmark: str, name: str) -> Figure | None:
        return next((f for f in self.figures if (f.benchmark, f.name) == (benchmark, name)), None)

    def ratio(self, benchmark: str, name: str) -> Ratio | None:
        return next((r for r in self.ratios if (r.benchmark, r.name) == (benchmark, name)), None)

    @property
    def last_line(self) -> str:
        """For programs: one word a value; `n/a` is what this run did not measure."""
        throughput = self.figure(*_THROUGHPUT)
        words = [
            f"broker={self.machine.get('broker', NOT_MEASURED).replace(' ', '-').lower()}",
            f"throughput={NOT_MEASURED if throughput is None else round(median(throughput.values))}",
        ]
        for word, where in _LAST_LINE.items():
            found = self.ratio(*where)
            words.append(f"{word}={NOT_MEASURED if found is None else f'{found.value:.2f}'}")
        return "bench: " + " ".join(words)

    def print(self, console: Console) -> None:
        """Machine, figures, ratios and notes for people."""
        facts = Table(box=None, show_header=False, pad_edge=False)
        facts.add_column(style="dim")
        facts.add_column()
        for name, value in self.machine.items():
            facts.add_row(name, value)
        console.print(facts)
        if self.figures:
            console.print(self._figure_table())
        if self.ratios:
            console.print(self._ratio_table())
        for note in self.notes:
            console.print(f"note: {note}", markup=False, highlight=False)

    def _figure_table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, title="figures", title_justify="left")
        for heading in ("benchmark", "contender"):
            table.add_column(heading)
        for heading in ("median", "min", "max", "n"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        for figure in self.figures:
            low, high = spread(figure.values)
            numbers = (readable(median(figure.values)), readable(low), readable(high), str(len(figure.values)))
            table.add_row(figure.benchmark, figure.name, *numbers, figure.unit)
        return table

    def _ratio_table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, title="ratios", title_justify="left")
        for heading in ("benchmark", "ratio"):
            table.add_column(heading)
        for heading in ("value", "bound"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for ratio in self.ratios:
            bound = "" if ratio.bound is None else f"{'≤' if ratio.at_most else '≥'} {ratio.bound:g}"
            verdict = "" if ratio.bound is None else "" if ratio.holds else "[bold red]missed[/]"
            table.add_row(ratio.benchmark, ratio.name, f"{ratio.value:.2f}", bound, verdict)
        return table


def telling(say: Callable[[str], None], where: str, rounds: int, unit: str) -> Progress:
    """For `interleave`: says each sample as it comes."""
    return lambda name, number, value: say(f"{where} {number + 1}/{rounds}: {name}: {readable(value)} {unit}")


def readable(value: float) -> str:
    """Three significant digits for small numbers, whole ones with separators for large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
