"""`fanfold schema`: what may be in a record, for producers in other languages."""

from __future__ import annotations

import click

from fanfold_schemas.json_schema import task_schema_text


@click.command()
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of a record's value.

    It is about the map that msgpack decodes to, not about JSON on the topic: records are msgpack.
    """
    click.echo(task_schema_text(), nl=False)
