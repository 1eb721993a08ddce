"""No-op tasks per second: the fleet, which commits exactly once, beside at-least-once loops and the servers' limits.

Tasks have args and results of 200 bytes and come in fan-outs of 100, on 8 partitions. How each run is done is told in
`racing.py`. A run on a quiet machine takes some seconds; its length is that of what was published.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fanfold_producer.record import Record
from tests.benchmarks.backlog import FAN_OUT_SIZE, build_backlog
from tests.benchmarks.child import Child
from tests.benchmarks.measure import interleave, ratio
from tests.benchmarks.racing import Contender, Run, race
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack

NAME = "throughput"
VS_HANDWRITTEN_MIN = 1.5
OF_INSERT_LIMIT_MIN = 0.5
WARM_UP = 20 * FAN_OUT_SIZE

_HANDWRITTEN_TABLE = (
    "create table handwritten (thread_id text, task_id text, index int4 not null, payload bytea not null,"
    " primary key (thread_id, task_id))"
)
_HANDWRITTEN_STORED = "select count(*) from handwritten"
FLEET = Contender(
    "fleet_member",
    # Of a fan-out that is not complete nothing is counted, so the sum also says that all are.
    stored="select count(*) from fanfold.result join fanfold.fan_out using (fan_out_id)"
    " where index >= 0 and status = 'done' and completed_at is not null",
    done="select coalesce(sum(next_offset), 0)::int8 from fanfold.partition_progress",
)
_JOINING_FLEET = Contender(
    "fleet_member",
    stored="select count(*) from fanfold.result r join fanfold.result fold using (fan_out_id)"
    " where r.index >= 0 and r.status = 'done' and fold.index < 0 and fold.status = 'done'",
    done="select coalesce(sum(size), 0) from fanfold.fan_out where folded_at is not null",
)
_HANDWRITTEN = Contender("handwritten", ("--batch", "2000"), _HANDWRITTEN_TABLE, _HANDWRITTEN_STORED)
_PER_MESSAGE = Contender("per_message", (), _HANDWRITTEN_TABLE, _HANDWRITTEN_STORED)
_CONSUME = Contender("consume")

_TASKS, _QUICK_TASKS = 300_000, 120_000
_EMBEDDED_TASKS = 60_000
"""To be published while the members are stopped, within its session of three seconds."""
_RAW_TABLE = "create table raw_insert (like fanfold.result including all)"
_RAW_BATCH = 2000
_RAW_S = 300.0


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    tasks, slow_tasks = (_QUICK_TASKS, 2_000) if quick else (_TASKS, 10_000)
    if stack.broker == "embedded":
        tasks = min(tasks, _EMBEDDED_TASKS)
        yield f"{NAME}: {tasks:,} tasks only, because a session of the embedded broker is short; its rates mean little"
    # Their encoding takes longer than their insert, so the quick run takes half of them.
    rows = tasks // 2 if quick else tasks
    say(f"{NAME}: encoding {tasks:,} tasks")
    warm_up, backlog = build_backlog(WARM_UP), build_backlog(tasks)
    runs: dict[str, list[Run]] = defaultdict(list)

    def racer(name: str, contender: Contender, processes: int, records: Sequence[Record]) -> Callable[[], float]:
        def once() -> float:
            done = race(stack, contender, warm_up, records, processes)
            runs[name].append(done)
            return done.tasks_per_s

        return once

    contenders: dict[str, Callable[[], float]] = {}
    for processes in (2,) if quick else (1, 2):
        plural = "process" if processes == 1 else "processes"
        for label, contender, records in (
            ("fleet", FLEET, backlog),
            ("hand-written", _HANDWRITTEN, backlog),
            ("one commit a message", _PER_MESSAGE, backlog[:slow_tasks]),
        ):
            if not (quick and contender is _PER_MESSAGE):
                name = f"{label}, {processes} {plural}"
                contenders[name] = racer(name, contender, processes, records)
        contenders[f"raw insert, {processes} {plural}"] = partial(raw_insert, stack, processes=processes, rows=rows)
    if quick:
        yield f"{NAME}: quick: no runs of one process, none with one commit a message, no bare consume loop"
    else:
        contenders["bare consume, 1 process"] = racer("bare consume, 1 process", _CONSUME, 1, backlog)
        contenders["commits of one row, 1 process"] = partial(raw_insert, stack, processes=1, rows=slow_tasks, batch=1)
    samples = interleave(contenders, repetitions, telling(say, NAME, repetitions, "a second"))
    for name, values in samples.items():
        yield Figure(NAME, name, "commits/s" if name.startswith("commits") else "tasks/s", values)
    for name, of_contender in runs.items():
        yield Figure(NAME, f"{name}: CPU of its processes", "µs/task", [each.consumers_us for each in of_contender])
        yield Figure(NAME, f"{name}: CPU of Postgres", "µs/task", [each.postgres_us for each in of_contender])
        yield Figure(NAME, f"{name}: CPU of the broker", "µs/task", [each.broker_us for each in of_contender])
    yield from _ratios(samples, quick)


def _ratios(samples: dict[str, list[float]], quick: bool) -> Iterator[Ratio]:
    fleet = samples["fleet, 2 processes"]
    yield Ratio(
        NAME,
        "fleet ÷ hand-written, 2 processes",
        ratio(fleet, samples["hand-written, 2 processes"]),
        VS_HANDWRITTEN_MIN,
        at_most=False,
    )
    yield Ratio(
        NAME,
        "fleet ÷ raw insert, 2 processes",
        ratio(fleet, samples["raw insert, 2 processes"]),
        OF_INSERT_LIMIT_MIN,
        at_most=False,
    )
    if not quick:
        one = samples["fleet, 1 process"]
        for name, of, to in (
            ("fleet ÷ hand-written, 1 process", one, "hand-written, 1 process"),
            ("fleet ÷ raw insert, 1 process", one, "raw insert, 1 process"),
            ("fleet ÷ one commit a message, 2 processes", fleet, "one commit a message, 2 processes"),
            ("fleet, 2 processes ÷ 1", fleet, "fleet, 1 process"),
        ):
            yield Ratio(NAME, name, ratio(of, samples[to]), None, at_most=False)


def joining_throughput(stack: BenchStack, *, processes: int, tasks: int) -> float:
    """Tasks per second of one run of a fleet that hands over a list of each fan-out's results, as `peers` do."""
    warm_up, backlog = build_backlog(WARM_UP, "collect"), build_backlog(tasks, "collect")
    return race(stack, _JOINING_FLEET, warm_up, backlog, processes).tasks_per_s


def raw_insert(stack: BenchStack, *, processes: int, rows: int, batch: int = _RAW_BATCH) -> float:
    """Rows per second that as many connections insert into a table like `fanfold.result`."""
    with stack.database() as database:
        stack.execute(database, _RAW_TABLE)
        share = rows // processes // FAN_OUT_SIZE * FAN_OUT_SIZE
        with tempfile.TemporaryDirectory(prefix="fanfold-bench-") as folder, ExitStack() as running:
            arguments = ("--rows", str(share), "--batch", str(batch))
            children = [
                running.enter_context(
                    Child("raw_insert", *arguments, env=stack.env(database), log=Path(folder, f"{number}.log"))
                )
                for number in range(processes)
            ]
            for child in children:
                child.wait_for(lambda line: "ready" in line, _RAW_S, what="its rows encoded")
            began = time.perf_counter()
            for child in children:
                child.say({"go": True})
            ends = [child.wait_for(lambda line: "done" in line, _RAW_S, what="its rows inserted") for child in children]
            return share * processes / (max(float(end["at"]) for end in ends) - began)
