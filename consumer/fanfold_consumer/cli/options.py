"""Options that many commands share, and the environment variables that people already set for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fanfold_producer.claim_store import CLAIM_CHECK_BYTES_MIN, ENV_CLAIM_STORE
from fanfold_producer.kafka import KafkaConfig

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


def parsed(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """An option's callback: its text through `parse`, whose ValueError is a usage error."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def database_option(command: Command) -> Command:
    return click.option(
        "--database-url",
        envvar="DATABASE_URL",
        default="",
        show_envvar=True,
        help="Postgres, as a URL or key=value string; empty: the PG* variables.",
    )(command)


def claim_store_option(command: Command) -> Command:
    return click.option(
        "--claim-store",
        envvar=ENV_CLAIM_STORE,
        show_envvar=True,
        metavar="URL",
        help="Where large args and results lie: s3://bucket/prefix, gs://, az://, or file:///folder for development.",
    )(command)


def claim_check_bytes_min_option(command: Command) -> Command:
    return click.option(
        "--claim-check-bytes-min",
        type=int,
        default=CLAIM_CHECK_BYTES_MIN,
        show_default=True,
        help="With a claim store: a value of more encoded bytes goes there. The same for all that publish.",
    )(command)


def kafka_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--bootstrap-servers` and `-X`; the command gets one `kafka: KafkaConfig`."""

    def wrapped(*args: Any, bootstrap_servers: str | None, properties: tuple[str, ...], **kwargs: Any) -> Any:
        return command(*args, kafka=KafkaConfig.from_env(bootstrap_servers, properties), **kwargs)

    wrapped.__name__ = command.__name__
    wrapped.__doc__ = command.__doc__
    if hasattr(command, "__click_params__"):
        wrapped.__click_params__ = command.__click_params__  # type: ignore[attr-defined]
    return raw_kafka_options(wrapped)


def raw_kafka_options(command: Command) -> Command:
    """The same for a command that takes `bootstrap_servers` and `properties` as they are given."""
    with_x = click.option(
        "-X",
        "properties",
        multiple=True,
        metavar="KEY=VALUE",
        help="librdkafka setting; prefix `consumer.` or `producer.` for one kind of client. Repeatable.",
    )(command)
    return click.option(
        "--bootstrap-servers",
        envvar="KAFKA_BOOTSTRAP_SERVERS",
        show_envvar=True,
        help="Kafka brokers, host:port[,host:port].",
    )(with_x)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)
