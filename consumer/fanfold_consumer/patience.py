"""Waiting for stores that are away: the same call again, for ever, with growing waits. Nothing is lost by waiting."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from fanfold_consumer.events import log
from fanfold_producer.errors import ClaimStoreUnavailable
from fanfold_sql import StoreUnavailable

T = TypeVar("T")
WAIT_MIN_S = 0.05
WAIT_MAX_S = 5.0
LOG_EVERY_S = 5.0


class Patience:
    """Repeats calls to a store while it is unavailable; knows whether it is, for /ready. Each store has its own.

    Args:
        store: which one, for the log.
    """

    def __init__(self, store: str = "Postgres") -> None:
        self._store = store
        self._away_since: float | None = None
        self._logged_at = 0.0
        self._answered = asyncio.Event()

    @property
    def store_is_away(self) -> bool:
        return self._away_since is not None

    async def call(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """The function's answer, however long it takes. Only a store that is unavailable is waited out."""
        wait = WAIT_MIN_S
        while True:
            try:
                answer = await function()
            except (StoreUnavailable, ClaimStoreUnavailable) as error:
                self._note_away(what, error)
                # Whoever is answered first ends the wait of all: each has its own, of up to seconds.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._answered.wait(), wait * (0.5 + random.random() / 2))
                wait = min(WAIT_MAX_S, wait * 2)
                continue
            self._note_back()
            return answer

    def _note_away(self, what: str, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
            self._logged_at = 0.0
        if now - self._logged_at >= LOG_EVERY_S or self._logged_at == 0.0:
            self._logged_at = now
            away_s = round(now - self._away_since, 1)
            log.warning("store.unavailable", store=self._store, call=what, error=str(error), away_s=away_s)

    def _note_back(self) -> None:
        if self._away_since is not None:
            away_s = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            self._answered.set()
            self._answered = asyncio.Event()
            log.info("store.recovered", store=self._store, away_s=round(away_s, 1))
