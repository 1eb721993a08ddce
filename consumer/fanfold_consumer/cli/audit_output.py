"""What `fanfold audit` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fanfold_consumer.audit import Finding, Report, Scope
from fanfold_consumer.audit.findings import STATES
from fanfold_consumer.cli.render import note, print_json
from fanfold_consumer.replay.log_reader import LogReader


def print_report(scope: Scope, report: Report, as_json: bool) -> None:
    """Counts first, then the findings by fan-out; notes on stderr."""
    if as_json:
        print_json(_fields(scope, report))
        return
    totals = ", ".join(
        (
            f"{sum(report.tasks.values())} tasks of {report.fan_outs} fan-outs",
            f"{sum(report.folds.values())} folds",
            f"{sum(report.undecodable.values())} undecodable",
            f"{report.repeated} repetitions",
        )
    )
    lines = [f"{report.records} records of {scope.topic}: {totals}"]
    for state in STATES:
        counts = (report.tasks[state], report.folds[state], report.undecodable[state])
        if any(counts):
            parts = zip(counts, ("tasks", "folds", "undecodable"), strict=True)
            lines.append(f"  {state:<12}" + ", ".join(f"{count} {what}" for count, what in parts if count))
    for fan_out_id, findings in _by_fan_out(report.findings):
        lines += _fan_out_lines(fan_out_id, findings)
    click.echo("\n".join(lines))
    for text in report.notes:
        note(f"note: {text}")
    hidden = sum(report.kinds.values()) - len(report.findings)
    if hidden:
        note(f"{hidden} findings more; --limit shows them")
    if report.not_followed:
        note(f"{report.not_followed} tasks more have no result either, and were not followed up: audit a later range")
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.most_common())
    note(f"not accounted for: {kinds or 'see above'}" if not report.is_clean else "everything is accounted for")


@contextmanager
def show_progress(scope: Scope) -> Iterator[Callable[[LogReader], None]]:
    """A bar on stderr while the log is read, if that is a terminal."""
    console = Console(stderr=True)
    total = sum(high - low for low, high in scope.ranges.values())
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("reading", total=total)
        yield lambda reader: progress.update(bar, completed=total - reader.offsets_left)


def _by_fan_out(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """What is about no fan-out comes last."""
    ordered = sorted(findings, key=lambda finding: (finding.fan_out_id is None, finding.fan_out_id or ""))
    for fan_out_id, group in groupby(ordered, key=lambda finding: finding.fan_out_id or ""):
        yield fan_out_id, list(group)


def _fan_out_lines(fan_out_id: str, findings: Sequence[Finding]) -> list[str]:
    kinds = [finding.kind for finding in findings]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    whose = f"fan-out {fan_out_id} of thread {findings[0].thread_id}" if fan_out_id else "of no known fan-out"
    lines = [f"{whose}: {counts}"]
    for finding in findings:
        where = [] if finding.at is None else [finding.at]
        where += [] if finding.task_id is None else [f"task {finding.task_id}"]
        where += [] if finding.index is None else [f"index {finding.index}"]
        lines.append(f"  {finding.kind}: {' '.join([*where, ''])}{finding.what}")
    # One line for all that the same is to be done about: a thread's missing tasks are published by one command.
    lines += [f"    {text}" for text in dict.fromkeys(finding.do for finding in findings)]
    return lines


def _fields(scope: Scope, report: Report) -> dict[str, Any]:
    return {
        "topic": scope.topic,
        "cluster_id": scope.cluster_id,
        "topic_id": scope.topic_id,
        "groups": scope.passed.groups,
        "ranges": [
            {"partition": p, "from": low, "to": high, "next_offsets": scope.passed.next_offsets(p)}
            for p, (low, high) in sorted(scope.ranges.items())
        ],
        "thread_id": scope.thread_id,
        "fan_out_id": scope.fan_out_id,
        "whole": scope.incomplete is None,
        "accounted_for": report.is_clean,
        "records": report.records,
        "repeated": report.repeated,
        "fan_outs": report.fan_outs,
        "tasks": {state: report.tasks[state] for state in STATES},
        "folds": {state: report.folds[state] for state in STATES},
        "undecodable": {state: report.undecodable[state] for state in STATES},
        "findings_by_kind": dict(report.kinds),
        "findings": [asdict(finding) for finding in report.findings],
        "not_followed": report.not_followed,
        "notes": report.notes,
    }
