"""The checker against campaigns that went wrong: whatever it is there to find, it finds; and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import pytest

from fanfold_schemas import derive_task_id, pack_headers
from tests.fault.chaos import guarantees
from tests.fault.chaos.evidence import Evidence, FanOutRow, Letter, Published, Record, Row
from tests.fault.chaos.finding import Finding
from tests.fault.chaos.judge import judge
from tests.fault.chaos.marks import History
from tests.fault.chaos.notes import Note
from tests.fault.chaos.plan import ALWAYS, Plan, tally_of

PLAN = Plan("f", "t", "topic", 4)
HISTORY = History("00000002", {"00000001": 1000})
KEPT, GONE = ["00000001", 900], ["00000001", 1100]


def evidence_of(plan: Plan, *, state: str = "done", mark: list[object] | None = None) -> Evidence:
    """A campaign of one fan-out, in which all went well."""
    values = plan.values()
    rows: dict[int, Row] = {}
    for index, send in enumerate(plan.sends()):
        failed = send.arg.get("fails") == ALWAYS
        rows[index] = Row(
            derive_task_id(plan.fan_out_id, index), 1, "failed" if failed else "done", None if failed else values[index]
        )
    failed_indexes = [index for index, row in rows.items() if row.status == "failed"]
    fold = tally_of((values[index] for index in sorted(values)), failed_indexes, [])
    rows[-1] = Row("fold", 1, "done", fold)
    built = plan.build()
    log = [
        Record("topic", 0, offset, record.key, record.value, list(record.headers))
        for offset, record in enumerate(built.records)
    ]
    return Evidence(
        history=HISTORY,
        published={plan.fan_out_id: Published(plan, None, True, mark)},
        garbage={},
        forged={},
        fan_outs={plan.fan_out_id: FanOutRow(plan.thread_id, plan.size, state, None)},
        results={plan.fan_out_id: rows},
        clocks={plan.thread_id: dict(plan.base or {})},
        letters=[],
        progress={("topic", 0): (plan.size, "{}")},
        seen=[],
        notes=[],
        log=log,
    )


def findings(evidence: Evidence) -> list[Finding]:
    checks: list[Callable[[Evidence], Iterator[Finding]]] = [
        judge,
        guarantees.check_witness,
        guarantees.check_notes,
        guarantees.check_log,
        guarantees.check_conflicts,
        guarantees.check_extra,
        guarantees.check_nemesis_work,
    ]
    return list(chain.from_iterable(check(evidence) for check in checks))


def sorts(evidence: Evidence) -> set[tuple[int, str]]:
    return {(finding.guarantee, finding.sort) for finding in findings(evidence)}


def without(evidence: Evidence, *indexes: int) -> Evidence:
    rows = {index: row for index, row in evidence.results["f"].items() if index not in indexes}
    return replace(evidence, results={"f": rows})


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, way="records"),
        replace(PLAN, poisoned=2),
        replace(PLAN, poisoned=2, max_failures=2),
        replace(PLAN, flaky=3),
    ],
)
def test_a_campaign_that_went_well_has_no_findings(plan: Plan) -> None:
    assert findings(evidence_of(plan)) == []


def test_a_result_that_is_missing_is_lost() -> None:
    assert {(5, "lost"), (4, "wrong")} <= sorts(without(evidence_of(PLAN), 2))


def test_a_fan_out_of_which_there_is_nothing_is_lost_in_full_and_stuck() -> None:
    evidence = replace(evidence_of(PLAN), fan_outs={}, results={})
    lost = [finding for finding in findings(evidence) if finding.sort == "lost"]
    assert max(finding.count for finding in lost) == PLAN.size
    assert (14, "stuck") in sorts(evidence)


def test_a_fold_that_is_missing_is_lost() -> None:
    assert sorts(without(evidence_of(PLAN), -1)) == {(4, "lost")}


def test_a_fold_of_other_values_is_wrong() -> None:
    evidence = evidence_of(PLAN)
    evidence.results["f"][-1] = Row("fold", 1, "done", tally_of([], [], []))
    assert sorts(evidence) == {(4, "wrong")}


def test_a_result_of_another_task_is_wrong() -> None:
    evidence = evidence_of(PLAN)
    rows = evidence.results["f"]
    rows[0], rows[1] = replace(rows[0], value=rows[1].value), replace(rows[1], value=rows[0].value)
    assert (1, "wrong") in sorts(evidence)


def test_a_task_that_failed_without_a_reason_is_wrong() -> None:
    evidence = evidence_of(PLAN)
    evidence.results["f"][3] = replace(evidence.results["f"][3], status="failed", value=None)
    assert (1, "wrong") in sorts(evidence)


def test_what_was_not_acknowledged_may_be_missing_in_part() -> None:
    evidence = without(evidence_of(replace(PLAN, way="records", fold=None), state="open"), 2, -1)
    evidence.published["f"].acked = False
    assert findings(replace(evidence, log=[*evidence.log[:2], evidence.log[3]])) == []


def test_an_atomic_fan_out_is_never_in_the_log_in_part() -> None:
    evidence = evidence_of(PLAN)
    evidence.published["f"].acked = False
    assert (5, "wrong") in sorts(replace(evidence, log=evidence.log[:2]))


@pytest.mark.parametrize(("mark", "lost"), [(KEPT, True), (GONE, False), (None, False)])
def test_what_the_standby_never_had_of_a_callers_own_transaction_is_not_lost(
    mark: list[object] | None, lost: bool
) -> None:
    evidence = replace(evidence_of(replace(PLAN, way="enqueue"), mark=mark), fan_outs={}, results={}, log=[])
    assert bool(findings(evidence)) is lost


def test_a_transaction_that_was_rolled_back_leaves_nothing() -> None:
    assert (5, "wrong") in sorts(evidence_of(replace(PLAN, way="rolled_back")))


@pytest.mark.parametrize(("mark", "wrong"), [(KEPT, True), (GONE, False)])
def test_work_from_a_stale_base_must_leave_nothing_unless_a_failover_took_the_newer_base_back(
    mark: list[object], wrong: bool
) -> None:
    evidence = evidence_of(replace(PLAN, kind="stale", base={"main": 1}))
    evidence.published["f"].relies_on = mark
    assert ((10, "wrong") in sorts(evidence)) is wrong


def test_a_quorum_takes_no_more_than_it_needs() -> None:
    assert (4, "wrong") in sorts(evidence_of(replace(PLAN, kind="quorum", quorum=2)))


def test_too_many_failures_must_end_a_fan_out_without_a_fold() -> None:
    evidence = evidence_of(replace(PLAN, kind="failures", poisoned=2, max_failures=1))
    assert {(14, "wrong"), (4, "wrong")} == sorts(evidence)


def test_an_acknowledged_cancel_stands() -> None:
    evidence = evidence_of(replace(PLAN, kind="cancelled"))
    evidence.published["f"].cancels.append(("cancelled", KEPT))
    assert (14, "wrong") in sorts(evidence)


def test_a_fan_out_that_a_task_opened_must_be_done() -> None:
    evidence = evidence_of(replace(PLAN, children=3))
    assert (5, "lost") in sorts(evidence)


def test_a_fan_out_that_nobody_published_is_found() -> None:
    evidence = evidence_of(PLAN)
    evidence.fan_outs["g"] = FanOutRow("t", 1, "done", None)
    assert sorts(evidence) == {(5, "wrong")}


def test_a_fold_that_was_given_different_inputs_is_found() -> None:
    notes = [Note(0.0, 1, "fold", "x", 1, 1, {"fan_out_id": "f", "digest": digest}) for digest in ("a", "b")]
    assert sorts(replace(evidence_of(PLAN), notes=notes)) == {(4, "wrong")}


def test_a_record_above_next_offset_is_stuck() -> None:
    assert sorts(replace(evidence_of(PLAN), progress={("topic", 0): (3, "{}")})) == {(14, "stuck")}


def test_a_record_that_does_not_decode_must_be_parked_as_it_was() -> None:
    evidence = evidence_of(PLAN)
    bad = Record("topic", 0, 4, b"k", b"\xc1", [("h", b"v")])
    evidence = replace(evidence, log=[*evidence.log, bad], progress={("topic", 0): (5, "{}")})
    assert sorts(evidence) == {(11, "lost")}
    letter = Letter("topic", 0, 4, "E_FRAME", None, b"k", b"\xc1", pack_headers([("h", b"v")]))
    assert findings(replace(evidence, letters=[letter])) == []
    assert sorts(replace(evidence, letters=[replace(letter, headers=None)])) == {(11, "wrong")}


def test_another_arg_under_a_task_id_must_be_parked() -> None:
    task_id = derive_task_id("f", 0)
    forged = {f"forged-{task_id}": {"acked": True, "mark": KEPT, "fan_out_id": "f"}}
    evidence = replace(evidence_of(PLAN), forged=forged)
    assert sorts(evidence) == {(9, "wrong")}
    letter = Letter("topic", 0, 9, "E_CONFLICT", task_id, None, None, None)
    assert findings(replace(evidence, letters=[letter])) == []


def test_what_the_witness_saw_is_found_but_a_commit_made_again_is_none() -> None:
    assert sorts(replace(evidence_of(PLAN), seen=[(0, "again"), (1, "second"), (7, "commit")])) == {
        (1, "duplicate"),
        (7, "wrong"),
    }
