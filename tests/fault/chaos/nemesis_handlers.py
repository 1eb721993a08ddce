"""Handlers of the fan-outs that nemeses publish themselves."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from fanfold_consumer import task
from tests.fault.chaos.member import ENV_FOLDER, HANG_FLAG

ECHO = "nemesis-echo"
SLOW = "nemesis-slow"
SLOW_S = 0.5
HANG = "nemesis-hang"
HANG_SYNC = "nemesis-hang-sync"
HANG_LIMIT_S = 1.0
"""How long a hung handler of ours is let hang before it counts as failed."""

_FLAG = Path(os.environ.get(ENV_FOLDER, ".")) / HANG_FLAG
_POLL_S = 0.02


@task(ECHO)
async def echo(n: int) -> int:
    await asyncio.sleep(_POLL_S)
    return n


@task(SLOW)
async def slow(n: int) -> int:
    await asyncio.sleep(SLOW_S)
    return n


@task(HANG, timeout=HANG_LIMIT_S, retries=0)
async def hang(n: int) -> int:
    while _FLAG.exists():  # noqa: ASYNC110  another process removes it
        await asyncio.sleep(_POLL_S)
    return n


@task(HANG_SYNC, timeout=HANG_LIMIT_S, retries=0)
def hang_sync(n: int) -> int:
    while _FLAG.exists():
        time.sleep(_POLL_S)
    return n
