"""What the benchmarks of commits alone are given to write: the pure parts."""

from __future__ import annotations

from collections import Counter

from fanfold_schemas import derive_task_id
from tests.benchmarks.commits import fan_outs, in_batches, repeated
from tests.benchmarks.growth_tables import thread_id


def test_a_fan_out_is_cut_short_where_the_payloads_end_and_still_has_its_width() -> None:
    whole, part = fan_outs(repeated([b"a", b"b"], 5), 3)
    assert [result.payload for result in whole + part] == [b"a", b"b", b"a", b"b", b"a"]
    assert len(part) == 2
    assert {result.task.fan_out.size for result in whole + part} == {3}


def test_ids_of_tasks_are_those_that_a_producer_derives() -> None:
    ((first, second),) = fan_outs([b"", b""], 2)
    assert [first.task.task_id, second.task.task_id] == [derive_task_id(first.task.fan_out.id, n) for n in (0, 1)]


def test_each_fan_out_has_a_thread_of_its_own_unless_threads_are_given() -> None:
    payloads = [b""] * 6
    assert len({result.task.thread_id for fan_out in fan_outs(payloads, 2) for result in fan_out}) == 3
    shared = fan_outs(payloads, 2, threads=iter("aba"))
    assert ["".join(result.task.thread_id for result in fan_out) for fan_out in shared] == ["aa", "bb", "aa"]


def test_batches_that_are_not_spread_keep_the_order() -> None:
    made = fan_outs([bytes([n]) for n in range(7)], 2)
    batches = in_batches(made, 3)
    assert [[result.payload for result in batch] for batch in batches] == [
        [b"\0", b"\1", b"\2"],
        [b"\3", b"\4", b"\5"],
        [b"\6"],
    ]


def test_a_spread_fan_out_is_scattered_over_neighbouring_batches_and_nothing_is_lost() -> None:
    made = fan_outs([b""] * 2_000, 100)
    batches = in_batches(made, 250, spread=4)
    assert [len(batch) for batch in batches] == [250] * 8
    assert Counter(r.task.task_id for b in batches for r in b) == Counter(r.task.task_id for f in made for r in f)
    # Of ten fan-outs in four batches, hardly one has all of its hundred results in a single batch.
    assert all(len({r.task.fan_out.id for r in batch}) == 10 for batch in batches)
    assert {r.task.fan_out.id for r in batches[0]}.isdisjoint(r.task.fan_out.id for r in batches[4])


def test_a_thread_is_named_as_the_filling_statement_names_it() -> None:
    # select md5('thread-7')::uuid
    assert thread_id(7) == "1cb945d7-1e1f-6b1c-36ee-87a7c86e4463"
