"""`make prove`: everything that is checked about the wire and the commit, part by part, and one line at the end.

Each part is a command of its own, `python -m tests.property.<part>`, whose last line on stdout is
`<part>: key=value key=value`. A part that finds a violation exits with 1; one that cannot run on this machine exits
with `UNAVAILABLE` and says why.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNAVAILABLE = 77
"""Exit status of a part that this machine cannot run; automake's for a skipped test."""

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Part:
    """`share`: of the seconds given to all parts that take any number of them."""

    name: str
    what: str
    share: float = 0.0


PARTS = (
    Part("corpus", "bad records, each with its code, in bounded time and memory"),
    Part("fuzz_wire", "coverage-guided fuzzing of the decoder", 0.5),
    Part("machine", "the commit against a plain oracle, step by step", 0.5),
    Part("interleavings", "two and three sessions in every order"),
    Part("mutants", "faults put into the procedures, each to be found"),
    Part("spec_check", "the specification, model-checked and replayed"),
    Part("versions", "the store's tests on every PostgreSQL that can be had"),
)

# What counts as a violation in each part's last line.
_VIOLATIONS = ("violations", "findings", "failures")


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    figures: Mapping[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for the parts that take any number of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS], help="repeatable")
    options = parser.parse_args(arguments)

    ran: dict[str, Ran] = {}
    for part in PARTS:
        if options.only and part.name not in options.only:
            continue
        print(f"prove: {part.name}: {part.what}", flush=True)
        started = time.monotonic()
        ran[part.name] = _run(part, options.seconds, options.seed)
        print(f"prove: {part.name}: {_judge(ran[part.name])} in {time.monotonic() - started:.0f} s", flush=True)
    print(summary(ran))
    return int(any(part.status != 0 for part in ran.values()))


def _run(part: Part, seconds: float, seed: int) -> Ran:
    command = [sys.executable, "-m", f"tests.property.{part.name}"]
    if part.share:
        command += ["--seconds", f"{seconds * part.share:.0f}", "--seed", str(seed)]
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(f"  {line}", end="", flush=True)
        last = line.strip() or last
    return Ran(process.wait(), read_figures(part.name, last))


def read_figures(part: str, line: str) -> dict[str, int]:
    """The figures of a part's last line, `<part>: key=value …`; empty if it is no such line."""
    name, colon, rest = line.partition(": ")
    if not colon or name not in (part, part.split("_")[0]):
        return {}
    pairs = (word.partition("=") for word in rest.split())
    return {key: int(value) for key, _, value in pairs if value.isdecimal()}


def _judge(ran: Ran) -> str:
    if ran.status == UNAVAILABLE:
        return "not possible on this machine, see above"
    return "passed" if ran.status == 0 else f"FAILED (exit status {ran.status})"


def summary(ran: Mapping[str, Ran]) -> str:
    """The last line. A part that did not run counts as nothing, never as passed."""

    def figure(part: str, key: str) -> int:
        return ran[part].figures.get(key, 0) if part in ran else 0

    # A part that failed without a figure for it, broken off perhaps, is one violation too.
    violations = sum(
        max(sum(part.figures.get(key, 0) for key in _VIOLATIONS), int(part.status not in (0, UNAVAILABLE)))
        for part in ran.values()
    )
    return (
        f"prove: corpus={figure('corpus', 'records')} fuzz_execs={figure('fuzz_wire', 'execs')} "
        f"interleavings={figure('interleavings', 'schedules')} violations={violations} "
        f"mutants={figure('mutants', 'mutants')} killed={figure('mutants', 'killed')} "
        f"states={figure('spec_check', 'states')}"
    )


if __name__ == "__main__":
    sys.exit(main())
