"""How benchmarks compare and report: the pure parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.benchmarks.measure import interleave, median, percentile, ratio, spread
from tests.benchmarks.report import Figure, Ratio, Report, readable


def _counting(order: list[str], name: str) -> Callable[[], float]:
    numbers = itertools.count(1)

    def once() -> float:
        order.append(name)
        return float(next(numbers))

    return once


def test_every_contender_runs_once_a_round_and_another_one_begins_each_time() -> None:
    order: list[str] = []
    samples = interleave({name: _counting(order, name) for name in "abc"}, 4)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert samples == {name: [1.0, 2.0, 3.0, 4.0] for name in "abc"}


def test_progress_hears_of_each_run_with_its_round() -> None:
    heard: list[tuple[str, int, float]] = []
    interleave({"a": lambda: 1.5, "b": lambda: 2.5}, 2, lambda *told: heard.append(told))
    assert heard == [("a", 0, 1.5), ("b", 0, 2.5), ("b", 1, 2.5), ("a", 1, 1.5)]


def test_no_repetition_is_refused_because_it_gives_no_figure() -> None:
    with pytest.raises(ValueError, match="0 repetitions"):
        interleave({"a": lambda: 1.0}, 0)


def test_a_ratio_is_the_median_of_the_quotients_of_each_round() -> None:
    # A machine at half its speed in the second round: the quotient of the medians would be 15 / 10.
    assert ratio([30.0, 15.0, 12.0], [10.0, 5.0, 12.0]) == 3.0
    assert median([30.0, 15.0, 12.0]) / median([10.0, 5.0, 12.0]) == 1.5


def test_a_ratio_of_unequal_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="2 samples cannot be paired with 1"):
        ratio([1.0, 2.0], [1.0])


def test_the_spread_is_the_smallest_and_the_largest() -> None:
    assert spread([3.0, 1.0, 2.0]) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (99, 99), (99.9, 100), (100, 100), (7, 7), (0.5, 1), (29, 29), (57, 57)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in reversed(range(1, 101))], percent) == expected


def test_the_only_value_is_every_percentile() -> None:
    assert percentile([4.0], 1) == percentile([4.0], 99) == 4.0


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_that_does_not_exist_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="above 0, at most 100"):
        percentile([1.0], percent)


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("value", "bound", "at_most", "holds"),
    [
        (1.5, 1.5, False, True),
        (1.49, 1.5, False, False),
        (0.25, 0.25, True, True),
        (0.26, 0.25, True, False),
        (0.0, None, False, True),
    ],
)
def test_a_bound_is_met_by_what_is_equal_to_it(value: float, bound: float | None, at_most: bool, holds: bool) -> None:
    assert Ratio("part", "a ÷ b", value, bound, at_most).holds is holds


def _report() -> Report:
    return Report.of(
        {"broker": "Apache Kafka 4.1.0", "cpu": "2 × one"},
        [
            "throughput: a note",
            Figure("throughput", "fleet, 2 processes", "tasks/s", [70_000.4, 50_000.0, 90_000.0]),
            Ratio("throughput", "fleet ÷ hand-written, 2 processes", 1.634, 1.5, at_most=False),
            Ratio("fan_in", "cost per result, 10,000-wide ÷ 100-wide", 1.0, 1.2, at_most=True),
        ],
    )


def test_the_last_line_has_medians_and_ratios_and_says_what_was_not_measured() -> None:
    assert _report().last_line == (
        "bench: broker=apache-kafka-4.1.0 throughput=70000 vs_handwritten=1.63 vs_langgraph=n/a of_insert_limit=n/a"
        " fanin100_vs_aput_writes=n/a flat_10k_vs_100=1.00"
    )


def test_a_report_of_nothing_still_has_its_last_line() -> None:
    assert Report.of({}, []).last_line == (
        "bench: broker=n/a throughput=n/a vs_handwritten=n/a vs_langgraph=n/a of_insert_limit=n/a"
        " fanin100_vs_aput_writes=n/a flat_10k_vs_100=n/a"
    )


def test_a_report_comes_back_from_its_json_as_it_was() -> None:
    report = _report()
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (999.4, "999"), (12345.6, "12,346"), (2.0, "2")])
def test_a_figure_is_shown_with_the_digits_that_mean_something(value: float, text: str) -> None:
    assert readable(value) == text
