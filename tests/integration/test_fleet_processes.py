"""Handlers in processes of their own, in a running fleet: killed when they hang, and no harm to it when they crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanfold_producer import FanOutHandle, TaskFailure
from fanfold_sql import DeadLetterFilter
from tests.support.kafka import Topic
from tests.support.process_handlers import await_begun, await_end, registry
from tests.support.rig import Rig
from tests.support.wait import eventually

MODULE = """\
import logging, os, time
from pathlib import Path
from fanfold_consumer import task

@task("hold-process", isolation="process")
def hold(arg):
    logging.getLogger("mine").warning("careful")
    path = Path(arg["path"])
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    while not Path(arg["gate"]).exists():
        time.sleep(0.01)
    return os.getpid()
"""


def codes_of(rig: Rig, handle: FanOutHandle) -> list[str]:
    """Why tasks of a fan-out failed."""
    letters = rig.store(lambda store: store.list_dead_letters(DeadLetterFilter(fan_out_id=handle.fan_out_id)))
    return [letter.code for letter in letters]


@pytest.mark.parametrize("topic", [2], indirect=True)
def test_a_loop_that_never_ends_is_killed_while_others_go_on_and_its_fan_out_completes_without_it(
    rig: Rig, topic: Topic, tmp_path: Path
) -> None:
    sends: list[Any] = [("spin", str(tmp_path / f"spin-{n}")) for n in range(3)]
    sends += [("echo-async", n) for n in range(200)] + [("echo-process", n) for n in range(20)]
    handle = rig.publish(topic, sends, fold="count")
    rig.start_here(topic, registry=registry, process_workers=2)

    assert handle.result(30) == 220
    assert codes_of(rig, handle) == ["E_TIMEOUT"] * 3
    await_end([pid for n in range(3) for pid in await_begun(tmp_path / f"spin-{n}")])
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_handler_that_crashes_its_process_is_tried_again_and_then_fails_and_the_member_goes_on(
    rig: Rig, topic: Topic
) -> None:
    handle = rig.publish(topic, [("crash-process", None), ("echo-process", 5)])
    member = rig.start_here(topic, registry=registry, process_workers=2)
    failure, value = handle.result(30, return_failures=True)

    assert value == 5
    assert isinstance(failure, TaskFailure)
    assert failure.error == "ProcessDied: its process died with signal 11 (SIGSEGV) (attempt 3)"
    assert codes_of(rig, handle) == ["E_HANDLER"]
    assert member.metric("fanfold_task_retries_total") == 2
    assert member.alive
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_fan_out_that_is_cancelled_kills_the_processes_that_work_for_it(
    rig: Rig, topic: Topic, tmp_path: Path
) -> None:
    names = ("hold", "explode")
    handle = rig.publish(topic, [(name, str(tmp_path / name)) for name in names], fold="count")
    rig.start_here(topic, registry=registry, process_workers=2)
    pids = [pid for name in names for pid in await_begun(tmp_path / name)]
    others = rig.publish(topic, [("echo-async", n) for n in range(100)], fold="count", thread_id="t3")
    assert others.result(20) == 100, "they do not wait for what computes"

    assert handle.cancel()
    await_end(pids)
    assert rig.publish(topic, [("echo-process", 5)], thread_id="t2").result(20) == [5]
    assert rig.dead_letters() == []


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_fold_in_a_process_gets_all_results_and_who_failed(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("echo", n) for n in range(10)] + [("raise", "value")], fold="total-process")
    rig.start_here(topic, registry=registry, process_workers=1)
    assert handle.result(30)[:2] == [45, [10]]


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_sends_from_a_process_become_a_fan_out(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("split-process", 4)])
    rig.start_here(topic, registry=registry, process_workers=1)
    (child,) = handle.result(30)
    assert child == "sent 4"
    eventually(lambda: rig.rows("select from fanfold.fan_out where fold = 'sum' and folded_at is not null"))
    assert rig.count_results() == 5


class TestAMemberThatStops:
    """Member processes of their own, to be signalled."""

    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path) -> None:
        (tmp_path / "own_handlers.py").write_text(MODULE)

    @pytest.mark.parametrize("topic", [1], indirect=True)
    def test_one_that_drains_lets_a_process_finish(self, rig: Rig, topic: Topic, tmp_path: Path) -> None:
        path, gate = tmp_path / "pid", tmp_path / "gate"
        handle = rig.publish(topic, [("hold-process", {"path": str(path), "gate": str(gate)})])
        member = rig.start(topic, handlers="own_handlers", process_workers=1)
        pids = await_begun(path)
        member.terminate()
        member.await_event("fleet.drain_started")
        gate.touch()

        assert handle.result(20) == pids
        assert member.await_exit() == 0
        await_end(pids)
        assert member.events("library.warned", library="mine"), "it logs as the member does"
        assert member.stray_lines() == []

    @pytest.mark.parametrize("topic", [1], indirect=True)
    def test_one_whose_drain_takes_too_long_kills_it_and_the_task_is_done_elsewhere(
        self, rig: Rig, topic: Topic, tmp_path: Path
    ) -> None:
        path, gate = tmp_path / "pid", tmp_path / "gate"
        handle = rig.publish(topic, [("hold-process", {"path": str(path), "gate": str(gate)})])
        member = rig.start(topic, handlers="own_handlers", process_workers=1, drain_s=0.2)
        pids = await_begun(path)
        assert member.stop() == 0
        await_end(pids)

        gate.touch()
        rig.start(topic, handlers="own_handlers", process_workers=1)
        (done_by,) = handle.result(30)
        assert done_by not in pids
        rig.assert_sound()

    @pytest.mark.parametrize("topic", [1], indirect=True)
    def test_one_that_is_killed_takes_its_processes_with_it(self, rig: Rig, topic: Topic, tmp_path: Path) -> None:
        path = tmp_path / "pid"
        rig.publish(topic, [("hold-process", {"path": str(path), "gate": str(tmp_path / "never")})])
        member = rig.start(topic, handlers="own_handlers", process_workers=1)
        pids = await_begun(path)
        member.kill()
        await_end(pids)
