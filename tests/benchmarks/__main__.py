"""What `make bench` and `fanfold bench` run: measure on this machine, each figure beside its baseline and its limit.

Exits with 0 when everything ran, whatever the ratios are; with 1 when a part broke off; with 2 when no server could be
started.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import click
from rich.console import Console

from fanfold_consumer.cli.bench import PARTS, QUICK_PARTS, arguments
from fanfold_consumer.devstack import DevStackError
from tests.benchmarks.machine import facts
from tests.benchmarks.report import Figure, Ratio, Report
from tests.benchmarks.servers import bench_stack

_REPETITIONS, _REPETITIONS_QUICK = 5, 3
_BROKEN, _UNAVAILABLE = 1, 2
_WIDTH = 160


@click.command()
@arguments
def main(
    parts: Sequence[str], quick: bool, repetitions: int | None, json_file: Path | None, plots: Path | None
) -> None:
    repetitions = repetitions or (_REPETITIONS_QUICK if quick else _REPETITIONS)
    modules, notes = _imported(dict.fromkeys(parts) or (QUICK_PARTS if quick else PARTS))
    try:
        report, broken = _measure(modules, notes, quick, repetitions)
    except DevStackError as error:
        click.echo(f"bench: {error}")
        sys.exit(_UNAVAILABLE)
    # A file or a pipe is no terminal to fit into, and a name that is broken over lines cannot be searched for.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    report.print(console)
    for part in modules.values():
        # A part whose figures are read side by side has a function for it, beside its `run`.
        if hasattr(part, "table"):
            console.print(part.table(report))
    if json_file is not None:
        report.save(json_file)
    if plots is not None:
        _plot(report, plots)
    click.echo(last_line(report, list(modules.values())))
    sys.exit(_BROKEN if broken else 0)


def last_line(report: Report, modules: Sequence[ModuleType]) -> str:
    """For programs. A part that runs alone may have a line of its own: a function of this name, beside its `run`."""
    own = getattr(modules[0], "last_line", None) if len(modules) == 1 else None
    return str(own(report)) if own else report.last_line


def _imported(names: Iterable[str]) -> tuple[dict[str, ModuleType], list[str]]:
    """The parts by name, and notes on those that need what is not installed."""
    modules: dict[str, ModuleType] = {}
    notes: list[str] = []
    for name in names:
        try:
            modules[name] = importlib.import_module(f"tests.benchmarks.{name}")
        except ModuleNotFoundError as error:
            notes.append(f"{name} was skipped: {error.name} is not installed; `make bench` installs it")
    return modules, notes


def _measure(
    modules: Mapping[str, ModuleType], notes: Sequence[str], quick: bool, repetitions: int
) -> tuple[Report, list[str]]:
    """The report, and which parts broke off."""
    found: list[Figure | Ratio | str] = [*notes]
    broken: list[str] = []
    say = _speaker()
    say("starting a broker and PostgreSQL")
    with bench_stack() as stack:
        version = stack.execute(stack.database_url, "select version()")[0][0]
        machine = facts(broker=stack.broker, postgres=version, flush_in=stack.postgres.data_dir)
        for name, part in modules.items():
            say(f"{name} …")
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

        drawn = draw(report, folder)
    except ModuleNotFoundError as error:
        click.echo(f"bench: no plots: {error.name} is not installed; `make bench` installs it")
        return
    for path in drawn:
        click.echo(f"bench: {path}")


def _speaker() -> Callable[[str], None]:
    began = time.monotonic()
    return lambda text: click.echo(f"{time.monotonic() - began:7.1f} s  {text}", err=True)


if __name__ == "__main__":
    main.main(prog_name="fanfold bench")
