"""docs/contract.md says what the code does: limits, fields and codes are the code's, and the tests it names exist."""

from __future__ import annotations

import re
import typing

import msgspec
import pytest

from fanfold_schemas import FanOut, Task, limits
from fanfold_schemas.errors import Code
from tests.support.tree import ROOT

PAGE = (ROOT / "docs/contract.md").read_text()

LIMITS = {name: getattr(limits, name) for name in dir(limits) if re.fullmatch(r"[A-Z0-9_]+_(MAX|MIN)", name)}
# In sources a code is a literal of its own.
SOURCES = [*ROOT.glob("schemas/**/*.py"), *ROOT.glob("consumer/**/*.py")]
CODES = {code for path in SOURCES for code in re.findall(r'"(E_[A-Z]+)"', path.read_text())}
TESTS = sorted(set(re.findall(r"tests/[\w/]+\.(?:py|tla)(?:::\w+)*", PAGE)))
COMMANDS = sorted(set(re.findall(r"python -m (tests\.[\w.]+\w)", PAGE)))


def _section(heading: str) -> str:
    return PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]


def _rows(text: str) -> list[tuple[str, str]]:
    """Rows of tables that open with a name in backticks: the name and the second cell."""
    return re.findall(r"^ *\| `([\w.]+)` \| ([^|]*) \|", text, re.MULTILINE)


def _fields(struct: type[msgspec.Struct]) -> dict[str, bool]:
    """The fields, and whether each must be there."""
    return {field.name: field.required for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_on_the_page_once_with_its_value(name: str) -> None:
    values = [value for row, value in _rows(PAGE) if row == name]
    assert values == [f"{LIMITS[name]:,}".replace("-", "−")]


def test_no_limit_is_on_the_page_that_is_not_there() -> None:
    assert {name for name, _ in _rows(PAGE) if re.fullmatch(r"[A-Z0-9_]+_(MAX|MIN)", name)} <= LIMITS.keys()


def test_the_fields_of_a_record_are_on_the_page_and_no_others() -> None:
    rows = dict(_rows(_section("Fields")))
    expected = {name: required for name, required in _fields(Task).items() if name != "fan_out"}
    expected |= {f"fan_out.{name}": required for name, required in _fields(FanOut).items()}
    assert rows.keys() == expected.keys()
    # The version must be there, too; it is looked at before the type, which has a default for whoever makes a Task.
    required = {name for name, is_required in expected.items() if is_required} | {"v"}
    assert {name for name, kind in rows.items() if "optional" not in kind and "default" not in kind} == required


def test_every_code_is_on_the_page_once_and_no_other() -> None:
    assert sorted(name for name, _ in _rows(_section("Codes"))) == sorted(CODES)
    assert set(typing.get_args(Code)) <= CODES


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_the_page_names_exists(name: str) -> None:
    path, *parts = name.split("::")
    text = (ROOT / path).read_text()
    for part in parts:
        assert re.search(rf"^ *(?:async )?(?:def|class) {part}\b", text, re.MULTILINE), f"{path} has no {part}"


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_that_the_page_names_exists(module: str) -> None:
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()
