"""`fanfold bench`: where it finds the benchmarks, what it starts, and which last line a run ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fanfold_consumer.cli import cli
from fanfold_consumer.cli.bench import PARTS, QUICK_PARTS, source_tree
from tests.benchmarks.__main__ import last_line
from tests.benchmarks.report import Report
from tests.support.tree import ROOT


def _bench(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments], prog_name="fanfold")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been made and become."""
    calls: list[Any] = []

    def make(argv: list[Any], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(argv)
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(subprocess, "run", make)
    monkeypatch.setattr(os, "execve", lambda *become: calls.append(become))
    return calls


def test_every_part_is_a_module_of_the_benchmarks() -> None:
    assert set(QUICK_PARTS) <= set(PARTS)
    assert [part for part in PARTS if not (ROOT / f"tests/benchmarks/{part}.py").is_file()] == []


def test_the_tree_of_the_package_comes_before_the_current_folder(tmp_path: Path) -> None:
    for mark in ("tests/benchmarks/__main__.py", "consumer/fanfold_consumer/cli/bench.py"):
        (tmp_path / mark).parent.mkdir(parents=True)
        (tmp_path / mark).touch()
    assert source_tree(ROOT, tmp_path) == ROOT
    assert source_tree(tmp_path, ROOT) == tmp_path


def test_a_package_without_benchmarks_takes_those_of_the_current_folder(tmp_path: Path) -> None:
    assert source_tree(tmp_path, ROOT) == ROOT


def test_without_a_source_tree_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="Call this command in a clone") as refused:
        source_tree(tmp_path / "lib", tmp_path)
    assert f"neither {tmp_path} nor {tmp_path / 'lib'}" in refused.value.message


def test_a_folder_with_benchmarks_of_its_own_is_no_source_tree(tmp_path: Path) -> None:
    (tmp_path / "tests/benchmarks").mkdir(parents=True)
    (tmp_path / "tests/benchmarks/__main__.py").touch()
    with pytest.raises(click.ClickException):
        source_tree(tmp_path, tmp_path)


def test_it_becomes_what_make_bench_runs_with_the_same_arguments(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--quick", "fan_in", "--json", "a b.json"]
    monkeypatch.setattr(sys, "argv", ["fanfold", "bench", *arguments])
    assert _bench(*arguments).exit_code == 0
    made, (python, argv, environment) = started
    assert made == ["make", "--quiet", "--directory", ROOT, ".venv-bench/bench.stamp"]
    assert python == argv[0] == str(ROOT / ".venv-bench/bin/python")
    assert argv[1:] == ["-P", "-m", "tests.benchmarks", *arguments]
    assert environment["PYTHONPATH"] == str(ROOT)


@pytest.mark.parametrize("mistake", ["nonsense", "--repetitions=0", "--nonsense"])
def test_a_mistake_is_told_before_anything_is_made(mistake: str, started: list[Any]) -> None:
    refused = _bench("fan_in", mistake)
    assert refused.exit_code == 2
    assert mistake.partition("=")[0] in refused.output
    assert started == []


def test_without_make_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    refused = _bench()
    assert refused.exit_code == 1
    assert "no make on the PATH" in refused.output


def test_an_environment_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: subprocess.CompletedProcess(argv, 2))
    refused = _bench()
    assert refused.exit_code == 1
    assert "make ended with status 2" in refused.output


def _part(name: str, line: str | None = None) -> ModuleType:
    module = ModuleType(name)
    if line is not None:
        module.__dict__["last_line"] = lambda report: f"{line}: broker={report.machine['broker']}"
    return module


def test_a_part_that_runs_alone_ends_with_a_line_of_its_own_if_it_has_one() -> None:
    report = Report.of({"broker": "one"}, [])
    assert last_line(report, [_part("a", "own")]) == "own: broker=one"
    assert last_line(report, [_part("a")]) == report.last_line


def test_of_several_parts_none_ends_with_a_line_of_its_own() -> None:
    report = Report.of({"broker": "one"}, [])
    assert last_line(report, [_part("a", "own"), _part("b")]) == report.last_line
    assert last_line(report, []) == report.last_line
