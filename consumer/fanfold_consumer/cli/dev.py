"""`fanfold dev`: PostgreSQL and a broker on this machine, until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path
from types import FrameType

import click

from fanfold_consumer.devstack import BrokerChoice, DevStackError, Stack
from fanfold_sql import StoreError
from fanfold_sql.migrate import migrate

_DESCRIPTION = {
    "embedded": "embedded broker, in memory: records are gone when this ends",
    "apache-kafka": "Apache Kafka, started here",
    "external": "adopted from KAFKA_BOOTSTRAP_SERVERS",
}


@click.command()
@click.option(
    "--broker",
    type=click.Choice(["auto", "embedded", "apache-kafka"]),
    default="auto",
    show_default=True,
    help="Which broker to run. 'auto' adopts KAFKA_BOOTSTRAP_SERVERS when set, else takes the embedded one.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here for the next time. Without it, everything is gone at the end.",
)
@click.option("--no-migrate", is_flag=True, help="Leave the database as it is.")
def dev(broker: BrokerChoice, data_dir: Path | None, no_migrate: bool) -> None:
    """Run PostgreSQL and a broker for development, on loopback only.

    DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS are adopted when they are set. Stays in the foreground and prints
    what to export in another terminal; Ctrl-C stops what was started here.
    """
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    try:
        with Stack.start(broker, data_dir) as stack:
            # From here on a signal means an orderly end. While starting, Ctrl-C aborts as it always does.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)
            if not no_migrate:
                migrate(stack.database_url)
            _explain(stack)
            ended.wait()
            click.echo("\nstopping")
    except (DevStackError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def _explain(stack: Stack) -> None:
    own = "started here" if stack.postgres is not None else "adopted from DATABASE_URL"
    click.echo(f"PostgreSQL  {own}")
    click.echo(f"broker      {_DESCRIPTION[stack.broker_kind]}")
    click.echo("\nIn another terminal:\n")
    for name, value in stack.env().items():
        click.echo(f"  export {name}={shlex.quote(value)}")
    click.echo("\nThen, for example:\n")
    click.echo("  fanfold status")
    click.echo("  fanfold publish --help")
    click.echo("  fanfold consume --help")
    click.echo("\nCtrl-C stops it.")
