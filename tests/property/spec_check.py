"""The specification in `spec/`, checked: every state of its small worlds, its guards one by one taken out, and its
behaviours replayed against the real procedures.

    python -m tests.property.spec_check [--traces N] [--seed N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg

from fanfold_sql.migrate import migrate
from tests.property.prove import UNAVAILABLE
from tests.property.spec_replay import Diverged, Replay
from tests.property.spec_traces import Trace, labels, read_trace, save
from tests.property.tlc import SPEC, Checked, CheckerFailed, CheckerUnavailable, behaviours, check, checker, witness
from tests.support.database import Server
from tests.support.servers import running_postgres

TRACES = SPEC / "traces.json"

# Scenarios of spec/scenarios.tla, and whether their members may be exchanged.
SCENARIOS = {
    "handover": True,
    "stray": True,
    "failover": True,
    "partitions": True,
    "replay": False,
    "twice": False,
    "clocks": False,
    "outbox": False,
}
# Where it is checked as well that every behaviour comes to rest; elsewhere it would take too long.
RESTING = ("partitions", "twice", "clocks")

# Guards of the procedures and of the fleet, each with the world in which its absence has to show.
GUARDS = (
    ("fence", "handover"),
    ("owner", "failover"),
    ("seq", "failover"),
    ("clock", "clocks"),
    ("cancel", "clocks"),
    ("same run", "handover"),
    ("count", "handover"),
    ("complete", "partitions"),
    ("fold run", "replay"),
    ("new run", "replay"),
    ("island", "handover"),
    ("together", "handover"),
    ("duplicate", "twice"),
    ("publish", "outbox"),
)

# What the specification takes for granted, because the product holds it by means that it does not model (timelines,
# epochs and ids that no failover gives out again): without it a guarantee falls. docs/contract.md has their tests.
ASSUMED = (("settle", "failover"), ("verdict", "failover"), ("forget", "outbox"))

# What the behaviours that are replayed have to contain between them.
WANTED = frozenset(
    (
        *("claim", "finish", "send", "answer", "renew", "release", "publish", "acknowledge"),
        *("lose", "stray", "crash", "backup", "failover", "republish", "reset", "rerun", "cancel thread", "advance"),
        *("deliver: applied", "deliver: duplicate", "deliver: stale", "deliver: closed", "deliver: finished"),
        *("execute: ok", "execute: fenced", "execute: rewound", "execute stray: ok", "execute stray: fenced"),
        *("outcome: applied", "outcome: duplicate", "outcome: stale", "outcome: closed"),
        *("cancel: cancelled", "cancel: done"),
        # Why a call was refused, a claim lost; what a reset forgot.
        *("execute for its epoch", "execute for its owner", "execute for its seq"),
        *("renew for its epoch", "renew for its owner", "renew for its seq", "reset for its islands"),
    )
)
# Of these, what chance hardly finds: TLC searches for a shortest behaviour.
RARE = (
    ("handover", ("deliver", "finished")),
    ("clocks", ("deliver", "closed")),
    ("clocks", ("cancel", "done")),
    ("failover", ("execute", "owner")),
    ("failover", ("execute", "seq")),
    ("failover", ("renew", "owner")),
    ("failover", ("renew", "seq")),
    ("replay", ("reset", "islands")),
)
_DEPTH = 60


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="spec_check", description=__doc__)
    parser.add_argument("--traces", type=int, default=320, help="behaviours to replay")
    parser.add_argument("--seed", type=int, default=1, help="of the behaviours")
    parser.add_argument("--save", action="store_true", help="keep a few of them, which cover everything, in the tree")
    options = parser.parse_args(arguments)
    try:
        jar = checker()
        states, violations = _search(jar)
        traces = draw(jar, options.traces, options.seed)
    except CheckerUnavailable as error:
        print(f"spec: not checked: {error}", file=sys.stderr)
        return UNAVAILABLE
    except CheckerFailed as error:
        print(f"spec: {error}", file=sys.stderr)
        return 1
    if options.save:
        save(covering(traces), TRACES)
    missing = WANTED - frozenset[str]().union(*map(labels, traces))
    if missing:
        _say(f"no behaviour contains {', '.join(sorted(missing))}; take another --seed or more --traces")
    violations += len(missing)
    steps, diverged = replay_all(traces, _say)
    print(
        f"spec: states={states} traces={len(traces)} steps={steps} violations={violations + diverged}"
        f" mutants={len(GUARDS)} assumptions={len(ASSUMED)}"
    )
    return int(violations + diverged > 0)


def _search(jar: Path) -> tuple[int, int]:
    """(states seen, violations): what must hold and does not, and what must not hold and does."""
    with ThreadPoolExecutor(2) as pool:
        whole = [(s, pool.submit(check, jar, s, alike=a, rests=s in RESTING)) for s, a in SCENARIOS.items()]
        without = [(g, s, pool.submit(check, jar, s, removed=g, alike=SCENARIOS[s])) for g, s in GUARDS + ASSUMED]
        states = violations = 0
        for scenario, future in whole:
            checked = future.result()
            states += checked.states
            violations += checked.violated is not None
            _say(f"{scenario}: {_verdict(checked)}")
        for guard, scenario, future in without:
            checked = future.result()
            violations += checked.violated is None
            _say(f"{scenario} without {guard!r}: {_verdict(checked)}")
    return states, violations


def _verdict(checked: Checked) -> str:
    if checked.violated is None:
        return f"{checked.states} states, all as they should be"
    return f"{checked.violated} does not hold"


def draw(jar: Path, number: int, seed: int) -> list[Trace]:
    """Random behaviours: half of them of the world where everything happens, the others of the small ones; and what
    chance hardly finds."""
    traces = [read_trace(witness(jar, scenario, *sought)) for scenario, sought in RARE]
    small = max(1, number // 2 // len(SCENARIOS))
    counts = dict.fromkeys(SCENARIOS, small) | {"everything": max(1, number - small * len(SCENARIOS) - len(RARE))}
    with tempfile.TemporaryDirectory(prefix="fanfold-traces-") as folder:
        for scenario, count in counts.items():
            texts = behaviours(jar, scenario, Path(folder), number=count, depth=_DEPTH, seed=seed)
            traces += [read_trace(text) for text in texts]
    return traces


def covering(traces: Sequence[Trace]) -> list[Trace]:
    """A few of the behaviours that contain between them whatever all of them do, twice over."""
    chosen: list[Trace] = []
    for _ in range(2):
        left = [trace for trace in traces if trace not in chosen]
        open_labels = set(frozenset[str]().union(*map(labels, left)))
        while open_labels:
            best = max(left, key=lambda trace: (len(labels(trace) & open_labels), -len(trace)))
            chosen.append(best)
            open_labels -= labels(best)
    return chosen


def replay_all(traces: Sequence[Trace], say: Callable[[str], None]) -> tuple[int, int]:
    """(steps replayed, behaviours that diverged), on a PostgreSQL of one's own."""
    steps = diverged = 0
    with running_postgres() as server, replaying(server) as replay:
        for number, trace in enumerate(traces, start=1):
            try:
                replay.run(trace)
            except Diverged as error:
                diverged += 1
                say(f"behaviour {number} diverges: {error}")
            steps += len(trace) - 1
            if number % 50 == 0:
                say(f"{number} of {len(traces)} behaviours replayed")
    return steps, diverged


@contextmanager
def replaying(server: Server) -> Iterator[Replay]:
    with server.temporary_database() as name:
        migrate(server.dsn_for(name))
        with server.worker_login() as (user, password):
            worker_dsn = server.dsn_for(name, user=user, password=password)
            with (
                psycopg.connect(worker_dsn, autocommit=True) as worker,
                psycopg.connect(server.dsn_for(name), autocommit=True) as owner,
            ):
                yield Replay(worker, owner)


def _say(text: str) -> None:
    print(f"spec: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
