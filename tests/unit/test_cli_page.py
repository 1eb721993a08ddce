"""docs/cli.md names every option of every command, and none that is not there."""

from __future__ import annotations

import re

import click
import pytest

from fanfold_consumer.cli import cli
from tests.support.tree import ROOT

PAGE = (ROOT / "docs/cli.md").read_text()
CONTEXT = click.Context(cli)


def section(command: str) -> str:
    found = re.search(rf"^## fanfold {command}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/cli.md has no section `fanfold {command}`"
    return found[1]


@pytest.mark.parametrize("name", cli.list_commands(CONTEXT))
def test_every_option_is_on_the_page_and_no_other(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    options = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    text = section(name)
    tables = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    first_cells = "\n".join(line.split("|")[1] for line in tables.splitlines())
    shared = "\n".join(line for line in text.splitlines() if line.startswith("Shared:"))
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*|-[A-Z])\b", first_cells + shared))
    assert named == options


def test_no_command_is_on_the_page_that_is_not_there() -> None:
    assert set(re.findall(r"^## fanfold (\S+)$", PAGE, re.MULTILINE)) == set(cli.list_commands(CONTEXT))
