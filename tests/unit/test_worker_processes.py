"""Processes for handlers: used again, bounded, and killed when they hang, die, or are not wanted any more."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fanfold_consumer import ConfigError, ProcessDied, Registry, Sends
from fanfold_consumer.claim_check import Encoded
from fanfold_consumer.registry import Handler
from fanfold_consumer.retry import HandlerFailed, RaisedInProcess
from fanfold_consumer.time_limit import OutOfTime
from fanfold_consumer.worker_processes import WorkerProcesses
from fanfold_schemas import decode_value
from tests.support.process_handlers import FRAME_GARBAGE, await_begun, await_end, echo, read_pids, registry
from tests.support.tree import ROOT
from tests.support.wait import eventually_async


class Processes:
    """Two processes on a loop that lasts for all tests: starting them is what takes time."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.workers = self.runner.run(self._open())

    async def _open(self) -> WorkerProcesses:
        return WorkerProcesses(2)

    def call(self, name: str, arg: Any = None) -> Any:
        """What a handler returns."""
        return decoded(self.runner.run(self.workers.run(handler(name), (arg,))))

    def close(self) -> None:
        self.runner.run(self.workers.close())
        self.runner.close()


def handler(name: str) -> Handler:
    found = registry.get(name)
    assert found is not None
    return found


def alone(handler: Handler, arg: Any) -> Any:
    """What a handler returns from a process that is started for it and ended after it."""

    async def scenario() -> Any:
        processes = WorkerProcesses(1)
        try:
            return await processes.run(handler, (arg,))
        finally:
            await processes.close()

    return asyncio.run(scenario())


def decoded(value: Any) -> Any:
    assert isinstance(value, Encoded)
    return decode_value(value.data)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    running = Processes()
    yield running
    running.close()


class TestValues:
    def test_a_value_as_large_as_a_claim_check_may_be_goes_in_and_comes_back(self, processes: Processes) -> None:
        large = bytes(64 * 1024 * 1024 - 5)
        assert processes.call("echo-process", large) == large

    def test_an_arg_that_no_frame_holds_fails_for_good(self, processes: Processes) -> None:
        large = bytes(65 * 1024 * 1024)
        with pytest.raises(HandlerFailed, match=r"'echo-process' does not fit: \d+ bytes, at most \d+") as caught:
            processes.call("echo-process", [large] * 4)
        assert caught.value.code == "E_ARG"

    def test_a_result_that_no_frame_holds_fails_for_good(self, processes: Processes) -> None:
        with pytest.raises(HandlerFailed, match=r"cannot be stored: .* at most") as caught:
            processes.call("repeat", 257)
        assert caught.value.code == "E_RESULT"

    def test_an_arg_that_many_sends_share_comes_once(self, processes: Processes) -> None:
        value = processes.runner.run(processes.workers.run(handler("sends-process"), ("all",)))
        assert isinstance(value, Sends)
        assert value.sends[0].arg is value.sends[1].arg

    def test_what_a_handler_prints_does_not_get_between(self, processes: Processes) -> None:
        assert processes.call("print", "\1\1\1\1x") == "\1\1\1\1x"


class TestSurroundings:
    def test_a_process_has_the_members_folder_path_and_environment_and_a_session_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("FANFOLD_TEST_WHERE", "here")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path / "first"))

        assert decoded(alone(handler("where"), None)) == [str(tmp_path), sys.path, "here", True]

    def test_a_module_named_like_one_that_we_import_is_only_seen_by_handlers(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "queue.py").write_text("raise RuntimeError('not this one')")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))

        assert decoded(alone(handler("echo-process"), 5)) == 5


class TestReuse:
    def test_a_process_is_used_again(self, processes: Processes) -> None:
        assert processes.call("pid") == processes.call("pid") != os.getpid()

    def test_no_more_than_so_many_run_whatever_is_asked_of_them(self, processes: Processes) -> None:
        async def all_at_once() -> list[Any]:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(processes.workers.run(handler("pid"), (None,))) for _ in range(300)]
            return [decoded(call.result()) for call in calls]

        pids = processes.runner.run(all_at_once())
        assert len(pids) == 300
        assert 1 <= len(set(pids)) <= 2

    def test_an_idle_process_that_died_fails_no_call(self, processes: Processes) -> None:
        killed = processes.call("pid")
        os.kill(killed, 9)
        await_end([killed])
        assert processes.call("pid") != killed


class TestASystemThatStartsNoProcess:
    def test_the_call_waits_until_it_does(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        interpreter = sys.executable
        monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))

        async def scenario() -> Any:
            processes = WorkerProcesses(1)
            call = asyncio.create_task(processes.run(handler("echo-process"), (5,)))

            async def refused() -> bool:
                return any(event["event"] == "process.unavailable" for event in events)

            await eventually_async(refused)
            monkeypatch.setattr(sys, "executable", interpreter)
            try:
                return await call
            finally:
                await processes.close()

        with capture_logs() as events:
            assert decoded(asyncio.run(scenario())) == 5


class TestDeaths:
    @pytest.mark.parametrize(
        ("how", "says"),
        [
            ("SIGSEGV", r"died with signal 11 \(SIGSEGV\)"),
            ("SIGKILL", r"died with signal 9 \(SIGKILL\)"),
            ("exit", "ended with status 3"),
        ],
    )
    def test_a_process_that_dies_fails_its_call_and_the_next_has_another(
        self, processes: Processes, how: str, says: str
    ) -> None:
        with pytest.raises(ProcessDied, match=rf"^its process {says}$"):
            processes.call("die", how)
        assert processes.call("echo-process", 5) == 5

    @pytest.mark.parametrize("which", range(len(FRAME_GARBAGE)))
    def test_garbage_on_the_connection_fails_the_call(self, processes: Processes, which: int) -> None:
        with pytest.raises(ProcessDied, match="no answer"):
            processes.call("garbage", which)

    def test_a_handler_that_closes_the_connection_fails_its_call(self, processes: Processes) -> None:
        with pytest.raises(ProcessDied):
            processes.call("close-all")

    def test_a_child_of_a_process_that_died_goes_with_it(self, processes: Processes, tmp_path: Path) -> None:
        with pytest.raises(ProcessDied, match="ended with status 1"):
            processes.call("leave-behind", str(tmp_path / "pids"))
        await_end(read_pids(tmp_path / "pids"))

    def test_a_handler_may_leave_a_forked_child_behind_and_its_process_is_used_again(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        used = processes.call("fork", str(tmp_path / "pids"))
        assert processes.call("pid") == used
        os.kill(read_pids(tmp_path / "pids")[0], 9)


class TestKilling:
    @pytest.mark.parametrize("name", ["spin", "hang-async"])
    def test_a_handler_that_takes_too_long_is_killed(self, processes: Processes, name: str, tmp_path: Path) -> None:
        with pytest.raises(OutOfTime, match=r"^no result within 0\.2 s$"):
            processes.call(name, str(tmp_path / "pids"))
        await_end(read_pids(tmp_path / "pids"))

    def test_the_start_of_a_process_is_not_the_handlers_time(self) -> None:
        quick = handler("echo-quick")
        assert quick.timeout_s is not None

        began = time.monotonic()
        assert decoded(alone(quick, 5)) == 5
        assert time.monotonic() - began > quick.timeout_s, "it would have been enough for the start as well"

    def test_cancelling_the_caller_kills_the_process_and_its_children(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        path = tmp_path / "pids"

        async def scenario() -> None:
            call = asyncio.create_task(processes.workers.run(handler("hold"), (str(path),)))
            await _begun(path)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        processes.runner.run(scenario())
        await_end(read_pids(path))

    def test_a_caller_that_is_cancelled_while_it_waits_leaves_the_others_alone(self, processes: Processes) -> None:
        async def scenario() -> list[Any]:
            calls = [asyncio.create_task(processes.workers.run(handler("echo-process"), (n,))) for n in range(20)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return [decoded(call.result()) for call in calls[1::2]]

        assert processes.runner.run(scenario()) == list(range(1, 20, 2))
        assert processes.call("echo-process", 5) == 5

    def test_closing_ends_idle_processes_with_what_they_do_at_exit(self, tmp_path: Path) -> None:
        alone(handler("at-exit"), str(tmp_path / "said"))
        assert (tmp_path / "said").read_text() == "bye"


MEMBER = """
import asyncio, sys
from fanfold_consumer.worker_processes import WorkerProcesses
from tests.support.process_handlers import registry

async def run():
    processes = WorkerProcesses(3)
    async with asyncio.TaskGroup() as group:
        for name in sys.argv[2:]:
            group.create_task(processes.run(registry.get(name), (f"{sys.argv[1]}/{name}",)))

asyncio.run(run())
"""


class TestAMemberThatIsGone:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_no_process_outlives_it_whatever_its_handler_does(self, tmp_path: Path, number: signal.Signals) -> None:
        names = ("hold", "explode", "deaf")
        command = [sys.executable, "-c", MEMBER, str(tmp_path), *names]
        member = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            pids = [pid for name in names for pid in await_begun(tmp_path / name)]
            assert len(pids) == 4, "hold has a child"
        finally:
            member.send_signal(number)
            member.wait(20)
        await_end(pids)


class TestDeclaring:
    def test_a_handler_in_main_cannot_have_a_process(self) -> None:
        def work(arg: Any) -> None: ...

        work.__module__, work.__qualname__ = "__main__", "work"
        with pytest.raises(ConfigError, match="cannot import __main__; put the handler into a module of its own"):
            Registry().task("work", isolation="process")(work)

    def test_a_function_within_a_function_cannot_have_a_process(self) -> None:
        def work(arg: Any) -> None: ...

        with pytest.raises(ConfigError, match="declare it at the top of its module"):
            Registry().fold("work", isolation="process")(work)

    def test_there_is_no_other_isolation(self) -> None:
        other: Any = "thread"
        with pytest.raises(ConfigError, match=r"isolation 'thread'; it can be 'process', or be left out"):
            Registry().task("work", isolation=other)(echo)

    def test_one_that_its_module_does_not_declare_says_what_to_do(self, processes: Processes) -> None:
        elsewhere = Registry()
        elsewhere.task("elsewhere", isolation="process")(echo)
        found = elsewhere.get("elsewhere")
        assert found is not None
        with pytest.raises(
            RaisedInProcess, match=r"process_handlers declares no handler 'elsewhere' of echo; .* there"
        ):
            processes.runner.run(processes.workers.run(found, (1,)))

    def test_a_module_that_cannot_be_imported_fails_the_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "fails_later.py").write_text(
            "import os\nfrom fanfold_consumer import Registry\nregistry = Registry()\n"
            f"if os.getpid() != {os.getpid()}: raise OSError('no such device')\n"
            "@registry.task('work', isolation='process')\ndef work(arg): ...\n"
        )
        found = importlib.import_module("fails_later").registry.get("work")
        with pytest.raises(RaisedInProcess, match=r"^OSError: no such device$"):
            alone(found, 1)


class TestRetryOn:
    def test_the_process_says_which_exceptions_are_worth_another_try(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        path = str(tmp_path / "calls")
        for kind, again in [("KeyError", True), ("ValueError", False)]:
            with pytest.raises(RaisedInProcess) as caught:
                processes.call("picky-process", path)
            assert (caught.value.kind, caught.value.again) == (kind, again)


async def _begun(path: Path) -> None:
    async def begun() -> bool:
        return bool(read_pids(path))

    await eventually_async(begun, what="the handler began")
