"""A graph's handlers on a member: one for every node it may be asked for, and the fold that finishes its supersteps."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.context import Sends, TaskContext
from fanfold_consumer.errors import ConfigError
from fanfold_consumer.langgraph.blueprint import SEPARATOR, Blueprint, Level
from fanfold_consumer.langgraph.errors import GraphRefused
from fanfold_consumer.langgraph.finish import NOT_THE_GRAPHS, Finisher
from fanfold_consumer.langgraph.node_run import NodeRuns
from fanfold_consumer.langgraph.outcome import Outcome
from fanfold_consumer.langgraph.saver import FanfoldSaver
from fanfold_consumer.langgraph.serde import serde
from fanfold_consumer.langgraph.values import Types
from fanfold_consumer.registry import Registry
from fanfold_sql import Store
from fanfold_sql.pool import open_pool

POLICY = "fanfold"
"""Key of a node's metadata with the settings of its handler, as `Registry.task` takes them."""
_FINISH_RETRIES = 1_000_000
"""What a finisher raises is its database being away, which no number of attempts makes wrong."""


def load_graph(target: str) -> Blueprint:
    """What `--graph [NAME=]MODULE:OBJECT` names. The working directory is looked in first, as `python -m` does.

    Raises:
        ConfigError: it cannot be imported, or is no graph for a fleet.
    """
    name, equals, rest = target.rpartition("=")
    module, colon, attribute = rest.partition(":")
    if not colon or not module or not attribute or bool(equals) != bool(name):
        raise ConfigError([f"--graph {target!r}: write MODULE:OBJECT, or NAME=MODULE:OBJECT"])
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise ConfigError([f"--graph {target}: {type(error).__name__}: {error}"]) from error
    try:
        if isinstance(found, Blueprint):
            return Blueprint(found.graph, name or found.name, found.types)
        return Blueprint(found, name or "graph")
    except GraphRefused as error:
        raise ConfigError([f"--graph {target}: {problem}" for problem in error.problems]) from error


@asynccontextmanager
async def serving(
    blueprints: Sequence[Blueprint], registry: Registry, config: FleetConfig, checkpoint_url: str | None
) -> AsyncIterator[None]:
    """Have a member serve graphs while the context lasts."""
    loop = asyncio.get_running_loop()
    # LangGraph runs `def` nodes on the loop's own workers, of which there are few by default.
    loop.set_default_executor(ThreadPoolExecutor(config.sync_workers, "fanfold-node"))
    url = config.database_url if checkpoint_url is None else checkpoint_url
    async with (
        open_pool(url, size=config.pool_size, prepare=config.prepare) as pool,
        Store.open(config.database_url, pool_size=1, prepare=config.prepare) as store,
    ):
        for blueprint in blueprints:
            register_graph(registry, blueprint, FanfoldSaver(pool, serde=_serializer(blueprint.table)), store)
        yield


def _serializer(types: Types) -> SerializerProtocol | None:
    """A strict one; None, the saver's own, where langgraph-checkpoint is older than 4 and cannot be strict."""
    try:
        return serde(types)
    except TypeError:
        return None


def register_graph(registry: Registry, blueprint: Blueprint, saver: BaseCheckpointSaver[Any], store: Store) -> None:
    """Declare a graph's handlers.

    Raises:
        ConfigError: its names are taken, or a node's policy is no policy. All problems at once.
    """
    problems: list[str] = []
    runs = {level.path: NodeRuns(blueprint, level) for level in blueprint.levels.values()}
    for level, node in blueprint.nodes():
        name = blueprint.handler_name(SEPARATOR.join((*level.path, node)))
        problems += _declare(registry, name, level, node, runs[level.path])
    finisher = Finisher(blueprint, saver, store)

    async def finish(results: list[Any], context: TaskContext) -> Outcome | Sends:
        return await finisher.finish(results, context)

    if registry.get(blueprint.name) is not None:
        problems.append(_taken(blueprint.name))
    if problems:
        raise ConfigError(problems)
    registry.fold(blueprint.name, retries=_FINISH_RETRIES, backoff=0.5, backoff_max=30.0, retry_on=NOT_THE_GRAPHS)(
        finish
    )


def _declare(registry: Registry, name: str, level: Level, node: str, runs: NodeRuns) -> list[str]:
    async def run(arg: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        return await runs.run(node, arg, context)

    if registry.get(name) is not None:
        return [_taken(name)]
    policy = (level.builder.nodes[node].metadata or {}).get(POLICY, {})
    try:
        registry.task(name, **policy)(run)
    except ConfigError as error:
        return list(error.problems)
    except TypeError as error:
        return [f"handler {name!r}: metadata[{POLICY!r}] of node {node!r}: {error}"]
    return []


def _taken(name: str) -> str:
    return (
        f"handler {name!r} is declared twice; give each graph a name, --graph NAME=MODULE:OBJECT, and the same one "
        "where it is started, Blueprint(name=...)"
    )
