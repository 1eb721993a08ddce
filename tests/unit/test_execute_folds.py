"""Folds: what they are given, and what becomes of one that cannot have it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.work import Completion, Work
from fanfold_schemas import FanOut, encode_payload
from fanfold_sql import MigrationNeeded, StoreRejected, StoreUnavailable
from tests.unit.executor_bench import Bench, Results, a_result, bench, failure, value
from tests.unit.fleet_records import a_fold, some_work


@dataclass
class Page:
    url: str


def _fold(
    work: Work, results: Results, handler: Callable[..., Any] | None = None, *, name: str = "merge"
) -> tuple[Completion, Bench]:
    registry = Registry()
    if handler is not None:
        registry.fold(name, retries=0)(handler)

    async def scenario() -> tuple[Completion, Bench]:
        async with bench(registry, results=results) as at:
            return await at.run(work), at

    return asyncio.run(scenario())


def _done(*values: Any) -> Results:
    return Results([a_result(index, encode_payload(one)) for index, one in enumerate(values)])


class TestFolds:
    @pytest.mark.parametrize(("fold", "expected"), [("sum", 6), ("first:2", [1, 2]), ("collect", [1, 2, 3])])
    def test_a_built_in_fold_needs_no_handler(self, fold: str, expected: Any) -> None:
        completion, _ = _fold(some_work(a_fold(fold)), _done(1, 2, 3))
        assert value(completion) == expected

    def test_a_fold_is_given_every_page_of_results_in_index_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fanfold_consumer.handler_input.FOLD_PAGE", 2)
        results = _done(*range(5))
        completion, _ = _fold(some_work(a_fold("merge")), results, lambda values: values)
        assert value(completion) == [0, 1, 2, 3, 4]
        assert results.asked == [("f1", -1, 2), ("f1", 1, 2), ("f1", 3, 2)]

    def test_indexes_without_a_result_as_a_quorum_leaves_them_are_no_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fanfold_consumer.handler_input.FOLD_PAGE", 2)
        results = Results([a_result(index, encode_payload(index)) for index in (1, 6, 7, 8, 20)])
        completion, _ = _fold(some_work(a_fold("collect", size=30)), results)
        assert value(completion) == [1, 6, 7, 8, 20]

    def test_a_last_page_that_is_full_is_not_mistaken_for_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fanfold_consumer.handler_input.FOLD_PAGE", 2)
        completion, _ = _fold(some_work(a_fold("count")), _done(*range(4)))
        assert value(completion) == 4

    def test_failed_tasks_are_left_out_and_named_in_the_context(self) -> None:
        seen: list[TaskContext] = []

        def merge(values: Any, context: TaskContext) -> Any:
            seen.append(context)
            return values

        stored = [a_result(0, encode_payload("a")), a_result(1, None, "failed"), a_result(2, encode_payload(None))]
        completion, _ = _fold(some_work(a_fold("merge")), Results(stored), merge)
        assert value(completion) == ["a", None]
        assert seen[0].failed == (1,)
        assert seen[0].index == -1

    @pytest.mark.parametrize(
        ("there", "missing"), [((1, 4), (0, 2, 3, 5)), ((0, 1), (2, 3, 4, 5)), (range(6), ()), ((), tuple(range(6)))]
    )
    def test_indexes_that_have_neither_a_result_nor_failed_are_named_in_the_context(
        self, monkeypatch: pytest.MonkeyPatch, there: Sequence[int], missing: tuple[int, ...]
    ) -> None:
        monkeypatch.setattr("fanfold_consumer.handler_input.FOLD_PAGE", 2)
        seen: list[TaskContext] = []
        stored = [a_result(index, None if index == 1 else encode_payload(index)) for index in there]
        _fold(some_work(a_fold("merge", size=6)), Results(stored), lambda values, context: seen.append(context))
        assert seen[0].missing == missing
        assert seen[0].failed == ((1,) if 1 in there else ())

    def test_a_fold_gets_results_of_the_type_it_declares(self) -> None:
        def merge(pages: list[Page]) -> list[str]:
            return [page.url for page in pages]

        completion, _ = _fold(some_work(a_fold("merge")), _done({"url": "a"}, {"url": "b"}), merge)
        assert value(completion) == ["a", "b"]
        completion, _ = _fold(some_work(a_fold("merge")), _done({"url": "a"}, {"url": 5}), merge)
        assert failure(completion).code == "E_ARG"

    def test_a_fold_whose_fan_out_was_reopened_is_left_to_the_later_run(self) -> None:
        stored = [a_result(0, encode_payload(1)), a_result(1, None, "pending")]
        completion, _ = _fold(some_work(a_fold("sum")), Results(stored))
        assert (completion.result, completion.dead_letter, completion.dropped) == (None, None, False)

    @pytest.mark.parametrize("quorum", [None, 3])
    def test_a_fold_whose_results_were_lost_to_a_failover_is_not_called_without_them(self, quorum: int | None) -> None:
        stored = [a_result(0, encode_payload(1)), a_result(2, encode_payload(3)), a_result(3, None, "failed")]
        completion, _ = _fold(some_work(a_fold("sum", fan_out=FanOut("f1", 4, "sum", quorum))), Results(stored))
        assert (completion.result, completion.dead_letter, completion.dropped) == (None, None, False)

    def test_a_fold_is_called_without_what_its_quorum_does_not_need(self) -> None:
        stored = [a_result(0, encode_payload(1)), a_result(2, encode_payload(3)), a_result(3, None, "failed")]
        completion, _ = _fold(some_work(a_fold("sum", fan_out=FanOut("f1", 4, "sum", 2))), Results(stored))
        assert value(completion) == 4

    def test_a_fold_that_its_results_do_not_suit_fails(self) -> None:
        completion, _ = _fold(some_work(a_fold("sum")), _done(1, "2"))
        letter = failure(completion)
        assert letter.code == "E_HANDLER"
        assert "result 1 is a str" in letter.error

    def test_a_store_that_is_away_is_waited_for(self) -> None:
        results = Results([a_result(0, encode_payload(1))], errors=[StoreUnavailable("away")] * 2)
        completion, _ = _fold(some_work(a_fold("sum")), results)
        assert value(completion) == 1

    def test_a_result_that_cannot_be_read_fails_the_fold_and_says_which(self) -> None:
        completion, _ = _fold(some_work(a_fold("collect")), Results([a_result(4, b"\xc1")]))
        letter = failure(completion)
        assert letter.code == "E_ARG"
        assert "result 4" in letter.error

    @pytest.mark.parametrize("error", [StoreRejected("no", "42501"), MigrationNeeded("no schema")])
    def test_a_store_that_refuses_to_answer_breaks_the_member_off_instead_of_losing_the_fold(
        self, error: Exception
    ) -> None:
        async def scenario() -> Bench:
            async with bench(Registry(), results=Results([], errors=[error])) as at:
                at.submit(some_work(a_fold("sum")))
                assert await at.broken() is error
                return at

        assert not asyncio.run(scenario()).completions
