"""The examples do what their readers are told they do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.stdlib_index import tasks
from examples.stdlib_index.audit import Call, Stored
from examples.stdlib_index.verdict import Evidence, judge
from fanfold_consumer.devstack.client_config import write_properties
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES
from tests.support.kafka import Broker, delete_topic
from tests.support.tree import ROOT

EXAMPLES = ROOT / "examples"
DEMO_TIMEOUT_S = 110
LAST_LINE = re.compile(
    r"^demo: tasks=(\d+) lost=(\d+) duplicates=(\d+) folds=(\d+) redelivered=(\d+) killed=(\d+) equal=(yes|no)"
    r" seconds=(\d+\.\d)$"
)


def run(*command: str, env: dict[str, str] | None = None, timeout_s: float = 60) -> str:
    """Its standard output; fails the test with everything it said if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{command} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def without_servers() -> dict[str, str]:
    names = ("DATABASE_URL", ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES)
    return {name: value for name, value in os.environ.items() if name not in names}


@pytest.fixture
def servers(broker: Broker, empty_database: str, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose servers are those of this test run."""
    file = tmp_path / "kafka.properties"
    write_properties(file, broker.config.properties)
    venv = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{venv}{os.pathsep}{os.environ['PATH']}",
        "DATABASE_URL": empty_database,
        ENV_BOOTSTRAP_SERVERS: broker.bootstrap,
        ENV_PROPERTIES: str(file),
    }


def test_the_demo_survives_a_kill_and_a_replay_on_servers_of_its_own() -> None:
    files = 60
    output = run(
        sys.executable,
        str(EXAMPLES / "stdlib_index/demo.py"),
        "--files",
        str(files),
        env=without_servers(),
        timeout_s=DEMO_TIMEOUT_S,
    )
    found = LAST_LINE.match(output.splitlines()[-1])
    assert found is not None, output
    counted, lost, duplicates, folds, redelivered, killed = map(int, found.groups()[:6])
    assert (counted, lost, duplicates, folds, killed, found[7]) == (files, 0, 0, 1, 1, "yes")
    assert redelivered >= files  # by the replay; what the kill adds depends on what was in flight


def test_the_word_count_commands_give_the_counts(broker: Broker, servers: dict[str, str]) -> None:
    try:
        output = run("bash", str(EXAMPLES / "word_count/run.sh"), env=servers, timeout_s=100)
    finally:
        for topic in ("words.v1", "words.v1-dlt"):
            delete_topic(broker, topic)
    result = next(json.loads(line) for line in output.splitlines() if line.startswith("{"))
    assert (result["lines"], result["missing"]) == (7, [])
    assert result["top"]["the"] == 7


def test_the_research_agent_writes_on_a_fleet_what_it_writes_in_one_process(
    broker: Broker, servers: dict[str, str]
) -> None:
    try:
        output = run("bash", str(EXAMPLES / "research_agent/run.sh"), env=servers, timeout_s=100)
    finally:
        delete_topic(broker, "research.v1")
    assert output.splitlines()[-1] == "findings=3 rounds=2 equal=yes"


def test_a_result_is_committed_without_kafka_and_only_once(servers: dict[str, str]) -> None:
    script = str(EXAMPLES / "commit_without_kafka.py")
    run(str(Path(sys.executable).parent / "fanfold"), "migrate", env=servers)
    first = run(sys.executable, script, env=servers).splitlines()
    second = run(sys.executable, script, env=servers).splitlines()
    assert first == ["report-0: applied", "report-1: applied", "report-2: applied, and the fan-out is complete"]
    assert second == ["report-0: duplicate", "report-1: duplicate", "report-2: duplicate"]


@pytest.mark.parametrize(
    ("source", "lines", "problem"),
    [
        (b"", 0, None),
        (b"def f(x):\r\n    return x\r\n", 2, None),
        ("name = 'é'\n".encode("latin-1"), 1, "SyntaxError"),
        (b"# -*- coding: uft-8 -*-\nname = 1\n", 2, "SyntaxError"),
        (b"def f(:\n  (\n", 2, "TokenError"),
    ],
    ids=["empty", "crlf", "latin-1", "unknown-encoding", "unfinished"],
)
def test_every_file_has_a_defined_index(
    source: bytes, lines: int, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "STDLIB", tmp_path)
    (tmp_path / "odd.py").write_bytes(source)
    found = tasks.index_file("odd.py")
    assert (found.lines, found.problem) == (lines, problem)
    assert found.identifiers == ({"f": 1, "x": 2} if b"return" in source else {})


def test_a_path_out_of_the_standard_library_is_refused() -> None:
    with pytest.raises(ValueError, match="outside of the standard library"):
        tasks.index_file("../../etc/passwd.py")


def evidence() -> Evidence:
    """Of a run in which all went well: two files, one of them begun twice."""
    calls = [Call(0.0, 1, "a.py"), Call(0.1, 2, "b.py"), Call(5.0, 2, "a.py"), Call(6.0, 2, "fold")]
    answer = {"files": 2, "counted_twice": 0}
    return Evidence(
        published=2,
        done_at_kill=1,
        victim={},
        before=[{}],
        after=[{"fanfold_deliveries_skipped_total{duplicate}": 3.0}],
        calls_before=calls,
        calls=calls,
        stored=Stored(results=2, lost=0, doubled=0, folds=1, highest_run=1, answer=answer),
        exit_statuses=[-signal.SIGKILL, 0, 0],
        expected=answer,
        seconds=1.0,
    )


def test_a_good_run_is_judged_right() -> None:
    verdict = judge(evidence())
    assert str(verdict) == "demo: tasks=2 lost=0 duplicates=0 folds=1 redelivered=4 killed=1 equal=yes seconds=1.0"
    assert verdict.is_right(published=2)


@pytest.mark.parametrize(
    "changed",
    [
        {"results": 1, "lost": 1},
        {"doubled": 1},
        {"folds": 0},
        {"folds": 2},
        {"highest_run": 2},
        {"answer": {"files": 2, "counted_twice": 1}},
        {"answer": None},
    ],
    ids=["lost", "doubled", "no-fold", "two-folds", "rerun", "counted-twice", "no-answer"],
)
def test_a_run_with_a_wrong_table_is_not_judged_right(changed: dict[str, Any]) -> None:
    good = evidence()
    bad = replace(good, stored=replace(good.stored, **changed))
    assert not judge(bad).is_right(published=2)


def test_a_run_without_a_kill_or_without_a_replay_is_not_judged_right() -> None:
    assert not judge(replace(evidence(), exit_statuses=[0, 0, 0])).is_right(published=2)
    assert not judge(replace(evidence(), after=[{}])).is_right(published=2)
