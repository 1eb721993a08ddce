"""The `fanfold` command as a user meets it: help, version, and errors without a traceback."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fanfold_consumer import ConfigError, FanfoldError, FleetConfig, Registry
from fanfold_consumer.cli import _COMMANDS, cli, main
from fanfold_consumer.cli.consume import consume
from fanfold_producer.errors import BrokerUnavailable, KafkaConfigError, TopicMissing
from fanfold_schemas import SchemaError
from fanfold_sql import MigrationNeeded, StoreUnavailable

_TIMEOUT_S = 60
_RUN = [sys.executable, "-c", "from fanfold_consumer.cli import main; main()"]


def _invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, prog_name="fanfold")
    assert result.exit_code == 0, result.output
    return result.output


_OURS = ("FANFOLD_", "KAFKA_", "DATABASE_URL", "PG")


def _fanfold(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with nothing of this machine's settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return subprocess.run([*_RUN, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S)


Fanfold = Callable[..., tuple[object, str]]


@pytest.fixture
def fanfold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fanfold:
    """The same in this process, which is faster: the exit status and what is on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("fanfold_consumer.cli.consume.configure_logging", lambda **_: None)
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["fanfold", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert said.out == ""
        return ended.value.code, said.err

    return run


def _problems(status: object, said: str) -> list[str]:
    """What a failed command lists on stderr."""
    assert status == 1, said
    assert "Traceback" not in said
    first, *rest = said.splitlines()
    assert first == "fanfold: the configuration cannot work:"
    return [line.removeprefix("  - ") for line in rest]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command_with_what_it_does(flag: str) -> None:
    output = _invoke(flag)
    for name in _COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]\w+", output, re.MULTILINE), name


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_has_help_of_its_own(name: str) -> None:
    output = _invoke(name, "--help")
    assert output.startswith(f"Usage: fanfold {name} ")
    assert "Options:" in output


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_option_of_every_command_says_what_it_is(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert not undocumented


def test_version_is_that_of_the_distribution() -> None:
    assert _invoke("--version") == f"fanfold, version {metadata.version('fanfold')}\n"


def test_help_works_as_a_process(tmp_path: Path) -> None:
    done = _fanfold("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: fanfold ")


def test_a_command_is_imported_only_when_it_is_called(tmp_path: Path) -> None:
    source = "import sys, fanfold_consumer.cli as c; print([m for m in sys.modules if m.startswith(c.__name__ + '.')])"
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


class TestConsume:
    def test_help_tells_what_must_be_given_and_what_stands_if_it_is_not(self) -> None:
        output = " ".join(_invoke("consume", "--help").split())
        assert "--group TEXT Consumer group. [env var: FANFOLD_GROUP; required]" in output
        assert "--concurrency INTEGER Handlers running at once. [default: 256]" in output
        assert "[env var: KAFKA_BOOTSTRAP_SERVERS]" in output

    def test_every_option_is_a_setting_of_the_fleet_with_the_same_default(self) -> None:
        own = {"handlers", "graphs", "checkpoint_url", "bootstrap_servers", "properties", "log_format", "log_level"}
        settings = {field.name: field.default for field in dataclasses.fields(FleetConfig)}
        for option in consume.params:
            if option.name not in own:
                assert option.name in settings, option.name
                default: Any = settings[option.name]
                if default is not None and default is not dataclasses.MISSING:
                    assert option.default == default, option.name

    def test_without_handlers_and_graphs_it_says_that_there_is_nothing_to_run(self, fanfold: Fanfold) -> None:
        (problem,) = _problems(*fanfold("consume", "--group", "g", "--bootstrap-servers", "127.0.0.1:1"))
        assert "--handlers" in problem
        assert "--graph" in problem

    def test_problems_of_graphs_are_told_with_the_others(self, fanfold: Fanfold) -> None:
        problems = _problems(
            *fanfold(
                *("consume", "--group", "a b", "--bootstrap-servers", "127.0.0.1:1"),
                *("--graph", "nonsense", "--graph", "no_such_module_here:graph"),
            )
        )
        assert [problem.split(":")[0] for problem in problems] == [
            "--group",
            "--graph 'nonsense'",
            "--graph no_such_module_here",
        ]

    def test_nothing_of_langgraph_is_imported_where_no_graph_is_named(self) -> None:
        code = "import sys, fanfold_consumer.cli.consume; print([m for m in sys.modules if m.startswith('lang')])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

    def test_all_problems_of_kafka_fleet_and_handlers_are_told_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "users_tasks.py").write_text("from fanfold_consumer import task\n@task('a b')\ndef f(): ...\n")
        done = _fanfold(
            *("consume", "--group", "a b", "--topic", "x y", "--concurrency", "0", "--health-port", "70000"),
            *("--bootstrap-servers", "broker:none", "-X", "acks=1", "-X", "nonsense"),
            *("--handlers", "users_tasks", "--handlers", "users_missing"),
            cwd=tmp_path,
        )
        assert done.stdout == ""
        problems = _problems(done.returncode, done.stderr)
        expected = (
            "-X number 2 is no `key=value`",
            "bootstrap server 'broker:none'",
            "acks=1",
            "--group: ",
            "--topic: 'x y'",
            "--concurrency: 0",
            "--health-port: 70000",
            "--handlers users_tasks: handler 'a b': an id",
            "--handlers users_tasks: handler 'a b': takes",
            "--handlers users_missing: ModuleNotFoundError",
        )
        assert len(problems) == len(expected)
        for problem, beginning in zip(problems, expected, strict=True):
            assert problem.startswith(beginning), (problem, beginning)

    def test_without_a_broker_it_says_how_to_name_one(self, fanfold: Fanfold) -> None:
        problem, _ = _problems(*fanfold("consume", "--group", "g", "--handlers", "users_missing"))
        assert "KAFKA_BOOTSTRAP_SERVERS" in problem
        assert "--bootstrap-servers" in problem

    def test_settings_come_from_the_environment_too(self, fanfold: Fanfold, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FANFOLD_GROUP", "a b")
        monkeypatch.setenv("FANFOLD_HEALTH_PORT", "70000")
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:none")
        problems = _problems(*fanfold("consume", "--handlers", "users_missing"))
        assert [problem.split(" ")[0] for problem in problems] == [
            "bootstrap",
            "--group:",
            "--health-port:",
            "--handlers",
        ]

    def test_a_port_that_is_taken_is_told_with_what_to_do(
        self, fanfold: Fanfold, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Registry()
        registry.task("work")(lambda arg: arg)
        monkeypatch.setattr("fanfold_consumer.cli.consume.load_handlers", lambda modules: registry)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            status, said = fanfold(
                *("consume", "--handlers", "users_tasks", "--group", "g", "--bootstrap-servers", "127.0.0.1:1"),
                *("--database-url", "host=127.0.0.1 port=1", "--health-port", str(port)),
            )
        assert status == 1
        assert said.startswith(f"fanfold: cannot listen on 127.0.0.1:{port} for health: ")
        assert "choose another --health-port" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consum"], "No such command 'consum'"),
        (["consume", "--concurrency", "many"], "'many' is not a valid integer"),
        (["consume", "--log-level", "loud"], "'loud' is not one of"),
        (["prune", "--older-than", "soon"], "'soon' is no age"),
        (["--nonsense"], "No such option"),
    ],
)
def test_a_wrong_command_line_is_told_with_status_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, arguments, prog_name="fanfold")
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    "error",
    [
        FanfoldError("what failed; why; what to do"),
        ConfigError(["what failed; why; what to do"]),
        KafkaConfigError(["what failed; why; what to do"]),
        BrokerUnavailable("what failed; why; what to do"),
        TopicMissing("what failed; why; what to do", ["t"]),
        StoreUnavailable("what failed; why; what to do"),
        MigrationNeeded("what failed; why; what to do"),
        SchemaError("E_LIMIT", "$.x", "what failed; why; what to do"),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_paragraph_and_status_1(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "main", fails)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"fanfold: {error}\n"


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(cli, "main", fails)
    with pytest.raises(LookupError):
        main()
