"""The line at the end of `make prove`: nothing that did not run, or failed, looks as if it had passed."""

from __future__ import annotations

from tests.property.prove import UNAVAILABLE, Ran, read_figures, summary

RAN = {
    "corpus": Ran(0, {"records": 311, "violations": 0}),
    "fuzz_wire": Ran(0, {"execs": 1000, "findings": 0}),
    "machine": Ran(0, {"episodes": 9, "violations": 0}),
    "interleavings": Ran(0, {"schedules": 5719, "violations": 0}),
    "mutants": Ran(0, {"mutants": 34, "killed": 34}),
    "spec_check": Ran(0, {"states": 441_441, "violations": 0}),
    "versions": Ran(0, {"versions": 5, "failures": 0}),
}


def test_the_summary_has_the_figures_of_all_parts() -> None:
    assert summary(RAN) == (
        "prove: corpus=311 fuzz_execs=1000 interleavings=5719 violations=0 mutants=34 killed=34 states=441441"
    )


def test_findings_and_failures_of_any_part_are_violations() -> None:
    found = RAN | {
        "fuzz_wire": Ran(1, {"execs": 9, "findings": 2}),
        "machine": Ran(1, {"violations": 1}),
        "versions": Ran(1, {"failures": 4}),
    }
    assert " violations=7 " in summary(found)


def test_a_part_that_could_not_run_counts_as_nothing() -> None:
    assert summary(RAN | {"spec_check": Ran(UNAVAILABLE, {})}).endswith("killed=34 states=0")


def test_a_part_that_broke_off_is_a_violation() -> None:
    assert " violations=2 " in summary(RAN | {"machine": Ran(1, {}), "mutants": Ran(1, {"mutants": 34, "killed": 33})})


def test_a_line_of_something_else_has_no_figures() -> None:
    assert read_figures("spec_check", "spec: states=5 violations=0") == {"states": 5, "violations": 0}
    assert read_figures("machine", "Traceback: states=5") == {}
    assert read_figures("machine", "machine: states=unknown") == {}
