"""The store's tests on every PostgreSQL that can be had here, 14 to 18: a line for each, and one for all.

What needs a broker as well is left to `make test`: it says the same SQL to the default version.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.property.prove import UNAVAILABLE
from tests.support.choose import ENV_POSTGRES
from tests.support.postgres_builds import VERSIONS, available_versions, postgres_programs

_ROOT = Path(__file__).parents[2]
_TESTS = ("tests/sql", "tests/property/test_clock_lattice.py", "tests/property/test_fold_laws.py")
_TIMEOUT_S = 900.0
# Per version; the random batches of tests/sql run for a minimum of episodes in any case.
_RANDOM_S = 2.0


@dataclass(frozen=True, slots=True)
class Tally:
    tests: int
    failures: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="versions", description=__doc__)
    parser.add_argument("--only", type=int, action="append", choices=VERSIONS, help="repeatable")
    parser.add_argument("--seconds", type=float, default=_RANDOM_S, help="of random batches, for each version")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    versions = [version for version in available_versions() if version in (options.only or VERSIONS)]
    tallies = []
    for version in versions:
        started = time.monotonic()
        tally = _run(version, options.seconds, options.seed)
        tallies.append(tally)
        print(
            f"versions: {_full_version(version)}: tests={tally.tests} failures={tally.failures}"
            f" in {time.monotonic() - started:.0f} s",
            flush=True,
        )
    missing = [version for version in options.only or VERSIONS if version not in versions]
    if missing:
        print(f"versions: not to be had here: {', '.join(map(str, missing))}; Maven would fetch them for Linux")
    failures = sum(tally.failures for tally in tallies)
    print(f"versions: versions={len(versions)} tests={sum(t.tests for t in tallies)} failures={failures}")
    return int(failures > 0) if versions else UNAVAILABLE


def _run(version: int, seconds: float, seed: int) -> Tally:
    """Run the tests in a process of their own: which server they use is decided once per process."""
    # An adopted server would be every version at once.
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    env |= {
        ENV_POSTGRES: str(version),
        "FANFOLD_TEST_SEED": str(seed),
        "FANFOLD_TEST_BUDGET_S": f"{seconds:g}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            f"--junit-xml={report}",
        ]
        # test_versions.py goes through the versions by itself; here it is asked for one at a time.
        command += ["-k", f"not test_versions or pg{version}", *_TESTS]
        # On stderr, because stdout is for the lines that say how it went.
        done = subprocess.run(command, cwd=_ROOT, env=env, stdout=sys.stderr, timeout=_TIMEOUT_S)
        return _read(report, done.returncode)


def _read(report: Path, status: int) -> Tally:
    """What the report counts; a run that broke off before or after its tests is a failure too."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite")) if report.exists() else []

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    failures = total("failures") + total("errors")
    return Tally(total("tests") - total("skipped"), failures or int(status != 0))


def _full_version(version: int) -> str:
    said = subprocess.run([postgres_programs(version) / "postgres", "--version"], capture_output=True, text=True).stdout
    return said.strip()


if __name__ == "__main__":
    sys.exit(main())
