"""Step two and three sessions through the real procedures in every order: `python -m tests.property.interleavings`.

Exits with 1 if some order ends as no order of whole transactions does, or breaks a guarantee, and prints that order.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from multiprocessing import get_context

from fanfold_sql.migrate import Script, migrate, scripts
from tests.property.interleave.judge import Ran, run
from tests.property.interleave.laboratory import Laboratory, open_laboratory
from tests.property.interleave.scenarios import exactly, named
from tests.support.database import Server
from tests.support.servers import running_postgres

_SHOWN_MAX = 5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interleavings", description=__doc__)
    parser.add_argument("--scenario", default="", help="only those with this in their names")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="each with a database of its own")
    options = parser.parse_args(arguments)

    # Three sessions first: those take longest, and nobody should wait for the last of them alone.
    chosen = sorted(named(options.scenario), key=lambda scenario: -len(scenario.sessions))
    ran: list[Ran] = []
    with running_postgres() as server, server.temporary_database() as template:
        migrate(server.dsn_for(template))
        with ProcessPoolExecutor(options.workers, get_context("spawn"), _open, (server, template, scripts())) as pool:
            started = time.monotonic()
            for future in as_completed([pool.submit(_run, scenario.name) for scenario in chosen]):
                ran.append(future.result())
                _tell(ran[-1], len(ran), len(chosen), time.monotonic() - started)
    violations = sum(len(one.violations) for one in ran)
    print(f"interleavings: schedules={sum(one.schedules for one in ran)} violations={violations}")
    return int(violations > 0 or not ran)


def _tell(one: Ran, done: int, of: int, seconds: float) -> None:
    print(f"{seconds:5.0f} s  {done}/{of}  {one.schedules:5} schedules  {one.scenario}", file=sys.stderr, flush=True)
    for violation in one.violations[:_SHOWN_MAX]:
        print(f"VIOLATION: {violation}", flush=True)
    if len(one.violations) > _SHOWN_MAX:
        print(f"… and {len(one.violations) - _SHOWN_MAX} more of {one.scenario}", flush=True)


# One laboratory per worker process, for as long as that lives.
_open_things = ExitStack()
_laboratories: list[Laboratory] = []


def _open(server: Server, template: str, ours: Sequence[Script]) -> None:
    _laboratories.append(_open_things.enter_context(open_laboratory(server, template, ours)))


def _run(name: str) -> Ran:
    return run(_laboratories[0], exactly(name))


if __name__ == "__main__":
    sys.exit(main())
