"""An executor with handlers of a test's own. Only folds read from a store; their tests bring the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

from fanfold_consumer import Registry
from fanfold_consumer.claim_check import ClaimChecks
from fanfold_consumer.dead_letters import Parking
from fanfold_consumer.execute import Executor
from fanfold_consumer.metrics import Metrics
from fanfold_consumer.patience import Patience
from fanfold_consumer.work import Completion, Work
from fanfold_producer import ClaimStore
from fanfold_schemas import decode_payload
from fanfold_sql import DeadLetter, Store, StoredResult

BOUND_S = 10.0


class Results:
    """Stands in for the one call of the store that an executor makes."""

    def __init__(self, results: Sequence[StoredResult], *, errors: Sequence[Exception] = ()) -> None:
        self._results = results
        self._errors = list(errors)
        self.asked: list[tuple[str, int, int]] = []

    async def read_results(self, fan_out_id: str, *, after: int, limit: int) -> list[StoredResult]:
        self.asked.append((fan_out_id, after, limit))
        if self._errors:
            raise self._errors.pop(0)
        return [result for result in self._results if result.index > after][:limit]


def a_result(index: int, payload: bytes | None, status: str = "done") -> StoredResult:
    return StoredResult(index, f"task-{index}", 1, status, payload, datetime(2026, 1, 1, tzinfo=UTC))


class Bench:
    """An executor and what it said. `bound_s`: no wait for it is longer."""

    def __init__(
        self,
        registry: Registry,
        concurrency: int,
        sync_workers: int,
        results: Results | None,
        bound_s: float,
        claim_store: ClaimStore | None,
        claim_bytes_max: int,
        retry_in_place_s: float,
    ) -> None:
        self.metrics = Metrics()
        self.completions: list[Completion] = []
        self.broke: list[BaseException] = []
        self.bound_s = bound_s
        self._said = asyncio.Event()
        self.executor = Executor(
            registry,
            cast("Store", results),
            Parking("g"),
            Patience(),
            self.metrics,
            ClaimChecks(claim_store, Patience("claim store"), bytes_max=claim_bytes_max),
            concurrency=concurrency,
            sync_workers=sync_workers,
            process_workers=2,
            retry_in_place_s=retry_in_place_s,
            finish=self._on_finished,
            failed=self._on_broken,
        )

    def submit(self, *work: Work) -> None:
        for one in work:
            self.executor.submit(one)

    async def finished(self, count: int) -> list[Completion]:
        """The completions, once there are so many."""
        async with asyncio.timeout(self.bound_s):
            while len(self.completions) < count:
                assert not self.broke, self.broke
                self._said.clear()
                await self._said.wait()
        assert len(self.completions) == count
        return self.completions

    async def broken(self) -> BaseException:
        """What a worker broke off over."""
        async with asyncio.timeout(self.bound_s):
            await self._said.wait()
        return self.broke[0]

    async def run(self, work: Work) -> Completion:
        """Submit one and wait for it."""
        before = len(self.completions)
        self.submit(work)
        return (await self.finished(before + 1))[before]

    def sample(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)

    def _on_finished(self, completion: Completion) -> None:
        self.completions.append(completion)
        self._said.set()

    def _on_broken(self, error: BaseException) -> None:
        self.broke.append(error)
        self._said.set()


@asynccontextmanager
async def bench(
    registry: Registry,
    *,
    concurrency: int = 4,
    sync_workers: int = 4,
    results: Results | None = None,
    bound_s: float = BOUND_S,
    claim_store: ClaimStore | None = None,
    claim_bytes_max: int = 2**20,
    retry_in_place_s: float = 1e9,
) -> AsyncIterator[Bench]:
    """An executor that is closed in the end, within a bound."""
    at = Bench(registry, concurrency, sync_workers, results, bound_s, claim_store, claim_bytes_max, retry_in_place_s)
    try:
        yield at
    finally:
        async with asyncio.timeout(bound_s):
            await at.executor.close()


def value(completion: Completion) -> Any:
    """What a task came to, of one that came to something."""
    assert completion.dead_letter is None, completion.dead_letter
    assert not completion.dropped
    assert completion.result is not None
    assert completion.result.payload is not None
    return decode_payload(completion.result.payload)


def failure(completion: Completion) -> DeadLetter:
    """The dead letter of a task that failed for good, and counts as failed."""
    assert not completion.dropped
    assert completion.dead_letter is not None
    assert completion.result is not None
    assert completion.result.failed
    return completion.dead_letter
