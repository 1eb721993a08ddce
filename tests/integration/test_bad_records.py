"""The corpus on a real topic, a good record after each bad one: what happens to each is what docs/contract.md says."""

from __future__ import annotations

from collections import Counter

from fanfold_consumer import Registry, TaskContext
from fanfold_producer import Record
from fanfold_producer.fan_out import WRITTEN_BYTES_MAX, BuiltFanOut
from fanfold_schemas import derive_task_id
from tests.property.corpus import BAD_RECORDS, BAD_RESULTS, ODD_RECORDS
from tests.support.handlers import declare
from tests.support.kafka import Topic
from tests.support.rig import Rig
from tests.support.wait import eventually

# A value beyond what a broker takes is refused by it, and never on a topic.
CARRIED = [(bad, value) for bad in BAD_RECORDS if (value := bad.make()) is None or len(value) < WRITTEN_BYTES_MAX - 100]


def await_progress(rig: Rig, topic: Topic) -> None:
    """Wait until everything on the topic is finished: parked, refused or done. Folds come on top while we wait."""

    def finished() -> bool:
        reached = {number: state.next_offset for number, state in rig.partitions().items()}
        return reached == topic.end_offsets()

    eventually(finished, 60, what=f"progress to the end of {topic}")


def test_each_bad_record_is_a_dead_letter_with_its_bytes_and_its_code_and_each_good_one_after_it_has_its_result(
    rig: Rig, topic: Topic
) -> None:
    good = rig.build(topic, [("square", n) for n in range(len(CARRIED))], fold="count")
    records: list[Record] = []
    for number, ((_, value), after) in enumerate(zip(CARRIED, good.records, strict=True)):
        records += [Record(topic.name, b"%d" % number, value), after]
    rig.write(records, partition=0)
    member = rig.start_here(topic)

    await_progress(rig, topic)
    assert member.alive
    letters = rig.rows("select convert_from(key, 'utf8')::int, code, value, task_id, error from fanfold.dead_letter")
    assert {number: code for number, code, *_ in letters} == {n: bad.code for n, (bad, _) in enumerate(CARRIED)}
    assert {number: value for number, _, value, *_ in letters} == {n: value for n, (_, value) in enumerate(CARRIED)}
    assert len(letters) == len(CARRIED)
    assert {task_id for *_, task_id, _ in letters} == {None}
    assert all(error.isprintable() for *_, error in letters)
    assert rig.values(good.fan_out.id) == {n: n * n for n in range(len(CARRIED))}
    rig.assert_sound()


def test_what_only_looks_bad_reaches_its_handler_and_comes_back(rig: Rig, topic: Topic) -> None:
    seen: dict[int, object] = {}
    registry = Registry()

    @registry.task("keep")
    async def keep(arg: object, context: TaskContext) -> int:
        seen[context.index] = arg
        return context.index

    odd = [(record.name, record.arg()) for record in ODD_RECORDS]
    sends = [("keep", arg) for name, arg in odd if name != "a record of the largest size"]
    handle = rig.publish(topic, sends)
    rig.start_here(topic, registry=registry)
    assert handle.result(30) == list(range(len(sends)))
    assert [seen[index] for index in range(len(sends))] == [arg for _, arg in sends]
    assert rig.dead_letters() == []


def test_each_result_that_cannot_be_stored_fails_its_task_and_no_other(rig: Rig, topic: Topic) -> None:
    registry = declare(Registry(), rig.notes)

    @registry.task("return-bad")
    def return_bad(number: int) -> object:
        return BAD_RESULTS[number].make()

    sends: list[tuple[str, int]] = []
    for number in range(len(BAD_RESULTS)):
        sends += [("return-bad", number), ("square", number)]
    built = rig.build(topic, sends, fold="count")
    rig.write(built.records, partition=0)
    rig.start_here(topic, registry=registry)

    await_progress(rig, topic)
    letters = rig.dead_letters()
    assert Counter(letter.code for letter in letters) == {"E_RESULT": len(BAD_RESULTS)}
    reasons = {letter.task_id: letter.error for letter in letters}
    for number, bad in enumerate(BAD_RESULTS):
        assert f" {bad.code} at $" in reasons[built.task_ids[2 * number]], bad.name
    assert rig.values(built.fan_out.id) == {2 * n + 1: n * n for n in range(len(BAD_RESULTS))}
    state = rig.fan_out(built.fan_out.id)
    assert state is not None
    assert state.failed == len(BAD_RESULTS)
    rig.assert_sound()


def test_each_good_record_that_comes_at_the_wrong_time_ends_as_it_should_and_the_next_one_succeeds(
    rig: Rig, topic: Topic
) -> None:
    rig.start_here(topic)
    known = rig.build(topic, [("square", 2), ("square", 3)], thread_id="known", fold="sum")
    newer = rig.build(topic, [("square", 4)], thread_id="moved", base={"main": 2})
    enough = rig.build(topic, [("square", 5), ("square", 6)], thread_id="enough", quorum=1)
    rig.write([*known.records, *newer.records, enough.records[0]], partition=0)
    rig.await_results(4)
    # The fold is a record of its own; it must not be what the next ones are counted against.
    rig.assert_sound()

    def again(built: BuiltFanOut, sends: list[tuple[str, object]]) -> BuiltFanOut:
        return rig.build(topic, sends, thread_id=built.thread_id, fan_out_id=built.fan_out.id, fold=built.fan_out.fold)

    stale = rig.build(topic, [("square", 7)], thread_id="moved", base={"main": 1})
    another_arg = again(known, [("square", 2), ("square", 9)])
    another_size = again(known, [("square", 2), ("square", 3), ("square", 8)])
    unknown = rig.build(topic, [("no-such-node", 1)], thread_id="unknown")
    wrong_arg = rig.build(topic, [("square", "no number")], thread_id="wrong")
    late = [
        known.records[0],  # an identical redelivery
        another_arg.records[1],
        another_size.records[2],
        stale.records[0],
        enough.records[1],  # after completion
        unknown.records[0],
        wrong_arg.records[0],
    ]
    good = rig.build(topic, [("square", 10 + n) for n in range(len(late))], thread_id="good", fold="count")
    records: list[Record] = []
    for record, after in zip(late, good.records, strict=True):
        records += [record, after]
    rig.write(records, partition=0)

    await_progress(rig, topic)
    assert {letter.task_id: letter.code for letter in rig.dead_letters()} == {
        known.task_ids[1]: "E_CONFLICT",
        derive_task_id(known.fan_out.id, 2): "E_CONFLICT",
        unknown.task_ids[0]: "E_NODE",
        wrong_arg.task_ids[0]: "E_ARG",
    }
    # What is stored is what was stored before; a stale and a late task left nothing, and their handlers did not run.
    assert rig.values(known.fan_out.id) == {0: 4, 1: 9}
    assert rig.fan_out(stale.fan_out.id) is None
    assert rig.values(enough.fan_out.id) == {0: 25}
    calls = rig.notes.counts()
    assert calls[known.task_ids[0]] == 1
    assert not {stale.task_ids[0], enough.task_ids[1]} & calls.keys()
    assert rig.values(good.fan_out.id) == {n: (10 + n) ** 2 for n in range(len(late))}
    rig.assert_sound()
