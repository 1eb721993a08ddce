"""Several groups on one topic, several topics in one group."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually


def test_a_second_group_reads_everything_and_runs_nothing_that_the_first_has_done(rig: Rig, topic: Topic) -> None:
    """Results belong to tasks, not to groups: one database, one effect."""
    handle = rig.publish(topic, [("square", n) for n in range(100)], fold="total")
    first = rig.start_here(topic)
    value = handle.result(20)
    rig.assert_sound()
    first.stop()
    before = rig.results(handle.fan_out_id)

    other = f"{rig.group}-other"
    second = rig.start_here(topic, group=other)
    ends = topic.end_offsets()
    eventually(lambda: {n: p.next_offset for n, p in rig.partitions(other).items()} == ends)
    # Not the fold: it ran where the fan-out was completed, and has no record.
    assert second.metric("fanfold_deliveries_skipped_total", why="duplicate") == 100
    assert rig.notes.again() == 0
    assert rig.results(handle.fan_out_id) == before
    assert handle.result(1) == value
    rig.assert_sound()


def test_two_groups_at_once_may_both_run_a_task_and_its_result_counts_once(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("slow", {"n": n, "s": 0.01}) for n in range(300)], fold="total")
    other = f"{rig.group}-other"
    members = [rig.start_here(topic, concurrency=8), rig.start_here(topic, group=other, concurrency=8)]
    assert handle.result(20) == sum(range(300))
    ends = topic.end_offsets()
    for group in (rig.group, other):
        await_ends(rig, group, ends)
    applied = sum(member.metric("fanfold_results_total", outcome="applied") for member in members)
    assert applied == 301
    assert max(rig.notes.counts().values()) <= 2
    rig.assert_sound()


def test_one_group_reads_several_topics_and_folds_where_the_tasks_came_from(
    rig: Rig, make_topic: Callable[..., Topic]
) -> None:
    one, two = make_topic("one", partitions=1), make_topic("two", partitions=1)
    handles = [
        rig.publish(topic, [("square", n) for n in range(20)], fold="total", thread_id=topic.name)
        for topic in (one, two)
    ]
    rig.start_here(one, two)
    assert [handle.result(20) for handle in handles] == [2470, 2470]
    states = [rig.fan_out(handle.fan_out_id) for handle in handles]
    assert [state and state.topic for state in states] == [one.name, two.name]
    rig.assert_sound()


def await_ends(rig: Rig, group: str, ends: dict[int, int]) -> None:
    eventually(lambda: {n: p.next_offset for n, p in rig.partitions(group).items()} == ends, what=f"{group} at {ends}")
