"""Claims by topic and partition, and which of their offsets Kafka's copy still lacks."""

from __future__ import annotations

from fanfold_consumer.assignment import Assignment, Partition, Phase

KEY = ("t", 0)


def _assignment(*partitions: Partition) -> Assignment:
    assignment = Assignment()
    for partition in partitions:
        assignment.put(partition)
    return assignment


def test_a_new_claim_loses_the_one_whose_place_it_takes() -> None:
    old, new = Partition("t", 0, Phase.RUNNING), Partition("t", 0, Phase.STARTING)
    assignment = _assignment(old, new)
    assert old.lost
    assert assignment.get(KEY) is new
    assert len(assignment) == 1


def test_a_claim_that_is_being_handed_over_is_not_held() -> None:
    running, leaving = Partition("t", 0, Phase.RUNNING), Partition("t", 1, Phase.LEAVING)
    assert _assignment(running, leaving).held() == [running]


def test_an_offset_is_copied_once_and_again_when_it_has_moved() -> None:
    partition = Partition("t", 0, Phase.RUNNING, committed_offset=3)
    assignment = _assignment(partition, Partition("t", 1, Phase.RUNNING))
    assert assignment.take_unmirrored() == {KEY: 3}
    assert assignment.take_unmirrored() == {}
    partition.committed_offset = 4
    assert assignment.take_unmirrored() == {KEY: 4}


def test_an_offset_that_kafka_did_not_take_is_copied_again() -> None:
    assignment = _assignment(Partition("t", 0, Phase.RUNNING, committed_offset=3))
    assignment.take_unmirrored()
    assignment.forget_mirrored([KEY, ("t", 9)])
    assert assignment.take_unmirrored() == {KEY: 3}
