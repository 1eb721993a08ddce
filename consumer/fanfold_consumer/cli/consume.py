"""`fanfold consume`: run one member of a consumer group."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from fanfold_consumer.cli.options import (
    Command,
    claim_check_bytes_min_option,
    claim_store_option,
    database_option,
    raw_kafka_options,
)
from fanfold_consumer.config import FleetConfig
from fanfold_consumer.errors import ConfigError
from fanfold_consumer.events import configure_logging
from fanfold_consumer.fleet import Fleet
from fanfold_consumer.registry import Registry, load_handlers
from fanfold_producer.errors import KafkaConfigError
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import DEFAULT_TOPIC

if TYPE_CHECKING:
    from fanfold_consumer.langgraph.blueprint import Blueprint

_DEFAULTS: Any = FleetConfig.__dataclass_fields__
_SOMEWHERE = KafkaConfig("localhost")
"""In place of settings that cannot work, while the rest is checked."""


def _setting(name: str, kind: Any, text: str) -> Callable[[Command], Command]:
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=kind,
        default=_DEFAULTS[name].default,
        show_default=True,
        help=text,
    )


@click.command()
@click.option(
    "--handlers",
    multiple=True,
    metavar="MODULE",
    help="Module with @task and @fold. Repeatable.",
)
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    metavar="[NAME=]MODULE:OBJECT",
    help="LangGraph graph whose nodes to run. Repeatable.",
)
@click.option(
    "--checkpoint-url",
    envvar="FANFOLD_CHECKPOINT_URL",
    show_envvar=True,
    help="Postgres with the graphs' checkpoints, if it is another than --database-url.",
)
@click.option("--group", "group_id", required=True, envvar="FANFOLD_GROUP", show_envvar=True, help="Consumer group.")
@click.option("--topic", "topics", multiple=True, default=(DEFAULT_TOPIC,), show_default=True, help="Repeatable.")
@click.option(
    "--start",
    type=click.Choice(["earliest", "latest"]),
    default="earliest",
    show_default=True,
    help="Where a new group begins.",
)
@_setting("concurrency", int, "Handlers running at once.")
@_setting("sync_workers", int, "OS threads for `def` handlers.")
@_setting("process_workers", int, "Processes for handlers with isolation='process'.")
@_setting("retry_in_place_s", float, "A longer wait for a task's next attempt is spent in the outbox.")
@_setting("in_flight_max", int, "Records polled and not yet committed; beyond it polling pauses.")
@_setting("in_flight_bytes_max", int, "The same in bytes.")
@_setting("batch_results_max", int, "Results in one commit.")
@_setting("batch_bytes_max", int, "Bytes of results in one commit.")
@_setting("poll_records_max", int, "Records taken from the client at once.")
@_setting("drain_s", float, "Seconds running handlers get on SIGTERM.")
@_setting("revoke_grace_s", float, "Seconds they get when their partition moves.")
@_setting("pool_size", int, "Postgres connections.")
@_setting("renew_interval_s", float, "Seconds between signs of life in Postgres.")
@_setting("mirror_interval_s", float, "Seconds between copies of the offsets to Kafka.")
@_setting("relay_interval_s", float, "Seconds between looks at the outbox for what others left.")
@_setting("relay_lease_s", float, "Seconds a claimed outbox record is one member's to publish.")
@_setting("assignor", str, "partition.assignment.strategy of the group.")
@claim_store_option
@claim_check_bytes_min_option
@click.option("--group-instance-id", envvar="FANFOLD_GROUP_INSTANCE_ID", show_envvar=True, help="Static membership.")
@click.option("--prepare/--no-prepare", default=True, help="Prepared statements, where the connection is direct.")
@click.option(
    "--early-lock-release",
    is_flag=True,
    default=False,
    envvar="FANFOLD_EARLY_LOCK_RELEASE",
    show_envvar=True,
    help="Free threads before their commit is on disk; readers may see what a crash takes back.",
)
@click.option(
    "--health-port", type=int, envvar="FANFOLD_HEALTH_PORT", show_envvar=True, help="/live, /ready, /metrics."
)
@_setting("health_host", str, "Address of the health endpoint.")
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="Events on stderr, for people or for machines.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least of them that is written.",
)
@database_option
@raw_kafka_options
def consume(
    handlers: tuple[str, ...],
    graphs: tuple[str, ...],
    checkpoint_url: str | None,
    bootstrap_servers: str | None,
    properties: tuple[str, ...],
    log_format: str,
    log_level: str,
    **settings: Any,
) -> None:
    """Run tasks of a topic and commit their results exactly once.

    SIGTERM or Ctrl-C: finish what runs, hand partitions over, leave. A second one: stop at once; what was not committed
    is done again by the others.
    """
    configure_logging(json=log_format == "json", level=log_level)
    problems: list[str] = []
    kafka, registry = _SOMEWHERE, Registry()
    with _collect(problems):
        kafka = KafkaConfig.from_env(bootstrap_servers, properties)
    config = FleetConfig(kafka=kafka, **settings)
    with _collect(problems):
        config.check()
    if not handlers and not graphs:
        problems.append("there is nothing to run; name modules with --handlers, or LangGraph's graphs with --graph")
    if handlers:
        with _collect(problems):
            registry = load_handlers(handlers)
    blueprints: list[Blueprint] = []
    with _collect(problems):
        blueprints = _load_graphs(graphs)
    if problems:
        raise ConfigError(problems)
    asyncio.run(_run(config, registry, blueprints, checkpoint_url))


@contextmanager
def _collect(problems: list[str]) -> Iterator[None]:
    """Go on after problems of one part, so that those of all parts are told at once."""
    try:
        yield
    except (ConfigError, KafkaConfigError) as error:
        problems += error.problems


async def _run(
    config: FleetConfig, registry: Registry, graphs: Sequence[Blueprint], checkpoint_url: str | None
) -> None:
    async with AsyncExitStack() as stack:
        if graphs:
            from fanfold_consumer.langgraph.members import serving

            await stack.enter_async_context(serving(graphs, registry, config, checkpoint_url))
        await _run_until_signal(Fleet(config, registry))


def _load_graphs(targets: Sequence[str]) -> list[Blueprint]:
    """Raises ConfigError: all that is wrong with any of them."""
    if not targets:
        return []
    try:
        from fanfold_consumer.langgraph.members import load_graph
    except ImportError as error:
        raise ConfigError([f"--graph: {error}; it needs pip install 'fanfold[langgraph]'"]) from error
    problems: list[str] = []
    graphs = []
    for target in targets:
        with _collect(problems):
            graphs.append(load_graph(target))
    if problems:
        raise ConfigError(problems)
    return graphs


async def _run_until_signal(fleet: Fleet) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await fleet.run(stop)
