"""What settings of a member are worth: no-op tasks per second with one of them off its default, beside the defaults.

Two processes, as in `throughput`. Handlers that do nothing show what a setting costs the fleet itself; what a handler
that waits needs (`concurrency` above all) is in `sleeping`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from fanfold_consumer import FleetConfig
from tests.benchmarks.backlog import build_backlog
from tests.benchmarks.contenders.fleet_member import ENV_SETTINGS
from tests.benchmarks.measure import interleave, ratio
from tests.benchmarks.racing import Contender, race
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack
from tests.benchmarks.throughput import FLEET, WARM_UP

NAME = "settings"

_TASKS = 120_000
_TRIED = {
    "in_flight_max": (500, 2_000, 8_000),
    "batch_results_max": (100, 300, 3_000),
    "concurrency": (16, 1_024),
    "pool_size": (1, 8),
}
_DEFAULTS = "the defaults"


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    warm_up, backlog = build_backlog(WARM_UP), build_backlog(_TASKS)

    def once(contender: Contender) -> float:
        return race(stack, contender, warm_up, backlog, processes=2).tasks_per_s

    contenders = {_DEFAULTS: partial(once, FLEET)}
    for setting, values in _TRIED.items():
        for value in values:
            env = {ENV_SETTINGS: json.dumps({setting: value})}
            contenders[f"{setting} {value:,}"] = partial(once, replace(FLEET, env=env))
    samples = interleave(contenders, repetitions, telling(say, NAME, repetitions, "a second"))
    for name, found in samples.items():
        yield Figure(NAME, name, "tasks/s", found)
        if name != _DEFAULTS:
            yield Ratio(NAME, f"{name} ÷ {_DEFAULTS}", ratio(found, samples[_DEFAULTS]), None, at_most=False)
    defaults = {field: FleetConfig.__dataclass_fields__[field].default for field in _TRIED}
    yield f"{NAME}: the defaults: " + ", ".join(f"{name} {value:,}" for name, value in defaults.items())
