"""Random batches against the oracle: every batch must equal some order of single commits, in answers and in tables.

FANFOLD_TEST_SEED names another run of them, FANFOLD_TEST_BUDGET_S a longer one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from tests.sql.episodes import mixed, play, quorums
from tests.sql.support import FanOutSpec, Tables, Worker, assert_invariants

_SEED = os.environ.get("FANFOLD_TEST_SEED", "1")
_BUDGET_S = float(os.environ.get("FANFOLD_TEST_BUDGET_S", "7"))
_EPISODES_MIN = 40


@pytest.mark.timeout(60 + _BUDGET_S)
@pytest.mark.parametrize("universe", [mixed, quorums])
def test_random_batches_equal_an_order_of_single_commits(
    worker: Worker, tables: Tables, universe: Callable[[random.Random, str], list[FanOutSpec]]
) -> None:
    deadline = time.monotonic() + _BUDGET_S
    episode = 0
    while episode < _EPISODES_MIN or time.monotonic() < deadline:
        play(random.Random(f"{_SEED}/{episode}"), worker, tables, f"s{_SEED}-e{episode}", universe)
        episode += 1
        if episode % 20 == 0:
            assert_invariants(tables.connection)
