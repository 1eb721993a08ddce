"""Imports point one way: schemas <- sql <- producer <- consumer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

# Each package may import itself and those before it.
_ORDER = ("fanfold_schemas", "fanfold_sql", "fanfold_producer", "fanfold_consumer")
_FOLDERS = {package: _ROOT / package.removeprefix("fanfold_") / package for package in _ORDER}


def _imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Every module name imported anywhere in the source, also inside functions and type-checking blocks."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.lineno, node.module


def _violations(package: str, source: str) -> list[tuple[int, str]]:
    later = set(_ORDER[_ORDER.index(package) + 1 :])
    return [(line, module) for line, module in _imported_modules(source) if module.split(".")[0] in later]


@pytest.mark.parametrize("package", _ORDER)
def test_a_package_imports_only_itself_and_the_packages_before_it(package: str) -> None:
    files = sorted(_FOLDERS[package].rglob("*.py"))
    assert files, f"no sources found for {package} in {_FOLDERS[package]}"
    found = [
        f"{file.relative_to(_ROOT)}:{line} imports {module}"
        for file in files
        for line, module in _violations(package, file.read_text(encoding="utf-8"))
    ]
    assert not found, f"{package} must not import the packages after it:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import fanfold_consumer",
        "import os, fanfold_producer.publisher",
        "from fanfold_consumer.cli import main",
        "def f():\n    from fanfold_consumer import cli",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fanfold_consumer",
    ],
)
def test_an_import_against_the_direction_is_found_wherever_it_hides(source: str) -> None:
    assert _violations("fanfold_sql", source)


@pytest.mark.parametrize("source", ["import fanfold_schemas", "from fanfold_sql import pool", "import os"])
def test_an_import_along_the_direction_is_allowed(source: str) -> None:
    assert not _violations("fanfold_sql", source)
