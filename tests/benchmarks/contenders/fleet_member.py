"""A member of the fleet with the handlers of the benchmarks. Every setting has its default, unless
FANFOLD_BENCH_SETTINGS, fields of `FleetConfig` as JSON, says otherwise."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

from fanfold_consumer import Fleet, FleetConfig, Registry
from fanfold_consumer.events import configure_logging
from fanfold_producer.kafka import KafkaConfig
from tests.benchmarks.contenders.consuming import DATABASE_URL, options

ENV_SETTINGS = "FANFOLD_BENCH_SETTINGS"

registry = Registry()


@registry.task("noop")
async def noop(arg: Any) -> Any:
    return arg


@registry.task("echo")
async def echo(arg: dict[str, Any]) -> dict[str, Any]:
    return arg


@registry.fold("total")
async def total(results: list[dict[str, Any]]) -> int:
    return sum(result["n"] for result in results)


@registry.task("sleep")
async def sleep(arg: dict[str, Any]) -> dict[str, Any]:
    """As a call of a model does. The times are those of the clock that all processes of a machine share."""
    begun = time.monotonic_ns()
    await asyncio.sleep(arg["seconds"])
    return {"begun": begun, "ended": time.monotonic_ns(), "slept": arg["seconds"], "text": arg["text"]}


async def main() -> None:
    asked = options()
    settings = json.loads(os.environ.get(ENV_SETTINGS, "{}"))
    config = FleetConfig(asked.group, (asked.topic,), KafkaConfig.from_env(), DATABASE_URL, **settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Fleet(config, registry).run(stop)


if __name__ == "__main__":
    configure_logging(json=True, level="warning")
    asyncio.run(main())
