"""The verdict on a campaign, once faults are off and everything had time to complete."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import chain

import psycopg

from tests.fault.chaos import guarantees
from tests.fault.chaos.evidence import Evidence, end_offsets, gather
from tests.fault.chaos.finding import Finding
from tests.fault.chaos.judge import judge
from tests.fault.chaos.world import World

_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and the counters of a campaign's last line. `checked`: fan-outs and records that had to end in a
    certain way, by kind."""

    findings: list[Finding]
    checked: Counter[str]
    tasks: int
    redelivered: int
    ambiguous: int

    def count(self, sort: str) -> int:
        return sum(finding.count for finding in self.findings if finding.sort == sort)


def settle(world: World, timeout_s: float) -> list[Finding]:
    """Wait until nothing is on its way: lag 0, an empty outbox, no deadline to come. What is left is stuck."""
    deadline = time.monotonic() + timeout_s
    while (left := _on_its_way(world)) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return [Finding(14, "stuck", f"{what} {timeout_s:g} s after the last fault") for what in left]


def check(world: World) -> Verdict:
    evidence = gather(
        world.folder, world.stack.owner_dsn, world.stack.kafka.direct_bootstrap, world.topics, world.group
    )
    with psycopg.connect(world.stack.owner_dsn, autocommit=True) as connection:
        page = list(guarantees.check_page(connection))
    findings = chain(
        page,
        judge(evidence),
        guarantees.check_witness(evidence),
        guarantees.check_notes(evidence),
        guarantees.check_log(evidence),
        guarantees.check_conflicts(evidence),
        guarantees.check_extra(evidence),
        guarantees.check_nemesis_work(evidence),
    )
    ambiguous = sum(number == 0 for number, _ in evidence.seen)
    return Verdict(list(findings), _checked(evidence), evidence.tasks, _redelivered(evidence), ambiguous)


def fingerprint(world: World) -> str:
    """Of all results: a replay of committed work must leave it as it is (12)."""
    query = """select md5(string_agg(concat_ws(' ', thread_id, task_id, index, run, status, md5(payload), committed_at),
        ',' order by thread_id, task_id)) from fanfold.result"""
    return str(world.stack.postgres.rows(query)[0][0])


def _checked(evidence: Evidence) -> Counter[str]:
    kinds: Counter[str] = Counter(
        published.plan.way if published.plan.way in ("enqueue", "rolled_back") else published.plan.kind
        for published in evidence.published.values()
        if published.plan.way == "rolled_back" or evidence.kept(published)
    )
    kinds["garbage"] = sum(garbage["acked"] for garbage in evidence.garbage.values())
    kinds["forged"] = sum(
        forged["acked"] and evidence.history.kept(forged["mark"]) for forged in evidence.forged.values()
    )
    return kinds


def _redelivered(evidence: Evidence) -> int:
    """Attempts of a handler beyond the first of each task, run and attempt."""
    begins = Counter(
        (note.task_id, note.run, note.attempt) for note in evidence.notes if note.what in ("begin", "fold")
    )
    return sum(count - 1 for count in begins.values())


def _on_its_way(world: World) -> list[str]:
    rows = world.stack.postgres.rows(
        "select topic, partition, next_offset, islands::text from fanfold.partition_progress"
        " where group_id = %s and topic = any (%s)",
        (world.group, list(world.topics)),
    )
    progress = {(topic, partition): (next_offset or 0, islands) for topic, partition, next_offset, islands in rows}
    left = []
    for topic in world.topics:
        for partition, end in end_offsets(world.stack.kafka.direct_bootstrap, topic).items():
            next_offset, islands = progress.get((topic, partition), (0, "{}"))
            if next_offset < end:
                left.append(f"{topic}-{partition} is at {next_offset} {islands} of {end}")
    for table in ("outbox", "deadline"):
        waiting = world.stack.postgres.rows(f"select count(*) from fanfold.{table}")[0][0]
        if waiting:
            left.append(f"{waiting} rows in fanfold.{table}")
    return left
