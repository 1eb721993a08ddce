"""Waiting for a store that is away, for hours if it must be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from fanfold_consumer.patience import LOG_EVERY_S, WAIT_MAX_S, WAIT_MIN_S, Patience
from fanfold_sql import Fenced, MigrationNeeded, StoreError, StoreRejected, StoreUnavailable
from tests.unit.leaping_loop import run_leaping


class Store:
    """Answers after so many failures, and remembers when it was asked."""

    def __init__(self, failures: int, error: StoreError | None = None) -> None:
        self._failures = failures
        self._error = error or StoreUnavailable("connection refused")
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        self.asked_at.append(asyncio.get_running_loop().time())
        if len(self.asked_at) <= self._failures:
            raise self._error
        return "answer"

    @property
    def waits(self) -> list[float]:
        return [after - before for before, after in zip(self.asked_at, self.asked_at[1:], strict=False)]


def test_a_store_that_answers_is_asked_once() -> None:
    store, patience = Store(0), Patience()
    with capture_logs() as logs:
        assert run_leaping(lambda: patience.call("commit", store.ask)) == "answer"
    assert len(store.asked_at) == 1
    assert not patience.store_is_away
    assert logs == []


def test_the_same_call_is_made_until_it_is_answered() -> None:
    store = Store(500)
    assert run_leaping(lambda: Patience().call("commit", store.ask)) == "answer"
    assert len(store.asked_at) == 501


@pytest.mark.parametrize(
    "error",
    [
        StoreError("x"),
        StoreRejected("x", "22P02"),
        MigrationNeeded("x"),
        Fenced("x", frozenset({1})),
        ConnectionError("not the store's"),
        TimeoutError(),
    ],
)
def test_no_other_error_is_waited_out(error: Any) -> None:
    store, patience = Store(1, error), Patience()
    with pytest.raises(type(error)):
        run_leaping(lambda: patience.call("commit", store.ask))
    assert len(store.asked_at) == 1
    assert not patience.store_is_away


def test_waits_grow_to_a_limit_and_differ_between_members() -> None:
    store, other = Store(30), Store(30)
    run_leaping(lambda: Patience().call("commit", store.ask))
    run_leaping(lambda: Patience().call("commit", other.ask))
    limits = [min(WAIT_MAX_S, WAIT_MIN_S * 2**n) for n in range(30)]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(store.waits, limits, strict=True))
    assert limits[-1] == WAIT_MAX_S
    assert store.waits != other.waits


def test_it_is_away_from_the_first_failure_to_the_next_answer() -> None:
    patience = Patience()
    seen: list[bool] = []

    async def ask() -> str:
        seen.append(patience.store_is_away)
        if len(seen) < 3:
            raise StoreUnavailable("shutting down")
        return "answer"

    run_leaping(lambda: patience.call("commit", ask))
    assert seen == [False, True, True]
    assert not patience.store_is_away


def test_an_outage_is_logged_at_once_then_now_and_then_and_when_it_is_over() -> None:
    store = Store(40)
    with capture_logs() as logs:
        run_leaping(lambda: Patience().call("claim_partition", store.ask))
    *away, back = logs
    outage_s = store.asked_at[-1] - store.asked_at[0]
    assert [entry["event"] for entry in away] == ["store.unavailable"] * len(away)
    assert away[0]["away_s"] == 0
    assert (away[0]["call"], away[0]["error"]) == ("claim_partition", "connection refused")
    assert outage_s / (LOG_EVERY_S + WAIT_MAX_S) < len(away) <= outage_s / LOG_EVERY_S + 1
    assert back["event"] == "store.recovered"
    assert back["away_s"] == pytest.approx(outage_s, abs=0.1)


def test_a_second_outage_is_logged_at_once_too() -> None:
    patience = Patience()

    async def two_outages() -> None:
        await patience.call("commit", Store(1).ask)
        await patience.call("commit", Store(1).ask)

    with capture_logs() as logs:
        run_leaping(two_outages)
    assert [entry["event"] for entry in logs] == ["store.unavailable", "store.recovered"] * 2


def test_many_callers_log_one_outage() -> None:
    patience = Patience()

    async def callers() -> None:
        await asyncio.gather(*(patience.call("commit", Store(3).ask) for _ in range(20)))

    with capture_logs() as logs:
        run_leaping(callers)
    assert [entry["event"] for entry in logs].count("store.unavailable") < 5
    assert not patience.store_is_away


def test_a_caller_that_is_cancelled_stops_asking() -> None:
    store = Store(10**9)

    async def impatient() -> None:
        async with asyncio.timeout(60):
            await Patience().call("commit", store.ask)

    with pytest.raises(TimeoutError):
        run_leaping(impatient)
    assert 10 < len(store.asked_at) < 30


def test_an_answer_to_one_call_ends_the_wait_of_the_others() -> None:
    store, patience = Store(12), Patience()

    async def scenario() -> float:
        waiting = asyncio.create_task(patience.call("commit", store.ask))
        while len(store.asked_at) < 12:  # noqa: ASYNC110  from here on it would wait for seconds
            await asyncio.sleep(0.01)
        answered = asyncio.get_running_loop().time()
        await patience.call("claim_outbox", Store(0).ask)
        await waiting
        return asyncio.get_running_loop().time() - answered

    assert run_leaping(scenario) < 0.1
