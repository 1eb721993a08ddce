"""`fanfold migrate`: bring a database to this release."""

from __future__ import annotations

import click

from fanfold_consumer.cli.options import database_option, json_option
from fanfold_consumer.cli.render import print_json
from fanfold_sql.migrate import MigrationReport
from fanfold_sql.migrate import migrate as apply_migrations


@click.command()
@database_option
@click.option("--dry-run", is_flag=True, help="Say what would be applied, and change nothing.")
@json_option
def migrate(database_url: str, dry_run: bool, as_json: bool) -> None:
    """Create or update the tables and procedures.

    Safe to repeat, and safe when many do it at once. Wants a direct connection (not PgBouncer in transaction
    mode) as a role that may create roles and a schema.
    """
    report = apply_migrations(database_url, dry_run=dry_run)
    if as_json:
        print_json(_fields(report))
    elif not report.scripts:
        click.echo("the database is up to date")
    else:
        done = "would be applied" if dry_run else "applied"
        for script in report.scripts:
            click.echo(f"{script.kind:9}  {script.name}")
        click.echo(f"{len(report.scripts)} {done}")


def _fields(report: MigrationReport) -> dict[str, object]:
    return {
        "dry_run": report.dry_run,
        "scripts": [{"kind": s.kind, "name": s.name, "sha256": s.sha256} for s in report.scripts],
    }
