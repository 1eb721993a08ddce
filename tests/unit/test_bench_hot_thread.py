"""What the members of the benchmark of hot threads are given."""

from __future__ import annotations

import random

import pytest

from tests.benchmarks.hot_thread import Results, Scene, arrival


@pytest.mark.parametrize("hot", [False, True])
def test_every_scene_has_as_many_results_and_the_hot_thread_one_of_them_if_there_is_one(hot: bool) -> None:
    threads = arrival(Scene(4, 1.0, hot=hot, held=False), random.Random(7))
    assert len(set(threads)) == 5
    assert threads.count("hot") == hot


def test_no_task_of_a_thread_is_finished_twice() -> None:
    results = Results()
    tasks = [results.of(thread_id).task for thread_id in ("a", "b", "a", "a", "b")]
    assert [task.index for task in tasks] == [0, 0, 1, 2, 1]
    assert len({(task.thread_id, task.task_id) for task in tasks}) == 5
    assert {task.fan_out.id for task in tasks if task.thread_id == "a"} == {"f-a"}
