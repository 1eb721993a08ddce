"""What ends a fan-out before all its tasks are done: a quorum, too many failures, its deadline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fanfold_consumer import Registry, TaskContext
from fanfold_producer import FanOutExpired, FanOutFailed
from tests.support.handlers import declare
from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually

SOON = timedelta(seconds=2)
HELD = {"n": 1, "gate": "never"}


def _registry(rig: Rig) -> Registry:
    registry = declare(Registry(), rig.notes)

    @registry.task("fail", retries=0)
    async def fail(arg: Any) -> None:
        raise RuntimeError("no")

    @registry.fold("account")
    def account(values: list[Any], context: TaskContext) -> dict[str, Any]:
        return {"values": values, "failed": list(context.failed), "missing": list(context.missing)}

    return registry


def _passed(rig: Rig, topic: Topic) -> bool:
    return {number: state.next_offset for number, state in rig.partitions().items()} == topic.end_offsets()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_deadline_folds_what_is_there_and_stops_what_runs(rig: Rig, topic: Topic) -> None:
    rig.start_here(topic, registry=_registry(rig))
    sends = [("square", 2), ("fail", 0), ("hold", HELD), ("hold-sync", HELD), ("square", 3)]
    handle = rig.publish(topic, sends, fold="account", deadline=SOON, on_deadline="fold")
    assert handle.result(20) == {"values": [4, 9], "failed": [1], "missing": [2, 3]}
    eventually(lambda: _passed(rig, topic), what="progress over what the deadline stopped")
    assert len(rig.dead_letters()) == 1
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_fan_out_of_which_nothing_ever_finishes_fails_at_its_deadline(rig: Rig, topic: Topic) -> None:
    rig.start_here(topic, registry=_registry(rig))
    handle = rig.publish(topic, [("hold", HELD)] * 3, fold="account", deadline=SOON)
    with pytest.raises(FanOutExpired, match="3 of 3 results outstanding"):
        handle.result(20)
    eventually(lambda: _passed(rig, topic), what="progress over what the deadline stopped")
    assert rig.dead_letters() == []
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_deadline_that_passed_in_the_log_ends_the_fan_out_before_any_task_begins(rig: Rig, topic: Topic) -> None:
    late = rig.build(topic, [("square", 2)] * 3, fold="account", deadline_ms=1_000, on_deadline="fold")
    rig.write(late.records)
    rig.start_here(topic, registry=_registry(rig))
    eventually(lambda: rig.fold_value(late.fan_out.id) is not None, what="a fold of nothing")
    assert rig.fold_value(late.fan_out.id) == {"values": [], "failed": [], "missing": [0, 1, 2]}
    assert rig.notes.calls() == []
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_one_failure_too_many_ends_the_fan_out_and_what_it_still_runs(rig: Rig, topic: Topic) -> None:
    member = rig.start_here(topic, registry=_registry(rig), concurrency=4)
    sends = [("hold", HELD), ("fail", 0), ("fail", 1), *[("hold", HELD)] * 20]
    handle = rig.publish(topic, sends, fold="account", max_failures=1)
    with pytest.raises(FanOutFailed, match="It takes 1, so it ended with 21 outstanding") as failed:
        handle.result(20)
    assert [failure.index for failure in failed.value.failures] == [1, 2]
    eventually(lambda: _passed(rig, topic), what="progress over what was not needed any more")
    assert member.metric("fanfold_deliveries_skipped_total", why="closed") == 21
    assert rig.publish(topic, [("square", 5)], thread_id="t2").result(20) == [25]
    rig.assert_sound()


@pytest.mark.parametrize("topic", [1], indirect=True)
def test_a_quorum_stops_what_is_not_needed_any_more(rig: Rig, topic: Topic) -> None:
    rig.start_here(topic, registry=_registry(rig), concurrency=4)
    sends = [("hold", HELD), ("square", 2), ("square", 3), *[("hold", HELD)] * 5]
    handle = rig.publish(topic, sends, fold="account", quorum=2)
    assert handle.result(20) == {"values": [4, 9], "failed": [], "missing": [0, 3, 4, 5, 6, 7]}
    eventually(lambda: _passed(rig, topic), what="progress over what was not needed any more")
    rig.assert_sound()


def test_any_member_ends_it_also_when_those_that_had_its_tasks_are_gone(rig: Rig, topic: Topic) -> None:
    first = rig.start(topic).await_partitions(topic.partitions)
    handle = rig.publish(topic, [("hold", HELD)] * 8, fold="total", deadline=SOON)
    eventually(lambda: rig.fan_out(handle.fan_out_id), what="a fan-out that was opened for its deadline")
    first.kill()
    other = rig.start_here(topic)
    with pytest.raises(FanOutExpired):
        handle.result(20)
    assert other.metric("fanfold_fan_outs_expired_total") == 1
