"""What the pictures of a report show. Drawing itself needs a library that the benchmarks' environment has."""

from __future__ import annotations

import re

from tests.benchmarks.plots import bars, curves, subtitle
from tests.benchmarks.report import Figure, Ratio, Report

_MACHINE = {
    "broker": "Apache Kafka 4.1.0",
    "postgres": "PostgreSQL 18.4 on some-machine, compiled by gcc, 64-bit",
    "cpu": "2 × one",
    "flush": "112 µs (8 KiB written and flushed, median)",
    "python": "CPython 3.11.7",
    "load": "1.5",
}


def test_the_subtitle_is_what_was_measured_on_in_a_few_words() -> None:
    assert subtitle(_MACHINE) == "2 × one · Apache Kafka 4.1.0 · PostgreSQL 18.4 · flush 112 µs · CPython 3.11.7"


def test_the_subtitle_leaves_out_what_is_not_known() -> None:
    assert subtitle({"cpu": "2 × one"}) == "2 × one"


def test_the_slowest_bar_comes_first_and_says_how_many_times_as_much_the_fleet_did() -> None:
    report = Report.of(
        {},
        [
            Figure("throughput", "fleet, 2 processes", "tasks/s", [30_000.0, 20_000.0, 40_000.0]),
            Figure("throughput", "fleet, 2 processes: CPU of Postgres", "µs/task", [12.0]),
            Figure("throughput", "fleet, 1 process", "tasks/s", [10_000.0]),
            Figure("peers", "another", "tasks/s", [1000.0]),
            Figure("latency", "burst, fleet, 1 process", "tasks/s", [5.0]),
            Ratio("peers", "fleet ÷ another", 26.4, 60, at_most=False),
        ],
    )
    assert bars(report) == [
        ("another", 1000.0, 1000.0, 1000.0, "1,000   fleet ÷ this: 26.4"),
        ("fleet, 2 processes", 30_000.0, 20_000.0, 40_000.0, "30,000"),
    ]


def test_a_curve_has_the_medians_of_its_figures_by_x() -> None:
    pattern = re.compile(r"(?P<curve>\w+) by (?P<x>[\d,]+), (?P<which>p\d+)\Z")
    report = Report.of(
        {},
        [
            Figure("fan_in", "b by 1,000, p50", "ms", [3.0, 1.0, 2.0]),
            Figure("fan_in", "b by 4, p50", "ms", [5.0]),
            Figure("fan_in", "a by 4, p99", "ms", [7.0]),
            Figure("fan_in", "a by 4, total", "ms", [8.0]),
            Figure("growth", "a by 4, p50", "ms", [9.0]),
        ],
    )
    found = curves(report, "fan_in", pattern)
    assert found == {("b", "p50"): [(4, 5.0), (1000, 2.0)], ("a", "p99"): [(4, 7.0)]}
    assert list(found) == [("b", "p50"), ("a", "p99")]


def test_a_report_without_figures_has_no_bars_and_no_curves() -> None:
    report = Report.of({}, [])
    assert bars(report) == []
    assert curves(report, "growth", re.compile("")) == {}
