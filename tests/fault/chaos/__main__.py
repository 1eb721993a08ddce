"""`python -m tests.fault.chaos`: try to break every guarantee on this machine, and count.

Exits with 1 if anything was lost, twice, stuck or wrong, or if a nemesis had no effect to be seen; with 2 if this
machine lacks what it takes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fault.chaos.campaign import Settings, campaign, say
from tests.fault.chaos.mutant_table import MUTANTS
from tests.fault.chaos.nemeses import ALL
from tests.fault.chaos.requirements import missing

_FINDINGS_SHOWN = 40
_UNAVAILABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults; starting and checking come on top")
    parser.add_argument("--nemesis", action="append", choices=sorted(ALL), help="repeatable; default: all")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--rate", type=float, default=150.0, help="tasks a second of each of two producers, at most")
    parser.add_argument("--mutant", choices=[mutant.name for mutant in MUTANTS], help="put this fault into the product")
    parser.add_argument("--table", type=Path, help="append the table and the last line to this file, as Markdown")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    options = parser.parse_args(arguments)
    lacking = missing()
    if lacking is not None:
        print(f"chaos: {lacking}")
        return _UNAVAILABLE

    # Not a temporary folder of the dev stack, which would be removed with this process: logs are looked at after it.
    folder = Path(tempfile.mkdtemp(prefix="fanfold-chaos-"))
    mutated = None
    if options.mutant:
        mutant = next(mutant for mutant in MUTANTS if mutant.name == options.mutant)
        mutated = mutant.apply(folder / "mutant")
    settings = Settings(options.seed, options.brokers, options.members, options.rate, mutated)
    say(f"starting; logs are in {folder}")
    with campaign(settings, folder) as running:
        running.mix(options.nemesis or sorted(ALL), options.seconds)
        report = running.conclude()
    print(report.table)
    if options.table:
        with options.table.open("a", encoding="utf-8") as file:
            file.write(f"{report.table}\n\n`{report.last_line}`\n\n")
    for finding in report.verdict.findings[:_FINDINGS_SHOWN]:
        print(f"violation: {finding}")
    if len(report.verdict.findings) > _FINDINGS_SHOWN:
        print(f"… and {len(report.verdict.findings) - _FINDINGS_SHOWN} more")
    for problem in report.broken_off:
        print(f"broken off: {problem}")
    for name in report.without_effect:
        print(f"no effect: {name} ran {report.runs[name]} times and nothing came of it that could be seen")
    if options.keep or not report.sound:
        print(f"logs: {folder}: member-*.log, producer-*.jsonl, handlers-*.jsonl, journal.jsonl")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(report.last_line, flush=True)
    return int(not report.sound)


if __name__ == "__main__":
    sys.exit(main())
