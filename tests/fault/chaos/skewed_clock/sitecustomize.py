"""Put first on PYTHONPATH, this makes a Python process believe that it is FANFOLD_CHAOS_CLOCK_S seconds later.

Imported by the interpreter before anything else, so that no module has taken the real clock yet. The monotonic clock
stays as it is: so does that of a machine whose wall clock is wrong.
"""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

_SKEW_S = float(os.environ.get("FANFOLD_CHAOS_CLOCK_S", "0"))
_time, _time_ns = time.time, time.time_ns


def _skewed_time() -> float:
    return _time() + _SKEW_S


def _skewed_time_ns() -> int:
    return _time_ns() + int(_SKEW_S * 1_000_000_000)


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(_skewed_time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)


time.time, time.time_ns = _skewed_time, _skewed_time_ns
vars(datetime)["datetime"] = _Datetime
