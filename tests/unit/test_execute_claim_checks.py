"""Large args and results in an executor: fetched before the handler, put before the commit, waited for when away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from fanfold_consumer import Registry, Send, Sends
from fanfold_consumer.work import Completion, Work
from fanfold_producer import ClaimStore, ClaimStoreUnavailable
from fanfold_schemas import (
    ClaimCheck,
    Task,
    claim_check_for,
    decode_task,
    derive_child_fan_out_id,
    encode_check,
    object_key,
    pack_value,
    payload_check,
)
from fanfold_schemas.limits import CLAIM_CHECK_NODES_MAX
from tests.unit.executor_bench import Results, a_result, bench, failure
from tests.unit.fleet_records import a_fold, a_task, some_work

pytest.importorskip("obstore", reason="claim stores need the extra claim-check (obstore)")

BYTES_MIN = 1000
LARGE = "x" * 2000
CHECK = claim_check_for(pack_value(LARGE))


@pytest.fixture
def store(tmp_path: Path) -> ClaimStore:
    return ClaimStore.open((tmp_path / "claims").as_uri(), bytes_min=BYTES_MIN)


def checked_task(check: ClaimCheck = CHECK, node: str = "work", index: int = 0) -> Task:
    return a_task(node, None, index=index, arg_check=check)


def run(
    handler: Callable[..., Any],
    work: Work,
    store: ClaimStore | None,
    *,
    results: Results | None = None,
    fold: bool = False,
) -> Completion:
    registry = Registry()
    (registry.fold if fold else registry.task)("merge" if fold else "work", retries=0)(handler)

    async def scenario() -> Completion:
        async with bench(registry, claim_store=store, results=results) as at:
            return await at.run(work)

    return asyncio.run(scenario())


def put(store: ClaimStore, value: Any, fan_out_id: str = "f1") -> ClaimCheck:
    return asyncio.run(store.put(fan_out_id, pack_value(value)))


def payload_of(completion: Completion) -> bytes:
    assert completion.dead_letter is None, completion.dead_letter
    assert completion.result is not None
    assert completion.result.payload is not None
    return completion.result.payload


class TestArgs:
    def test_a_handler_gets_the_value_behind_the_claim_check(self, store: ClaimStore) -> None:
        put(store, LARGE)
        completion = run(lambda text: len(text), some_work(checked_task()), store)
        assert payload_of(completion) == pack_value(2000)

    def test_the_value_is_converted_to_the_annotation_like_any_arg(self, store: ClaimStore) -> None:
        def work(numbers: list[int]) -> int:
            return sum(numbers)

        completion = run(work, some_work(checked_task(put(store, ["x", 1]))), store)
        assert failure(completion).code == "E_ARG"

    def test_a_missing_object_is_a_dead_letter_that_counts_as_failed_and_keeps_the_reference(
        self, store: ClaimStore
    ) -> None:
        work = some_work(checked_task())
        letter = failure(run(lambda text: text, work, store))
        assert letter.code == "E_CLAIM"
        assert object_key("f1", CHECK) in letter.error
        assert letter.value == work.delivery.message.value()
        assert decode_task(letter.value).arg_check == CHECK

    def test_other_bytes_are_a_dead_letter_and_no_handler_sees_them(self, store: ClaimStore, tmp_path: Path) -> None:
        put(store, LARGE)
        seen: list[Any] = []
        (tmp_path / "claims" / object_key("f1", CHECK)).write_bytes(pack_value("y" * 2000))
        assert failure(run(seen.append, some_work(checked_task()), store)).code == "E_CLAIM"
        assert seen == []

    def test_a_member_without_a_claim_store_says_what_it_lacks(self) -> None:
        letter = failure(run(lambda text: text, some_work(checked_task()), None))
        assert letter.code == "E_CLAIM"
        assert "--claim-store" in letter.error

    def test_a_handlers_own_trouble_with_claim_checks_is_the_handlers(self, store: ClaimStore) -> None:
        put(store, LARGE)

        def work(_text: str) -> None:
            raise ClaimStoreUnavailable("of my own publisher")

        assert failure(run(work, some_work(checked_task()), store)).code == "E_HANDLER"


class TestResults:
    def test_a_large_result_is_put_and_its_claim_check_is_what_is_stored(self, store: ClaimStore) -> None:
        check = payload_check(payload_of(run(lambda _: LARGE, some_work(), store)))
        assert check == CHECK
        assert asyncio.run(store.get("f1", CHECK)) == LARGE

    def test_a_result_of_exactly_the_threshold_stays_in_line(self, store: ClaimStore, tmp_path: Path) -> None:
        value = "x" * (BYTES_MIN - 3)
        assert payload_of(run(lambda _: value, some_work(), store)) == pack_value(value)
        assert list((tmp_path / "claims").iterdir()) == []
        assert payload_check(payload_of(run(lambda _: value + "x", some_work(), store))) is not None

    def test_a_result_that_does_not_fit_in_line_goes_there_whatever_the_threshold(self, tmp_path: Path) -> None:
        store = ClaimStore.open(tmp_path.as_uri(), bytes_min=2**20)
        text = "x" * (256 * 1024 + 1)
        assert payload_check(payload_of(run(lambda _: text, some_work(), store))) is not None

    def test_having_a_store_refuses_nothing_that_could_be_stored_without_one(self, store: ClaimStore) -> None:
        numbers = [1] * (CLAIM_CHECK_NODES_MAX + 1)
        for given in (store, None):
            assert payload_of(run(lambda _: numbers, some_work(), given)) == pack_value(numbers)

    def test_without_a_store_the_refusal_says_that_one_would_take_it(self) -> None:
        letter = failure(run(lambda _: "x" * 300_000, some_work(), None))
        assert letter.code == "E_RESULT"
        assert "--claim-store" in letter.error

    @pytest.mark.parametrize("value", [["\0" * 2000], [float("nan")] * 2000, object()])
    def test_what_nobody_could_store_is_refused_with_a_store_as_without(self, store: ClaimStore, value: Any) -> None:
        for given in (store, None):
            letter = failure(run(lambda _: value, some_work(), given))
            assert letter.code == "E_RESULT"
            assert "claim store" not in letter.error

    def test_large_args_of_returned_sends_are_there_before_their_records(self, store: ClaimStore) -> None:
        completion = run(lambda _: Sends([Send("next", LARGE), Send("next", 1)]), some_work(), store)
        first, second = (decode_task(record.value) for record in completion.outbox)
        assert (first.arg_check, second.arg) == (CHECK, 1)
        child = derive_child_fan_out_id(a_task().task_id, 1)
        assert first.fan_out.id == child
        assert asyncio.run(store.get(child, CHECK)) == LARGE

    def test_large_sends_without_a_store_are_refused_and_say_that_one_would_take_them(self) -> None:
        letter = failure(run(lambda _: Sends([Send("next", "x" * 300_000)]), some_work(), None))
        assert letter.code == "E_RESULT"
        assert "claim store" in letter.error


class TestFolds:
    def stored(self, store: ClaimStore) -> Results:
        payloads = [pack_value(0), encode_check(put(store, LARGE)), pack_value(2), encode_check(put(store, [LARGE]))]
        return Results([a_result(index, payload) for index, payload in enumerate(payloads)])

    def test_a_fold_gets_values_wherever_they_lie_in_index_order(self, store: ClaimStore) -> None:
        seen: list[Any] = []
        run(seen.extend, some_work(a_fold("merge")), store, results=self.stored(store), fold=True)
        assert seen == [0, LARGE, 2, [LARGE]]

    def test_a_built_in_fold_does_too_and_what_it_makes_of_them_may_be_large_again(self, store: ClaimStore) -> None:
        work = some_work(a_fold("collect"))
        check = payload_check(payload_of(run(lambda _: None, work, store, results=self.stored(store))))
        assert check is not None
        assert asyncio.run(store.get("f1", check)) == [0, LARGE, 2, [LARGE]]

    def test_a_fold_of_a_result_whose_object_is_gone_fails_and_says_so(self, store: ClaimStore, tmp_path: Path) -> None:
        results = self.stored(store)
        (tmp_path / "claims" / object_key("f1", CHECK)).unlink()
        letter = failure(run(lambda _: None, some_work(a_fold("merge")), store, results=results, fold=True))
        assert letter.code == "E_CLAIM"

    def test_a_stored_claim_check_of_an_impossible_size_fails_the_fold(self, store: ClaimStore) -> None:
        results = Results([a_result(0, encode_check(CHECK)[:-8] + bytes(8))])
        assert failure(run(lambda _: None, some_work(a_fold("count")), store, results=results)).code == "E_ARG"


class _Away:
    """A claim store that answers after so many calls."""

    bytes_min = BYTES_MIN

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.calls = 0

    def _answer(self, answer: Any) -> Any:
        self.calls += 1
        if self.calls <= self._failures:
            raise ClaimStoreUnavailable("connection refused")
        return answer

    async def get(self, _fan_out_id: str, _check: ClaimCheck) -> Any:
        return self._answer(LARGE)

    async def put(self, _fan_out_id: str, data: bytes) -> ClaimCheck:
        check: ClaimCheck = self._answer(claim_check_for(data))
        return check

    async def put_all(self, _fan_out_id: str, values: Mapping[ClaimCheck, Any]) -> None:
        self._answer(values)


class TestAway:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fanfold_consumer.patience.WAIT_MIN_S", 0.0001)
        monkeypatch.setattr("fanfold_consumer.patience.WAIT_MAX_S", 0.001)

    @pytest.mark.parametrize(
        ("task", "handler"),
        [
            (checked_task(), lambda text: len(text)),
            (a_task(), lambda _: LARGE),
            (a_task(), lambda _: Sends([Send("next", LARGE)])),
        ],
        ids=["arg", "result", "sends"],
    )
    def test_a_store_that_is_away_is_waited_for_and_nothing_is_parked(
        self, task: Task, handler: Callable[..., Any]
    ) -> None:
        away = _Away(50)
        registry = Registry()

        @registry.task("work")
        async def work(arg: Any) -> Any:
            return handler(arg)

        async def scenario() -> Completion:
            async with bench(registry, claim_store=cast(ClaimStore, away)) as at:
                return await at.run(some_work(task))

        assert payload_of(asyncio.run(scenario()))
        assert away.calls == 51

    def test_a_handler_runs_once_however_long_its_result_waits(self) -> None:
        registry, calls = Registry(), []

        @registry.task("work")
        async def work(arg: Any) -> str:
            calls.append(arg)
            return LARGE

        async def scenario() -> Completion:
            async with bench(registry, claim_store=cast(ClaimStore, _Away(50))) as at:
                return await at.run(some_work())

        assert payload_check(payload_of(asyncio.run(scenario()))) == CHECK
        assert len(calls) == 1


class TestRoom:
    def scenario(self, sizes: list[int], bytes_max: int) -> tuple[int, int]:
        """(handlers that ran, the most bytes that handlers held at once)."""
        registry = Registry()
        held = most = ran = 0

        class Holding(_Away):
            async def get(self, _fan_out_id: str, check: ClaimCheck) -> Any:
                nonlocal held, most
                held += check.bytes
                most = max(most, held)
                return check.bytes

        @registry.task("work")
        async def work(size: int) -> None:
            nonlocal held, ran
            for _ in range(3):
                await asyncio.sleep(0)
            held -= size
            ran += 1

        async def go() -> None:
            store = cast(ClaimStore, Holding(0))
            async with bench(registry, concurrency=8, claim_store=store, claim_bytes_max=bytes_max) as at:
                for index, size in enumerate(sizes):
                    at.submit(some_work(checked_task(ClaimCheck("0" * 64, size), index=index)))
                await at.finished(len(sizes))

        asyncio.run(go())
        return ran, most

    def test_what_handlers_hold_at_once_is_bounded_in_bytes(self) -> None:
        assert self.scenario([30] * 9, 100) == (9, 90)

    def test_a_value_larger_than_the_bound_goes_alone(self) -> None:
        ran, most = self.scenario([10, 500, 10, 10], 100)
        assert ran == 4
        assert most == 500
