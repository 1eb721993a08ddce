"""The `fanfold` command. Each command is a module of its own, imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

import click

from fanfold_consumer.errors import FanfoldError
from fanfold_producer.errors import ProducerError
from fanfold_schemas import SchemaError
from fanfold_sql import StoreError

_COMMANDS = {
    "audit": "fanfold_consumer.cli.audit:audit",
    "bench": "fanfold_consumer.cli.bench:bench",
    "cancel": "fanfold_consumer.cli.cancel:cancel",
    "consume": "fanfold_consumer.cli.consume:consume",
    "dead-letters": "fanfold_consumer.cli.dead_letters:dead_letters",
    "dev": "fanfold_consumer.cli.dev:dev",
    "doctor": "fanfold_consumer.cli.doctor:doctor",
    "migrate": "fanfold_consumer.cli.migrate:migrate",
    "publish": "fanfold_consumer.cli.publish:publish",
    "prune": "fanfold_consumer.cli.prune:prune",
    "replay": "fanfold_consumer.cli.replay:replay",
    "resolve": "fanfold_consumer.cli.resolve:resolve",
    "schema": "fanfold_consumer.cli.schema:schema",
    "status": "fanfold_consumer.cli.status:status",
    "thread": "fanfold_consumer.cli.thread:thread",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("fanfold"), prog_name="fanfold")
def cli() -> None:
    """Fan out Send tasks over Kafka; fold their results exactly once in Postgres."""


def main() -> None:
    """Entry point. An error that a user can mend is one paragraph on stderr and exit status 1, never a traceback."""
    try:
        cli.main(prog_name="fanfold")
    except (FanfoldError, ProducerError, StoreError, SchemaError) as error:
        click.echo(f"fanfold: {error}", err=True)
        sys.exit(1)
