"""How much of what a producer published is not done yet: it goes slower when the fleet does, and never stops asking."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

import psycopg

from tests.fault.chaos.plan import Plan

_LOOK_S = 0.3
_ASKED_MAX = 200
_FORGET_S = 60.0


class Outstanding:
    """Fan-outs that must complete, oldest first. Added to by the publishing thread, looked after by the clerk's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._tasks = 0

    @property
    def tasks(self) -> int:
        return self._tasks

    def add(self, plan: Plan) -> None:
        with self._lock:
            if plan.fan_out_id not in self._open:
                self._open[plan.fan_out_id] = time.monotonic(), plan.size
                self._tasks += plan.size

    def look(self, connection: psycopg.Connection[Any]) -> float:
        """A job for the clerk, for ever. What is still open after a minute is left to the checker."""
        with self._lock:
            asked = list(self._open)[:_ASKED_MAX]
        rows = connection.execute(
            "select fan_out_id from fanfold.list_fan_outs(%s::text[], null, null, %s::int4)"
            " where state not in ('open', 'folding')",
            (asked, _ASKED_MAX),
        ).fetchall()
        done = {row[0] for row in rows}
        now = time.monotonic()
        with self._lock:
            done |= {name for name, (since, _) in self._open.items() if now - since > _FORGET_S}
            for name in done:
                self._tasks -= self._open.pop(name, (0.0, 0))[1]
        return _LOOK_S
