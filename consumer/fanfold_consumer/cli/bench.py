"""`fanfold bench`: what `make bench` measures.

The benchmarks are in the source tree and not in the package: they share the tests' servers, and need the systems that
they compare with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click

from fanfold_consumer.cli.options import Command

QUICK_PARTS = ("throughput", "stages", "peers", "fan_in", "latency")
PARTS = (*QUICK_PARTS, "collisions", "settings", "batches", "sleeping", "size", "growth", "hot_thread", "slow_disk")
"""Each is a module of `tests.benchmarks`."""

_ENVIRONMENT = ".venv-bench"
_STDERR = 2
_MARKS = ("tests/benchmarks/__main__.py", "consumer/fanfold_consumer/cli/bench.py")


def arguments(command: Command) -> Command:
    """What `fanfold bench` takes, and `python -m tests.benchmarks` with it."""
    for decorate in (
        click.option("--plots", type=click.Path(path_type=Path), metavar="FOLDER", help="Draw SVGs into it."),
        click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the report."),
        click.option(
            "--repetitions", type=click.IntRange(1), metavar="N", help="Rounds of each part. [default: 5; quick: 3]"
        ),
        click.option("--quick", is_flag=True, help=f"Smaller sizes, and without PART only {', '.join(QUICK_PARTS)}."),
        click.argument("parts", nargs=-1, type=click.Choice(PARTS), metavar="[PART]..."),
    ):
        command = decorate(command)
    return command


@click.command(
    epilog=f"PART is one or more of {', '.join(PARTS)}; none: all of them. docs/cli.md says what each one is."
)
@arguments
def bench(**_checked: object) -> None:
    """Measure on this machine, each figure beside a baseline and a limit of the same run.

    Needs a source tree of fanfold (a clone or an unpacked sdist) and make: the one that this package is installed
    from, or else the current folder. The first time makes an environment there with what is compared.
    """
    tree = source_tree(Path(__file__).resolve().parents[3], Path.cwd())
    # As they were given; they have been read here only so that a mistake is told at once.
    run(tree, sys.argv[2:])


def source_tree(installed_in: Path, current: Path) -> Path:
    """The first of these folders that has the benchmarks.

    Raises:
        ClickException: neither has.
    """
    for folder in (installed_in, current):
        if all((folder / mark).is_file() for mark in _MARKS):
            return folder
    raise click.ClickException(
        f"cannot measure: neither {current} nor {installed_in}, where this fanfold is installed, has the benchmarks.\n"
        "They are in fanfold's source tree and not in the package. Call this command in a clone or an unpacked sdist,"
        " or `make bench` there."
    )


def run(tree: Path, arguments: list[str]) -> NoReturn:
    """Become `python -m tests.benchmarks`, in the environment that `make bench` has."""
    stamp = f"{_ENVIRONMENT}/bench.stamp"
    if not (tree / stamp).exists():
        click.echo(f"making {tree / _ENVIRONMENT}, which takes a minute or two", err=True)
    try:
        # Not on stdout: that is for the report.
        made = subprocess.run(["make", "--quiet", "--directory", tree, stamp], stdout=_STDERR)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"cannot make {tree / _ENVIRONMENT}: there is no make on the PATH. Install it (on Debian and Ubuntu:"
            " apt-get install make)."
        ) from error
    if made.returncode != 0:
        raise click.ClickException(
            f"cannot make {tree / _ENVIRONMENT}: make ended with status {made.returncode}. Mend what it says above."
        )
    python = str(tree / _ENVIRONMENT / "bin/python")
    # From where we are, so that paths mean what the caller meant; -P, or a package `tests` there would be taken.
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    os.execve(python, [python, "-P", "-m", "tests.benchmarks", *arguments], environment)  # noqa: S606
