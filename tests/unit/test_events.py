"""Log events: one list of names, all of them used, and no payload ever in a field."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from fanfold_consumer.events import EVENTS
from tests.support.tree import ROOT

_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_PAYLOADS = {"payload", "arg", "value", "key", "args", "argument", "values", "result", "headers"}
_FILES = sorted((ROOT / "consumer").rglob("*.py"))


@dataclass(frozen=True)
class _Event:
    where: str
    name: str | None
    fields: frozenset[str | None]


def _events(source: str, where: str = "") -> Iterator[_Event]:
    """Every `log.<level>(...)`; `name` None: it is no literal. A `**fields` is a field without a name."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):
            continue
        first = node.args[0] if len(node.args) == 1 else None
        name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        yield _Event(f"{where}:{node.lineno}", name, frozenset(keyword.arg for keyword in node.keywords))


@cache
def _all_events() -> tuple[_Event, ...]:
    return tuple(event for file in _FILES for event in _events(file.read_text(encoding="utf-8"), file.name))


def test_every_event_that_is_logged_is_listed() -> None:
    unlisted = [event for event in _all_events() if event.name not in EVENTS]
    assert not unlisted, "name it literally, and list it in events.py"


def test_every_event_that_is_listed_is_logged() -> None:
    assert set(EVENTS) <= {event.name for event in _all_events()}


def test_an_event_is_a_noun_and_what_happened_to_it() -> None:
    for name, meaning in EVENTS.items():
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name), name
        assert meaning, name


def test_no_field_of_an_event_holds_a_payload() -> None:
    found = [event for event in _all_events() if _PAYLOADS & event.fields]
    assert not found


def test_the_fields_of_an_event_are_named_where_it_is_logged() -> None:
    found = [event for event in _all_events() if None in event.fields]
    assert not found


def test_nothing_but_this_log_is_used_for_events() -> None:
    for file in _FILES:
        if file.name == "events.py":
            continue
        source = file.read_text(encoding="utf-8")
        assert "get_logger" not in source, file
        assert "import structlog" not in source, file


def test_an_event_is_found_with_its_name_and_fields() -> None:
    (event,) = _events("def f():\n    log.info('a.b', offset=1, value=2)")
    assert event == _Event(":2", "a.b", frozenset({"offset", "value"}))


@pytest.mark.parametrize("source", ["log.info(name)", "log.info(f'a.{b}')", "log.warning('a.b %s', 1)", "log.error()"])
def test_a_name_that_is_no_literal_is_found(source: str) -> None:
    (event,) = _events(source)
    assert event.name is None


_LOG_ONE = """
from fanfold_consumer.events import configure_logging, log
configure_logging(json={json}, level={level!r})
log.debug("task.retried", attempt=1)
log.info("partition.claimed", topic="t", partition=7)
log.warning("partition.fenced", topic="t", partition=7)
"""


def _logged(tmp_path: Path, *, json: bool, level: str = "info") -> list[str]:
    source = _LOG_ONE.format(json=json, level=level)
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "stdout belongs to commands"
    return done.stderr.splitlines()


def test_json_logs_are_one_object_a_line_on_stderr(tmp_path: Path) -> None:
    claimed, fenced = (json.loads(line) for line in _logged(tmp_path, json=True))
    assert claimed["event"] == "partition.claimed"
    assert (claimed["level"], claimed["topic"], claimed["partition"]) == ("info", "t", 7)
    assert claimed["timestamp"].endswith("Z")
    assert fenced["level"] == "warning"


def test_a_level_lets_nothing_below_it_pass(tmp_path: Path) -> None:
    (fenced,) = _logged(tmp_path, json=False, level="warning")
    assert "partition.fenced" in fenced
    assert "partition=7" in fenced


@pytest.mark.parametrize("end", ["sys.stderr.close()", "os.close(2)"])
def test_a_log_that_nobody_reads_any_more_stops_nothing(tmp_path: Path, end: str) -> None:
    source = f"import logging, os, sys\n{_LOG_ONE.format(json=True, level='info')}\n{end}\n"
    source += "log.error('fleet.stopped')\nlogging.getLogger('library').error('away')\nprint('went on')\n"
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "went on\n"
