"""Finding handlers in the modules that a user names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fanfold_consumer import ConfigError, Registry
from fanfold_consumer.registry import default_registry, load_handlers

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the working directory; what is imported and declared is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(default_registry, "_handlers", {})
    written: list[str] = []

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def _problems(*modules: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_handlers(modules)
    return list(caught.value.problems)


def test_modules_of_the_working_directory_fill_the_default_registry(write: Write) -> None:
    one = write("users_tasks", "import fanfold_consumer as f\n@f.task('crawl')\ndef crawl(arg): ...")
    two = write("users_folds", "import fanfold_consumer as f\n@f.fold('merge')\ndef merge(results): ...")
    registry = load_handlers([one, two])
    assert registry is default_registry
    assert registry.names() == ["crawl", "merge"]


def test_a_module_that_is_named_twice_is_imported_once(write: Write) -> None:
    name = write("users_tasks", "import fanfold_consumer as f\n@f.task('crawl')\ndef crawl(arg): ...")
    assert load_handlers([name, name]).names() == ["crawl"]


def test_a_registry_of_ones_own_is_returned_as_it_is() -> None:
    registry = Registry()
    registry.task("work")(lambda arg: arg)
    assert load_handlers([], registry) is registry


def test_every_module_that_cannot_be_imported_is_named(write: Write) -> None:
    broken = write("users_broken", "1 / 0")
    unparsable = write("users_unparsable", "def (:")
    problems = _problems("users_missing", broken, unparsable, "")
    assert len(problems) == 4
    assert problems[0] == "--handlers users_missing: ModuleNotFoundError: No module named 'users_missing'"
    assert "ZeroDivisionError" in problems[1]
    assert "SyntaxError" in problems[2]


def test_a_module_that_ends_the_process_when_imported_is_a_problem_and_not_the_end(write: Write) -> None:
    script = write("users_script", "import sys\nsys.exit(0)")
    assert _problems(script) == ["--handlers users_script: SystemExit: 0"]


def test_all_problems_of_a_bad_declaration_are_told_with_its_module(write: Write) -> None:
    name = write("users_tasks", "import fanfold_consumer as f\n@f.task('a b', timeout=0)\ndef crawl(): ...")
    problems = _problems(name, "users_missing")
    assert len(problems) == 4
    assert all(problem.startswith("--handlers users_tasks: handler 'a b': ") for problem in problems[:3])


def test_modules_without_a_handler_are_refused(write: Write) -> None:
    name = write("users_tasks", "x = 1")
    assert _problems(name) == ["no @task or @fold is declared in users_tasks"]


def test_no_module_at_all_is_refused(write: Write) -> None:
    assert _problems() == ["no @task or @fold is declared in any module (--handlers)"]
