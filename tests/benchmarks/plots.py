"""The report as pictures: SVG on opaque white, so that they read the same on light and dark pages."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import median, spread
from tests.benchmarks.report import Report, readable

# Any: the library is optional, so where it is not installed its types are not there to be checked against.
Axes = Any

_FLEET, _OTHERS = "#1f6feb", "#8b949e"
_COLOURS = ("#1f6feb", "#d1570a", "#1a7f37", "#8250df", "#cf222e", "#6e7781")
_SETTINGS = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "font.size": 10,
    "xtick.labelsize": 8,
    # Text stays text: it can be searched, and a picture has a tenth of the bytes.
    "svg.fonttype": "none",
    # The same figures give the same bytes, so that a picture that is checked in changes only when they do.
    "svg.hashsalt": "fanfold",
}
# Names of figures that are points of a curve: `x` is where, what is left of the name is which curve.
_FAN_IN = re.compile(r"(?P<curve>[\d,]+) by (?P<x>\d+) members?, (?P<which>p50|p99)\Z")
_BATCHES = re.compile(r"(?P<curve>commit|raw insert), batches of (?P<x>[\d,]+), (?P<which>\d connections?)\Z")
_GROWTH = re.compile(r"(?P<curve>[^,]+), (?P<which>batches of [\d,]+), (?P<x>[\d,]+) rows\Z")


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
    for name, draw_one in _PICTURES.items():
        with pyplot.rc_context(_SETTINGS):
            figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
            if draw_one(report, axes):
                path = folder / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None})
                drawn.append(path)
            pyplot.close(figure)
    return drawn


def _throughput(report: Report, axes: Axes) -> bool:
    """A bar for each contender, the slowest at the bottom."""
    parts = ("throughput", "peers")
    found = [figure for figure in report.figures if figure.benchmark in parts and figure.unit == "tasks/s"]
    found.sort(key=lambda figure: median(figure.values))
    for figure in found:
        middle, (low, high) = median(figure.values), spread(figure.values)
        colour = _FLEET if figure.name.startswith("fleet") else _OTHERS
        axes.barh(figure.name, middle, xerr=[[middle - low], [high - middle]], color=colour, ecolor="#24292f")
        axes.annotate(readable(middle), (high, figure.name), (6, 0), textcoords="offset points", va="center")
    axes.set_title("No-op tasks per second: median, smallest and largest run", loc="left")
    axes.set_xlabel(f"tasks/s, {report.machine.get('cpu', '')}")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=6)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    return bool(found)


def _fan_in(report: Report, axes: Axes) -> bool:
    """How long a result waits to be durable, by the number of members that commit into one thread."""
    curves = _curves(report, "fan_in", _FAN_IN)
    _plot(axes, curves)
    axes.set_yscale("log")
    axes.set_title("That many results into one thread: from ready to durable", loc="left")
    axes.set_xlabel("members")
    axes.set_ylabel("ms")
    return bool(curves)


def _batches(report: Report, axes: Axes) -> bool:
    """What a larger commit gains."""
    curves = _curves(report, "batches", _BATCHES)
    _plot(axes, curves)
    axes.set_title("Results per second by the size of a commit", loc="left")
    axes.set_xlabel("results in a commit")
    axes.set_ylabel("results/s")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    return bool(curves)


def _growth(report: Report, axes: Axes) -> bool:
    """What a commit costs as the tables grow, relative to the smallest, so that flat is 1 whatever the unit."""
    curves = _curves(report, "growth", _GROWTH)
    _plot(axes, {name: [(x, y / points[0][1]) for x, y in points] for name, points in curves.items()})
    # From nothing, with room above: what is nearly flat should look it.
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_title("What a commit costs as the table grows: relative to the smallest", loc="left")
    axes.set_xlabel("results in the table")
    return bool(curves)


def _curves(report: Report, benchmark: str, pattern: re.Pattern[str]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """The medians, by x, of each curve; in the order in which they were reported."""
    curves: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for figure in report.figures:
        match = pattern.match(figure.name)
        if figure.benchmark == benchmark and match:
            x = int(match["x"].replace(",", ""))
            curves[match["curve"], match["which"]].append((x, median(figure.values)))
    return {name: sorted(points) for name, points in curves.items()}


def _plot(axes: Axes, curves: dict[tuple[str, str], list[tuple[int, float]]]) -> None:
    """One colour for what is compared, one style of line for how."""
    colours = dict(zip(dict.fromkeys(curve for curve, _ in curves), cycle(_COLOURS)))
    styles = dict(zip(dict.fromkeys(which for _, which in curves), cycle(("-", "--", ":"))))
    for (curve, which), points in curves.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o", color=colours[curve], linestyle=styles[which], label=f"{curve}, {which}")
    axes.set_xscale("log")
    ticks = sorted({x for points in curves.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    if curves:
        # Beside the lines, wherever they may run.
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


_PICTURES: dict[str, Callable[[Report, Axes], bool]] = {
    "throughput": _throughput,
    "fan-in": _fan_in,
    "batches": _batches,
    "growth": _growth,
}
