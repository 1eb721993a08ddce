"""Checks of everything around a fleet that the guarantees rest on: Postgres, a pooler, Kafka, the clients' settings."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.doctor.findings import Check, Finding, Plan, Status, examine, worst_first
from fanfold_consumer.doctor.kafka import read_kafka
from fanfold_consumer.doctor.kafka_checks import KAFKA_CHECKS
from fanfold_consumer.doctor.pgbouncer import PGBOUNCER_CHECKS, read_pooling
from fanfold_consumer.doctor.postgres import read_postgres
from fanfold_consumer.doctor.postgres_checks import POSTGRES_CHECKS
from fanfold_producer.errors import ProducerError

__all__ = ["CHECKS", "Check", "Finding", "Status", "diagnose"]

CHECKS: tuple[Check[Any], ...] = (*POSTGRES_CHECKS, *PGBOUNCER_CHECKS, *KAFKA_CHECKS)

T = TypeVar("T")


async def diagnose(
    config: FleetConfig,
    *,
    group: str | None = None,
    members: int | None = None,
    database_cores: int | None = None,
    prune_after: timedelta | None = None,
    timeout_s: float = 5.0,
    clock: Callable[[], float] = time.time,
) -> list[Finding]:
    """Every check once, worst first. Raises nothing because of a server, and takes a few times `timeout_s` at most.

    Args:
        config: of each member; its first topic is looked at.
        group: whose members are counted; None: of every group in this database.
        members: how many there are to be; None: as many as hold partitions now, at least one.
        database_cores: of the database server; None: those of this machine if it runs here.
        prune_after: what `fanfold prune --older-than` is given; None: not known.
    """
    dsn = config.database_url
    kafka_read = asyncio.create_task(asyncio.to_thread(_read_kafka, config, timeout_s, clock))
    # One after the other: a connection of ours in between would blur how the pooler hands them on.
    pooling = await _within(timeout_s, read_pooling(dsn))
    postgres = await _within(timeout_s, read_postgres(dsn, group, clock))
    if not isinstance(postgres, str):
        members = members or postgres.members
        if database_cores is None and postgres.on_this_machine:
            database_cores = os.cpu_count()
    elif isinstance(pooling, str):
        pooling = "see postgres.server"
    plan = Plan(members or 1, config, database_cores, prune_after)
    return worst_first(
        [
            *examine(POSTGRES_CHECKS, postgres, plan),
            *examine(PGBOUNCER_CHECKS, pooling, plan, away="skipped"),
            *examine(KAFKA_CHECKS, await kafka_read, plan),
        ]
    )


async def _within(timeout_s: float, read: Coroutine[Any, Any, T]) -> T | str:
    """What was read, or why it was not."""
    try:
        async with asyncio.timeout(timeout_s):
            return await read
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except psycopg.Error as error:
        return " ".join(str(error).split())


def _read_kafka(config: FleetConfig, timeout_s: float, clock: Callable[[], float]) -> Any:
    try:
        return read_kafka(config, config.topics[0], timeout_s, clock)
    except ProducerError as error:
        return " ".join(str(error).split())
