"""Put one fault after another into the product; the campaign must find each: `python -m tests.fault.chaos.mutants`.

Each gets servers of its own and a short campaign under the nemeses that suit it. Exits with 1 if one survives, or if
the product as it is does not pass the same campaigns.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fault.chaos.campaign import Report, Settings, campaign, say
from tests.fault.chaos.mutant import Mutant
from tests.fault.chaos.mutant_table import MUTANTS
from tests.fault.chaos.requirements import missing

_UNAVAILABLE = 2
_SETTLE_S = 20.0
_STRIKE_S = 3.0
_SHOWN_CHARS = 200


def trial(mutant: Mutant | None, nemeses: Sequence[tuple[str, ...]], seconds: float, seed: int) -> Report:
    """A campaign against the product with a fault, or without: all of `nemeses`, those of an entry at once."""
    folder = Path(tempfile.mkdtemp(prefix="fanfold-mutant-"))
    try:
        mutated = None if mutant is None else mutant.apply(folder / "mutant")
        with campaign(Settings(seed, mutant=mutated, settle_s=_SETTLE_S), folder) as running:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                for together in nemeses:
                    running.await_commits()
                    running.strike(together, _STRIKE_S)
            return running.conclude()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--mutant", default="", help="only those with this in their names")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-control", action="store_true", help="leave out the product as it is")
    options = parser.parse_args(arguments)
    lacking = missing()
    if lacking is not None:
        print(f"mutants: {lacking}")
        return _UNAVAILABLE
    chosen = [mutant for mutant in MUTANTS if options.mutant in mutant.name]
    for mutant in chosen:
        mutant.check()

    sound = True
    if not options.no_control:
        say("no mutant")
        report = trial(None, sorted({mutant.nemeses for mutant in chosen}), 1.0, options.seed)
        sound = not report.verdict.findings
        _tell("passes" if sound else "FAILS", "no mutant", report)
    killed = 0
    for mutant in chosen:
        say(mutant.name)
        report = trial(mutant, [mutant.nemeses], mutant.seconds, options.seed)
        killed += bool(report.verdict.findings)
        _tell("killed" if report.verdict.findings else "SURVIVES", mutant.name, report)
    print(f"mutants: mutants={len(chosen)} killed={killed}")
    return int(killed < len(chosen) or not chosen or not sound)


def _tell(word: str, name: str, report: Report) -> None:
    print(f"{word:8}  {name}\n            {report.last_line}")
    first = {finding.guarantee: finding for finding in reversed(report.verdict.findings)}
    for _, finding in sorted(first.items()):
        print(f"            {str(finding)[:_SHOWN_CHARS]}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
