from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from tests.benchmarks.collisions import last_line, table
from tests.benchmarks.contenders.fan_in_client import give_each_task_a_clock, put_clock_ahead
from tests.benchmarks.report import Figure, Ratio, Report

_OF_ONE_WAY = ("lost", "first-try rejections", "mean write", "p50", "p99")


def test_the_last_line_counts_what_ours_lost_in_any_round_and_takes_the_median_of_what_others_did() -> None:
    report = Report.of(
        {},
        [
            _figure("stock saver, naive: lost", [99.0, 98.0, 99.0]),
            _figure("advisory lock + stock saver: lost", [7.0, 7.0, 7.0]),
            _figure("advisory lock + stock saver, 10 ms skew: lost", [33.0, 33.0, 33.0]),
            _figure("FanfoldSaver, locked: lost", [0.0, 0.0, 1.0]),
            _figure("FanfoldSaver, refused first, 10 ms skew: lost", [2.0, 0.0, 0.0]),
            _figure("commit path by 4 members: lost", [0.0, 0.0, 0.0]),
            _figure("commit path by 4 members, 10 ms skew: lost", [0.0, 3.0, 0.0]),
            _figure("commit path by 4 members: p99", [13.24, 12.0, 20.0]),
            _ratio("aput_writes", 0.204),
            _ratio("advisory lock + stock saver", 0.025),
        ],
    )
    assert last_line(report) == (
        "collisions: workers=100 lost=1 skew_lost=5 p99_ms=13.2 vs_aput_writes=0.20 vs_lock_saver=0.03 naive_lost=99"
    )


def test_the_last_line_says_what_was_not_measured() -> None:
    assert last_line(Report.of({}, [])) == (
        "collisions: workers=100 lost=n/a skew_lost=n/a p99_ms=n/a vs_aput_writes=n/a vs_lock_saver=n/a naive_lost=n/a"
    )


def test_the_table_has_a_line_for_each_way_of_which_everything_was_measured() -> None:
    measured = [_figure(f"aput_writes: {what}", [1.0]) for what in _OF_ONE_WAY]
    broken_off = [_figure(f"FanfoldSaver, locked: {what}", [1.0]) for what in _OF_ONE_WAY[:-1]]
    assert table(Report.of({}, measured + broken_off)).row_count == 1


def test_each_worker_has_the_time_of_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for clock in ("time", "time_ns"):
        monkeypatch.setattr(time, clock, getattr(time, clock))
    give_each_task_a_clock()

    async def times(ahead_ms: float) -> tuple[float, float]:
        put_clock_ahead(ahead_ms)
        await asyncio.sleep(0)
        # datetime asks the system itself.
        true = datetime.now(UTC).timestamp()
        return time.time() - true, await asyncio.to_thread(time.time_ns) / 1e9 - true

    async def together() -> tuple[tuple[float, float], tuple[float, float]]:
        return await asyncio.gather(times(60_000.0), times(0.0))

    ahead, right = asyncio.run(together())
    assert ahead == pytest.approx((60, 60), abs=10)
    assert right == pytest.approx((0, 0), abs=10)


def _figure(name: str, values: list[float]) -> Figure:
    return Figure("collisions", f"100 workers, {name}", "", values)


def _ratio(way: str, value: float) -> Ratio:
    return Ratio("collisions", f"100 workers, commit path by 4 members p99 ÷ {way} p99", value, 1.0, at_most=True)
