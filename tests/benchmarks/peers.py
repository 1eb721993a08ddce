"""The same job on systems that people use for it today, beside our fleet: no-op fan-outs of 100, joined in order.

Arguments and results have 200 bytes. Results are stored in the same Postgres as the fleet's; Celery's are in Redis.
These systems take so much longer for a task that each is given as many as it does in some seconds, and rates are
compared. What can be chosen and matters is tried on this machine first, and the fastest choice is what is compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.benchmarks.backlog import FAN_OUT_SIZE
from tests.benchmarks.child import Child
from tests.benchmarks.machine import is_installed
from tests.benchmarks.measure import interleave, ratio
from tests.benchmarks.redis_server import redis_program, running_redis
from tests.benchmarks.report import Figure, Ratio, readable, telling
from tests.benchmarks.servers import BenchStack
from tests.benchmarks.throughput import joining_throughput

NAME = "peers"

_FLEET = "fleet, joining, 2 processes"
_ENV_REDIS_URL = "BENCH_REDIS_URL"
# About as long as a run takes on two cores; of the fleet in tasks, of the others by what they did when they were tried.
_FLEET_TASKS, _SECONDS = 200_000, 4.0
_FLEET_TASKS_QUICK, _SECONDS_QUICK = 60_000, 2.0
_FAN_OUTS_MIN = 5
_READY_S = 180.0
_RUN_S = 600.0

Choice = tuple[str, ...]
"""Arguments of a contender."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A system to compare with.

    Attributes:
        program: of `tests.benchmarks.contenders`.
        package: what it imports.
        choices: what is tried, by what it means.
        bound: the least that the fleet's rate must be, in its rates.
        processes: how many of the program run at once; they share the work.
        needs_redis: it cannot run without.
        trial_fan_outs: of each choice; enough for some seconds, and for all that are to run at once.
    """

    program: str
    package: str
    choices: Mapping[str, Choice]
    bound: float | None = None
    processes: int = 1
    needs_redis: bool = False
    trial_fan_outs: int = 10


def _graphs(*numbers: int, durability: str = "async") -> dict[str, Choice]:
    return {f"{number} at once": ("--graphs", str(number), "--durability", durability) for number in numbers}


def _celery(workers: int, pool: str, processes: int, prefetch: int) -> Choice:
    numbers = ("--workers", str(workers), "--processes", str(processes), "--prefetch", str(prefetch))
    return (*numbers, "--pool", pool)


def _dbos(way: str, *limits: tuple[int, int]) -> dict[str, Choice]:
    return {
        f"{at_once} at once in a process, polls every {poll_ms} ms": (
            *("--way", way, "--concurrency", str(at_once)),
            *("--poll-s", str(poll_ms / 1000)),
        )
        for at_once, poll_ms in limits
    }


_LANGGRAPH = "LangGraph in-process"
_SEND = Peer("langgraph_send", "langgraph.checkpoint.postgres", _graphs(1, 4, 16), trial_fan_outs=32)
_QUEUE = Peer("dbos_queue", "dbos", _dbos("batched", (100, 10), (100, 50), (1000, 50)))
_PEERS = {
    # Two processes of the fleet beside one: a graph runs in one, whatever there is. The next line has two.
    _LANGGRAPH: replace(_SEND, bound=60),
    "LangGraph in 2 processes": replace(_SEND, choices=_graphs(4, 16), processes=2),
    # Another job, because no result is kept before all of its fan-out are there; but a setting that is in use.
    "LangGraph in-process, durability=exit": replace(_SEND, choices=_graphs(4, 16, durability="exit")),
    "Celery chord": Peer(
        "celery_chord",
        "celery",
        {
            "prefork of 2, prefetch 4 each": _celery(1, "prefork", 2, 4),
            "prefork of 2, prefetch 64 each": _celery(1, "prefork", 2, 64),
            "prefork of 2, prefetch without limit": _celery(1, "prefork", 2, 0),
            "2 workers without a pool, prefetch 64 each": _celery(2, "solo", 1, 64),
        },
        bound=200,
        needs_redis=True,
    ),
    "DBOS queue": replace(_QUEUE, bound=200),
    "DBOS queue as documented": replace(_QUEUE, choices=_dbos("documented", (100, 50), (1000, 200))),
}


# The trials would take longer than the comparison.
_PEERS_QUICK = {_LANGGRAPH: replace(_PEERS[_LANGGRAPH], choices=_graphs(16))}


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    wanted = _PEERS_QUICK if quick else _PEERS
    if quick:
        yield f"{NAME}: quick: not {', '.join(name for name in _PEERS if name not in wanted)}"
    missing = {name: missing_for(peer) for name, peer in wanted.items()}
    yield from (f"{NAME}: {name} was skipped: {what}" for name, what in missing.items() if what)
    peers = {name: peer for name, peer in wanted.items() if not missing[name]}
    if not peers:
        return
    tasks, seconds = (_FLEET_TASKS_QUICK, _SECONDS_QUICK) if quick else (_FLEET_TASKS, _SECONDS)
    contenders: dict[str, Callable[[], float]] = {_FLEET: partial(joining_throughput, stack, processes=2, tasks=tasks)}
    with ExitStack() as running:
        env: dict[str, str] = {}
        if any(peer.needs_redis for peer in peers.values()):
            env[_ENV_REDIS_URL] = running.enter_context(running_redis())
        for name, peer in peers.items():
            say(f"{NAME}: {name}: trying {len(peer.choices)} settings")
            tried = {
                label: _rate(stack, env, peer, choice, peer.trial_fan_outs) for label, choice in peer.choices.items()
            }
            best = max(tried, key=tried.__getitem__)
            trials = "; ".join(f"{label}: {readable(rate)}" for label, rate in tried.items())
            yield f"{NAME}: {name}: {best} (tried first, tasks/s: {trials})"
            fan_outs = max(_FAN_OUTS_MIN, round(tried[best] * seconds / FAN_OUT_SIZE))
            contenders[name] = partial(_rate, stack, env, peer, peer.choices[best], fan_outs)
        samples = interleave(contenders, repetitions, telling(say, NAME, repetitions, "tasks/s"))
    for name, values in samples.items():
        yield Figure(NAME, name, "tasks/s", values)
    for name, peer in peers.items():
        yield Ratio(NAME, f"fleet ÷ {name}", ratio(samples[_FLEET], samples[name]), peer.bound, at_most=False)


def missing_for(peer: Peer) -> str | None:
    """What this machine lacks for it, and how to get that."""
    if not is_installed(peer.package):
        return f"{peer.package} is not installed; requirements/bench.txt has it"
    if peer.needs_redis and redis_program() is None:
        return "there is no redis-server on the PATH; on Debian and Ubuntu: apt-get install redis-server"
    return None


def _rate(stack: BenchStack, env: Mapping[str, str], peer: Peer, choice: Choice, fan_outs: int) -> float:
    """Tasks per second of one run, by processes started for it that have warmed up, in a database of its own."""
    with (
        stack.database() as database,
        tempfile.TemporaryDirectory(prefix="fanfold-bench-") as folder,
        ExitStack() as running,
    ):
        children: list[Child] = []
        for number in range(peer.processes):
            log = Path(folder, f"{number}.log")
            child = running.enter_context(Child(peer.program, *choice, env={**stack.env(database), **env}, log=log))
            # Before the next one begins: each sets up the database, and two at once would collide.
            child.wait_for(lambda line: "ready" in line, _READY_S, what="its warm-up done")
            children.append(child)
        share = -(-fan_outs // len(children))
        for child in children:
            child.say({"fan_outs": share})
        took = [
            child.wait_for(lambda line: "seconds" in line, _RUN_S, what=f"{share} fan-outs joined")
            for child in children
        ]
        # They began at the same moment, so the slowest one's time is that of all.
        return share * len(children) * FAN_OUT_SIZE / max(float(line["seconds"]) for line in took)
