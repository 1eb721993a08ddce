"""The consumer fleet: runs tasks from Kafka and commits their results exactly once in Postgres."""

from __future__ import annotations

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.context import Sends, TaskContext
from fanfold_consumer.errors import ConfigError, FanfoldError
from fanfold_consumer.fleet import Fleet, FleetFailed
from fanfold_consumer.registry import Registry, fold, task
from fanfold_consumer.retry import RetryAfter
from fanfold_consumer.worker_processes import ProcessDied
from fanfold_schemas import Send

__all__ = [
    "ConfigError",
    "FanfoldError",
    "Fleet",
    "FleetConfig",
    "FleetFailed",
    "ProcessDied",
    "Registry",
    "RetryAfter",
    "Send",
    "Sends",
    "TaskContext",
    "fold",
    "task",
]
