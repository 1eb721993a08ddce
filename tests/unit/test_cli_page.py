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


def _leaves(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """{name: command}, with those of a group under its name: `dead-letters list`."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(CONTEXT):
        command = group.get_command(CONTEXT, name)
        assert command is not None
        name = prefix + name
        found.update(_leaves(command, f"{name} ") if isinstance(command, click.Group) else {name: command})
    return found


COMMANDS = _leaves(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_and_no_other(name: str) -> None:
    command = COMMANDS[name]
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
    assert set(re.findall(r"^## fanfold (.+)$", PAGE, re.MULTILINE)) == set(COMMANDS)
