"""What `fanfold doctor` prints for findings, and its exit status."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fanfold_consumer.cli import cli
from fanfold_consumer.doctor import Finding, Status


def finding(status: Status, value: str = "7") -> Finding:
    return Finding(f"postgres.{status}", status, value, "≤ 5", f"why {status}", f"fix {status}")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(findings: list[Finding], *arguments: str) -> Result:
        async def diagnose(*_: object, **__: object) -> list[Finding]:
            return findings

        monkeypatch.setattr("fanfold_consumer.cli.doctor.diagnose", diagnose)
        return CliRunner().invoke(cli, ["doctor", "--bootstrap-servers", "broker", *arguments])

    return run


@pytest.mark.parametrize(
    ("worst", "arguments", "status"),
    [
        ("ok", [], 0),
        ("skipped", ["--strict"], 0),
        ("warn", [], 0),
        ("warn", ["--strict"], 1),
        ("fail", [], 1),
        ("fail", ["--json"], 1),
    ],
)
def test_the_exit_status_is_for_ci(run: Any, worst: Status, arguments: list[str], status: int) -> None:
    assert run([finding(worst), finding("ok")], *arguments).exit_code == status


def test_each_finding_is_a_line_and_what_is_to_be_mended_is_explained_below(run: Any) -> None:
    long = "x" * 200
    ran = run([finding("fail", long), finding("warn"), finding("skipped"), finding("ok")])
    table, *explained = ran.stdout.split("\n\n")
    head, *rows = table.splitlines()
    assert head.split() == ["STATUS", "CHECK", "VALUE", "BOUND"]
    assert [row.split()[0] for row in rows] == ["fail", "warn", "skipped", "ok"]
    assert max(map(len, rows)) < 150
    assert explained == [
        f"fail postgres.fail: {long}\n  why: why fail\n  fix: fix fail",
        "warn postgres.warn: 7\n  why: why warn\n  fix: fix warn\n",
    ]
    assert ran.stderr == "\n1 fail, 1 warn, 1 skipped, 1 ok\n"


def test_json_is_a_list_of_findings(run: Any) -> None:
    ran = run([finding("warn")], "--json")
    assert json.loads(ran.stdout) == [
        {
            "check": "postgres.warn",
            "status": "warn",
            "value": "7",
            "bound": "≤ 5",
            "why": "why warn",
            "fix": "fix warn",
        }
    ]


def test_settings_that_no_member_could_have_are_refused_before_anything_is_looked_at(run: Any) -> None:
    ran = run([], "--pool-size", "0", "--batch-results-max", "0")
    assert [problem.split(":")[0] for problem in ran.exception.problems] == ["--batch-results-max", "--pool-size"]


@pytest.mark.parametrize("arguments", [["--members", "0"], ["--prune-older-than", "soon"], ["--database-cores", "x"]])
def test_a_wrong_command_line_is_status_2(run: Any, arguments: list[str]) -> None:
    assert run([], *arguments).exit_code == 2
