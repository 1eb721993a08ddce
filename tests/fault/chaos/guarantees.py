"""The fifteen guarantees, each against all there is to know, apart from what became of single fan-outs (`judge.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg

from fanfold_schemas import SchemaError, Task, decode_task, pack_headers
from tests.fault.chaos.evidence import Evidence, Record
from tests.fault.chaos.finding import Finding, Sort
from tests.fault.chaos.plan import Plan
from tests.fault.chaos.world import NEMESIS_PREFIX
from tests.support.tree import ROOT

Findings = Iterator[Finding]
_PAGE = ROOT / "docs/guarantees.md"
_DUPLICATES = (1, 2, 3)
"""Of these guarantees, a row that a query finds is an effect counted twice or not at all."""


def page_queries() -> list[tuple[int, str]]:
    """The queries of docs/guarantees.md with the number of their guarantee.

    Where they give a fleet five minutes, nothing is given: they are asked when nothing is on its way any more.
    """
    queries = []
    number = 0
    for heading, query in re.findall(r"^## (\d+)\.|```sql\n(.*?)```", _PAGE.read_text(), re.DOTALL | re.MULTILINE):
        if heading:
            number = int(heading)
        elif "looked" not in query:  # of two looks at progress the witness takes as many as there are commits
            queries.append((number, query.replace("interval '5 minutes'", "interval '0 seconds'")))
    return queries


def check_page(connection: psycopg.Connection) -> Findings:
    """As the owner: whatever a query of the page finds is a finding."""
    for number, query in page_queries():
        for row in connection.execute(query.encode()).fetchall():
            if NEMESIS_PREFIX + "lost" in str(row):
                continue  # its log was deleted under it
            sort: Sort = "duplicate" if number in _DUPLICATES else "stuck" if number == 14 else "wrong"
            yield Finding(number, sort, f"the page's query found {row}")


def check_witness(evidence: Evidence) -> Findings:
    """6, 7, 8 and second effects: what the triggers wrote down as it happened."""
    for number, what in evidence.seen:
        if number:
            yield Finding(number, "duplicate" if number in _DUPLICATES else "wrong", what)


def check_notes(evidence: Evidence) -> Findings:
    """4: no handler of a fold was ever given what no fold may be given."""
    for note in evidence.notes:
        if note.what == "bad":
            yield Finding(4, "wrong", f"fold of {note.detail['fan_out_id']} was given {note.detail['indexes']}")


def check_log(evidence: Evidence) -> Findings:
    """5: every valid record below next_offset has a result, a refusal or a dead letter. 11: dead letters are what was
    written. 14: nothing is left above next_offset."""
    letters = {(letter.topic, letter.partition, letter.offset): letter for letter in evidence.letters}
    for record in evidence.log:
        at = record.topic, record.partition, record.offset
        letter = letters.get(at)
        if letter is not None:
            written = record.key, record.value, pack_headers(record.headers)
            if (letter.key, letter.value, letter.headers) != written:
                yield Finding(11, "wrong", f"the dead letter of {at} is not what was written")
            continue
        next_offset, islands = evidence.progress.get(at[:2], (0, "{}"))
        if record.offset >= next_offset:
            yield Finding(14, "stuck", f"the record at {at} is above next_offset {next_offset} {islands}")
            continue
        task = _task(record)
        if task is None:
            yield Finding(11, "lost", f"the record at {at} does not decode and was not parked")
        elif not _answered(evidence, task):
            yield Finding(5, "lost", f"task {task.task_id} of {task.fan_out.id} at {at} has neither result nor refusal")


def check_conflicts(evidence: Evidence) -> Findings:
    """9: another arg under the task_id of a task that was done is parked. 11: so is what does not decode."""
    conflicts = {letter.task_id for letter in evidence.letters if letter.code == "E_CONFLICT"}
    for name, forged in evidence.forged.items():
        task_id = name.removeprefix("forged-")
        if forged["acked"] and evidence.history.kept(forged["mark"]) and task_id not in conflicts:
            yield Finding(9, "wrong", f"another arg was published for task {task_id}, and not parked")
    parked = {letter.key: letter for letter in evidence.letters}
    for name, garbage in evidence.garbage.items():
        letter = parked.get(name.encode())
        if garbage["acked"] and letter is None:
            yield Finding(11, "lost", f"{name} was acknowledged and is not among the dead letters")
        elif letter is not None and letter.value != bytes.fromhex(garbage["value"]):
            yield Finding(11, "wrong", f"{name} was parked as something else than was published")


def check_extra(evidence: Evidence) -> Findings:
    """5: nothing is there that nobody published."""
    known = set(evidence.published)
    for published in evidence.published.values():
        known.update(child.fan_out_id for child in published.plan.child_plans())
    for fan_out_id in evidence.fan_outs.keys() | evidence.results.keys():
        if fan_out_id not in known and not fan_out_id.startswith(NEMESIS_PREFIX):
            yield Finding(5, "wrong", f"nobody published fan-out {fan_out_id}")
    never = {name for name, p in evidence.published.items() if p.plan.way == "rolled_back"}
    in_log: dict[str, set[int]] = {}
    for record in evidence.log:
        task = _task(record)
        if task is not None and task.index >= 0:
            in_log.setdefault(task.fan_out.id, set()).add(task.index)
    for fan_out_id in never & in_log.keys():
        yield Finding(5, "wrong", f"fan-out {fan_out_id} of a transaction that was rolled back is in the log")
    for fan_out_id, published in evidence.published.items():
        plan: Plan = published.plan
        written = len(in_log.get(fan_out_id, ()))
        if plan.way == "atomic" and written not in (0, plan.size):
            yield Finding(
                5, "wrong", f"{written} of {plan.size} tasks of an atomic fan-out {fan_out_id} are in the log"
            )


def check_nemesis_work(evidence: Evidence) -> Findings:
    """14: what nemeses published themselves; its name says what is to become of it."""
    for fan_out_id, row in evidence.fan_outs.items():
        if not fan_out_id.startswith(NEMESIS_PREFIX):
            continue
        label = fan_out_id.removeprefix(NEMESIS_PREFIX).partition("-")[0]
        if label in ("done", "failed") and row.state != "done":
            yield Finding(14, "stuck", f"{fan_out_id} is {row.state} and had to be folded")
        if label == "aborted":
            yield Finding(5, "wrong", f"{fan_out_id} was never committed to the log, and is {row.state}")


def _task(record: Record) -> Task | None:
    try:
        return decode_task(record.value or b"")
    except SchemaError:
        return None


def _answered(evidence: Evidence, task: Task) -> bool:
    """Whether a task has a result, or its fan-out takes none any more, or its thread has moved on."""
    rows = evidence.results.get(task.fan_out.id, {})
    row = rows.get(task.index)
    if row is not None and row.run >= task.run:
        return True
    clock = evidence.clocks.get(task.thread_id, {})
    if any(clock.get(branch, 0) > counter for branch, counter in task.base.items()):
        return True
    fan_out = evidence.fan_outs.get(task.fan_out.id)
    if fan_out is None or fan_out.state in ("open", "folding"):
        # A fold that came from a timeline that is gone is refused while its fan-out is not complete.
        return task.is_fold and fan_out is None
    takes_no_more = fan_out.state in ("cancelled", "failed")
    return takes_no_more or task.is_fold or task.fan_out.quorum is not None or task.fan_out.deadline_ms is not None
