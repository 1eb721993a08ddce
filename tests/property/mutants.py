"""Put one fault after another into the procedures; each must be found: `python -m tests.property.mutants`.

The interleavings run on the mutated text with its breakpoints, the state machine on a database migrated with it. Exits
with 1 if a mutant survives a check that is to find it, or if the procedures as they are do not pass the same checks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import psycopg

from fanfold_sql.migrate import Script, migrate, scripts
from tests.property import machine
from tests.property.interleave.judge import run
from tests.property.interleave.laboratory import open_laboratory
from tests.property.interleave.scenarios import exactly
from tests.property.mutation.mutant import Mutant
from tests.property.mutation.table import MUTANTS
from tests.support.database import Server
from tests.support.servers import running_postgres

_SHOWN_CHARS = 140


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check said. `found`: what it found, None if nothing. `where`: after how much."""

    check: str
    found: str | None
    where: str
    seconds: float

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.check} found nothing ({self.where}, {self.seconds:.1f} s)"
        return f"{self.check} in {self.seconds:.1f} s ({self.where}): {self.found[:_SHOWN_CHARS]}"


def by_interleavings(server: Server, template: str, changed: Sequence[Script], scenarios: Sequence[str]) -> Verdict:
    """Run scenarios until one shows a violation."""
    started = time.monotonic()
    schedules = 0
    with open_laboratory(server, template, changed) as laboratory:
        for name in scenarios:
            ran = run(laboratory, exactly(name), stop_early=True)
            schedules += ran.schedules
            if ran.violations:
                violation = ran.violations[0]
                where = f"schedule {schedules}" if schedules else violation.schedule
                return Verdict("interleavings", violation.what, where, time.monotonic() - started)
    return Verdict("interleavings", None, f"{schedules} schedules", time.monotonic() - started)


def by_machine(server: Server, template: str, changed: Sequence[Script], seconds: float, seed: int) -> Verdict:
    """Let the state machine play until it finds a violation or the time is over."""
    with server.temporary_database(template) as name:
        dsn = server.dsn_for(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            for script in changed:
                if script.kind == "procedure":
                    connection.execute(script.text.encode())
        report = machine.run(dsn, seconds, seed)
    found = None if report.violation is None else " ".join(report.violation.split())
    return Verdict("machine", found, f"step {report.steps}", report.seconds)


def kill(
    server: Server, template: str, changed: Sequence[Script], mutant: Mutant, seconds: float, seed: int
) -> list[Verdict]:
    """What each check that is to find a mutant says of the procedures changed by it."""
    verdicts = [by_interleavings(server, template, changed, [mutant.scenario])]
    if mutant.machine:
        verdicts.append(by_machine(server, template, changed, seconds, seed))
    return verdicts


def control(server: Server, template: str, ours: Sequence[Script], seconds: float, seed: int) -> list[Verdict]:
    """The same checks of the procedures as they are."""
    return [
        by_interleavings(server, template, ours, sorted({mutant.scenario for mutant in MUTANTS})),
        by_machine(server, template, ours, seconds, seed),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--mutant", default="", help="only those with this in their names")
    parser.add_argument("--machine-seconds", type=float, default=30.0, help="for the state machine, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)

    ours, killed = scripts(), 0
    chosen = {mutant: mutant.apply(ours) for mutant in MUTANTS if options.mutant in mutant.name}
    with running_postgres() as server, server.temporary_database() as template:
        migrate(server.dsn_for(template))
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            limits = options.machine_seconds, options.seed
            passing = pool.submit(control, server, template, ours, *limits)
            trials = {
                pool.submit(kill, server, template, changed, mutant, *limits): mutant
                for mutant, changed in chosen.items()
            }
            for trial in as_completed(trials):
                verdicts = trial.result()
                survives = any(verdict.found is None for verdict in verdicts)
                killed += not survives
                _tell("SURVIVES" if survives else "killed", trials[trial].name, verdicts)
            sound = all(verdict.found is None for verdict in passing.result())
            _tell("passes" if sound else "FAILS", "no mutant", passing.result())
    print(f"mutants: mutants={len(chosen)} killed={killed}")
    return int(killed < len(chosen) or not chosen or not sound)


def _tell(word: str, name: str, verdicts: Sequence[Verdict]) -> None:
    print(f"{word:8}  {name}", *verdicts, sep="\n            ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
