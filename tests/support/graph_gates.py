"""A graph whose mapped node fails until a test opens a gate; see `tests.support.handlers`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.graph_case import map_reduce
from tests.support.handlers import ENV_FOLDER


def fails_until_mended(arg: Any) -> Any:
    if arg["i"] == 1 and not (Path(os.environ[ENV_FOLDER]) / "gate-mended").exists():
        raise ValueError("one is bad")
    return {"found": [arg["i"]]}


graph = map_reduce(fails_until_mended, metadata={"fanfold": {"retries": 1, "backoff": 0.01, "backoff_max": 0.01}})
