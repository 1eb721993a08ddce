"""`python -m tests.benchmarks`: measure everything on this machine, each figure beside its baseline and its limit.

Exits with 0 when everything ran, whatever the ratios are; with 1 when a part broke off; with 2 when no server could be
started.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fanfold_consumer.devstack import DevStackError
from tests.benchmarks.machine import facts
from tests.benchmarks.report import Figure, Ratio, Report
from tests.benchmarks.servers import bench_stack

_REPETITIONS, _REPETITIONS_QUICK = 5, 3
_UNAVAILABLE = 2
_WIDTH = 160


@dataclass(frozen=True, slots=True)
class _Part:
    """A module with `run`; imported when its turn comes, because it may need what is not installed."""

    module: str
    in_quick: bool


_PARTS = {
    name: _Part(f"tests.benchmarks.{name}", in_quick)
    for name, in_quick in (
        ("throughput", True),
        ("stages", True),
        ("peers", True),
        ("fan_in", True),
        ("latency", True),
        ("settings", False),
        ("batches", False),
        ("sleeping", False),
        ("size", False),
        ("growth", False),
        ("hot_thread", False),
        ("slow_disk", False),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the ratios of the last line, in under five minutes")
    parser.add_argument(
        "--only", action="append", choices=list(_PARTS), metavar="NAME", help="repeatable: " + ", ".join(_PARTS)
    )
    parser.add_argument("--repetitions", type=int, help=f"default: {_REPETITIONS}, quick: {_REPETITIONS_QUICK}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw it as SVG there; needs matplotlib")
    options = parser.parse_args(arguments)
    if options.repetitions is not None and options.repetitions < 1:
        parser.error("--repetitions: at least 1")
    # A file or a pipe is no terminal to fit into, and a name that is broken over lines cannot be searched for.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    repetitions = options.repetitions or (_REPETITIONS_QUICK if options.quick else _REPETITIONS)
    names = options.only or [name for name, part in _PARTS.items() if part.in_quick or not options.quick]
    try:
        report, broken = _measure(names, options.quick, repetitions)
    except DevStackError as error:
        print(f"bench: {error}")
        return _UNAVAILABLE
    report.print(console)
    if options.json is not None:
        report.save(options.json)
    if options.plots is not None:
        _plot(report, options.plots)
    print(report.last_line, flush=True)
    return int(bool(broken))


def _measure(names: Iterable[str], quick: bool, repetitions: int) -> tuple[Report, list[str]]:
    """The report, and which parts broke off."""
    found: list[Figure | Ratio | str] = []
    broken: list[str] = []
    say = _speaker()
    say("starting a broker and PostgreSQL")
    with bench_stack() as stack:
        version = stack.execute(stack.database_url, "select version()")[0][0]
        machine = facts(broker=stack.broker, postgres=version, flush_in=stack.postgres.data_dir)
        for name in names:
            say(f"{name} …")
            try:
                part = importlib.import_module(_PARTS[name].module)
            except ModuleNotFoundError as error:
                found.append(f"{name} was skipped: {error.name} is not installed")
                continue
            found.extend(_results(part.run(stack, quick=quick, repetitions=repetitions, say=say), name, broken))
    return Report.of(machine, found), broken


def _results(part: Iterator[Figure | Ratio | str], name: str, broken: list[str]) -> Iterator[Figure | Ratio | str]:
    """What a part yields; if it breaks off, what it had found by then stays, and the other parts go on."""
    try:
        yield from part
    except Exception as error:
        broken.append(name)
        traceback.print_exc()
        yield f"{name} broke off: {type(error).__name__}: {error}"


def _plot(report: Report, folder: Path) -> None:
    try:
        from tests.benchmarks.plots import draw
    except ModuleNotFoundError as error:
        print(f"bench: no plots: {error.name} is not installed; `make bench` installs it")
        return
    for path in draw(report, folder):
        print(f"bench: {path}")


def _speaker() -> Callable[[str], None]:
    began = time.monotonic()
    return lambda text: print(f"{time.monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
