"""The report as pictures: SVG on opaque white, so that they read the same on light and dark pages.

The same report gives the same bytes, so that a picture that is checked in changes only when its figures do.
"""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.measure import median, spread
from tests.benchmarks.report import Figure, Report, readable

# Any: the library is optional, so where it is not installed its types are not there to be checked against.
Axes = Any

_FLEET, _OTHERS, _TEXT, _DIM = "#1f6feb", "#8b949e", "#24292f", "#57606a"
_OURS = ("FanfoldSaver", "commit path")
_COLOURS = ("#1f6feb", "#d1570a", "#1a7f37", "#8250df")
_STYLES = ("-", "--", ":")
_SETTINGS = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "font.size": 10,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    # Text stays text: it can be searched, and a picture has a tenth of the bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "fanfold",
}
_METADATA = {"Date": None, "Creator": None}

# Names of figures that are points of a curve: `x` is where, what is left of the name is which curve.
_FAN_IN = re.compile(r"(?P<curve>[\d,]+) by (?P<x>\d+) members?, (?P<which>p50|p99)\Z")
_BESIDE_FAN_IN = re.compile(r"100 by (?P<x>100) workers, (?P<curve>.+), (?P<which>p99)\Z")
_BATCHES = re.compile(r"(?P<curve>commit|raw insert), batches of (?P<x>[\d,]+), (?P<which>\d connections?)\Z")
_COLLISIONS = re.compile(r"100 workers, (?P<way>.+): p99\Z")
_GROWTH = re.compile(r"(?P<curve>commit), (?P<which>batches of [\d,]+), (?P<x>[\d,]+) rows\Z")

Curves = dict[tuple[str, str], list[tuple[int, float]]]
"""Points (x, median) by (what is compared, how)."""


class Bar(NamedTuple):
    """A contender of the throughput picture."""

    name: str
    middle: float
    low: float
    high: float
    label: str


def draw(report: Report, folder: Path) -> list[Path]:
    """Write one file a picture into `folder`; returns those for which the report has figures.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (title, draw_one) in _PICTURES.items():
        with pyplot.rc_context(_SETTINGS):
            figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
            if draw_one(report, axes):
                figure.suptitle(title, x=0.01, ha="left", fontsize=12)
                axes.set_title(subtitle(report.machine), loc="left", fontsize=7, color=_DIM)
                if axes.get_legend_handles_labels()[0]:
                    # Beside the lines, wherever they may run.
                    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
                path = folder / f"{name}.svg"
                figure.savefig(path, metadata=_METADATA)
                drawn.append(path)
            pyplot.close(figure)
    return drawn


def subtitle(machine: Mapping[str, str]) -> str:
    """What it was measured on, in the words that matter."""
    postgres = " ".join(machine.get("postgres", "").split()[:2])
    flush = machine.get("flush", "").partition(" (")[0]
    words = (machine.get("cpu"), machine.get("broker"), postgres, flush and f"flush {flush}", machine.get("python"))
    return " · ".join(word for word in words if word)


def bars(report: Report) -> list[Bar]:
    """Tasks per second of everything that two processes or one system did, the slowest first.

    A label says how many times as much the fleet did, where the report compares them.
    """
    found = [
        _bar(report, figure)
        for figure in report.figures
        if figure.benchmark in ("throughput", "peers")
        and figure.unit == "tasks/s"
        # One process scales as it may; two are what is compared with the others.
        and not (figure.benchmark == "throughput" and figure.name.endswith(", 1 process"))
    ]
    return sorted(found, key=lambda bar: bar.middle)


def _bar(report: Report, figure: Figure) -> Bar:
    middle, (low, high) = median(figure.values), spread(figure.values)
    compared = report.ratio(figure.benchmark, f"fleet ÷ {figure.name}")
    label = readable(middle) + (f"   fleet ÷ this: {readable(compared.value)}" if compared else "")
    return Bar(figure.name, middle, low, high, label)


def curves(report: Report, benchmark: str, pattern: re.Pattern[str]) -> Curves:
    """Of the figures that the pattern names; curves in the order in which they were reported, points by x."""
    found: Curves = defaultdict(list)
    for figure in report.figures:
        match = pattern.match(figure.name)
        if figure.benchmark == benchmark and match:
            x = int(match["x"].replace(",", ""))
            found[match["curve"], match["which"]].append((x, median(figure.values)))
    return {name: sorted(points) for name, points in found.items()}


def _throughput(report: Report, axes: Axes) -> bool:
    found = bars(report)
    for bar in found:
        colour = _FLEET if bar.name.startswith("fleet") else _OTHERS
        spread = [[bar.middle - bar.low], [bar.high - bar.middle]]
        axes.barh(bar.name, bar.middle, xerr=spread, color=colour, ecolor=_TEXT)
        axes.annotate(bar.label, (bar.high, bar.name), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlabel("tasks/s: median, smallest and largest run")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=6)
    # Room for the label of the longest.
    axes.margins(x=0.3)
    axes.grid(visible=False, axis="y")
    return bool(found)


def _fan_in(report: Report, axes: Axes) -> bool:
    found = curves(report, "fan_in", _FAN_IN)
    _plot(
        axes,
        {(f"{width} results", which): points for (width, which), points in found.items()},
        "members, each with a connection",
    )
    beside = curves(report, "fan_in", _BESIDE_FAN_IN)
    for ((name, which), [point]), marker in zip(beside.items(), cycle("xv^")):
        axes.plot(*point, marker=marker, color=_TEXT, linestyle="none", label=f"100 by {name}, {which}")
    axes.set_yscale("log")
    axes.set_ylabel("ms from ready to durable")
    axes.yaxis.set_major_formatter("{x:,g}")
    return bool(found)


def _collisions(report: Report, axes: Axes) -> bool:
    """A point for each way, the first of the table on top, and how many results it loses."""
    found = [(figure, match["way"]) for figure in report.figures if (match := _COLLISIONS.match(figure.name))]
    for figure, way in reversed(found):
        middle, (low, high) = median(figure.values), spread(figure.values)
        colour = _FLEET if way.startswith(_OURS) else _OTHERS
        axes.errorbar(middle, way, xerr=[[middle - low], [high - middle]], fmt="o", markersize=7, color=colour)
        losses = report.figure(figure.benchmark, f"100 workers, {way}: lost")
        lost = losses.values if losses else [0.0]
        text, weight = (f"{readable(median(lost))} lost", "bold") if any(lost) else ("none lost", "normal")
        axes.annotate(text, (high, way), (6, 0), textcoords="offset points", va="center", fontsize=8, fontweight=weight)
    axes.set_xscale("log")
    axes.set_xlabel("p99 from ready to durable, ms")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.margins(x=0.25)
    return bool(found)


def _batches(report: Report, axes: Axes) -> bool:
    rates = curves(report, "batches", _BATCHES)
    costs = {name: [(x, 1e6 / rate) for x, rate in points] for name, points in rates.items()}
    _plot(axes, costs, "results in a commit")
    axes.set_yscale("log")
    axes.set_ylabel("µs per result")
    axes.yaxis.set_major_formatter("{x:,g}")
    return bool(costs)


def _growth(report: Report, axes: Axes) -> bool:
    costs = curves(report, "growth", _GROWTH)
    _plot(axes, costs, "results in the table")
    # From nothing, with room above: what is nearly flat should look it.
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_ylabel("µs per result")
    return bool(costs)


def _plot(axes: Axes, curves: Curves, x_label: str) -> None:
    """One colour for what is compared, one style of line for how."""
    colours = dict(zip(dict.fromkeys(curve for curve, _ in curves), cycle(_COLOURS)))
    styles = dict(zip(dict.fromkeys(which for _, which in curves), cycle(_STYLES)))
    for (curve, which), points in curves.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o", color=colours[curve], linestyle=styles[which], label=f"{curve}, {which}")
    axes.set_xscale("log")
    ticks = sorted({x for points in curves.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(x_label)


_PICTURES: dict[str, tuple[str, Callable[[Report, Axes], bool]]] = {
    "throughput": ("No-op tasks per second", _throughput),
    "fan-in": ("Results into one thread, all ready at once", _fan_in),
    "collisions": ("100 workers, each with a result for the same thread", _collisions),
    "batches": ("What a result costs, by the size of a commit", _batches),
    "growth": ("What a result costs as the table grows", _growth),
}
