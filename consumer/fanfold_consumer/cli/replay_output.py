"""What `fanfold replay` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fanfold_consumer.cli.render import make_console, make_table, note, print_json
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.plan import PlannedOffset
from fanfold_consumer.replay.reset import GroupTopic, ResetOutcome
from fanfold_consumer.replay.sift import Selection, Tally
from fanfold_sql import PartitionState

_COLUMNS = ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET"]
_NUMBERS = ["PARTITION", "CURRENT-OFFSET", "NEW-OFFSET"]


def print_dry_run(
    at: GroupTopic, planned: Sequence[PlannedOffset], held: Sequence[PartitionState], as_json: bool
) -> None:
    if as_json:
        live = [{"partition": s.partition, "owner": str(s.owner), "idle_seconds": s.idle_seconds} for s in held]
        print_json(_head(at, executed=False) | {"partitions": [_fields(p) for p in planned], "live": live})
        return
    rows = [[at.group_id, at.topic, p.partition, p.current, p.next_offset, p.note or ""] for p in planned]
    make_console().print(make_table([*_COLUMNS, "NOTE"], rows, right=_NUMBERS))
    if held:
        owners = len({s.owner for s in held})
        note(
            f"note: {owners} live members hold {len(held)} of these partitions; "
            "--execute will refuse unless they stop, or --fence is given"
        )
    note("nothing was changed; repeat with --execute to do it")


def print_executed(
    at: GroupTopic, planned: Sequence[PlannedOffset], outcomes: Sequence[ResetOutcome], as_json: bool
) -> None:
    pairs = list(zip(planned, outcomes, strict=True))
    if as_json:
        partitions = [_fields(p) | {"outcome": o.word, "detail": o.detail} for p, o in pairs]
        print_json(_head(at, executed=True) | {"partitions": partitions, "live": []})
    else:
        rows = [
            [at.group_id, at.topic, p.partition, p.current, p.next_offset, o.word, o.detail or p.note or ""]
            for p, o in pairs
        ]
        make_console().print(make_table([*_COLUMNS, "OUTCOME", "NOTE"], rows, right=_NUMBERS))
    undone = [o for o in outcomes if o.word in ("claimed", "unknown")]
    if undone:
        note(
            f"{len(undone)} of {len(outcomes)} partitions were not reset, or it is unknown whether they "
            "were; the others are. Look with `fanfold status`, then repeat (with --to-offset instead of --shift-by, "
            "which would count twice)"
        )


def print_tally(
    topic: str,
    selection: Selection,
    ranges: Mapping[int, tuple[int, int]],
    tally: Tally,
    executed: bool,
    as_json: bool,
) -> None:
    if as_json:
        print_json(
            {
                "topic": topic,
                "mode": "rerun" if selection.rerun else "repair",
                "thread_id": selection.thread_id,
                "executed": executed,
                "ranges": [{"partition": p, "from": low, "to": high} for p, (low, high) in sorted(ranges.items())],
                "records": tally.records,
                "other_threads": tally.other_threads,
                "undecodable": tally.undecodable,
                "folds": tally.folds,
                "repeated": tally.repeated,
                "stale": tally.stale,
                "conflicts": tally.conflicts,
                "tasks": tally.tasks,
                "fan_outs": len(tally.fan_out_ids),
                "queued": tally.queued,
            }
        )
        return
    if executed:
        how = "with a new run" if selection.rerun else "as they were"
        said = f"{tally.queued} tasks of {len(tally.fan_out_ids)} fan-outs were queued {how}"
    else:
        what = "would run again" if selection.rerun else "would be published again (what is committed is recognised)"
        said = f"{tally.tasks} tasks of {len(tally.fan_out_ids)} fan-outs {what}"
    print(said)
    skipped = {
        "of other threads": tally.other_threads,
        "could not be decoded": tally.undecodable,
        "are folds, which follow by themselves": tally.folds,
        "are repetitions": tally.repeated,
        "are stale, because their thread moved on": tally.stale,
        "contradict what is stored": tally.conflicts,
    }
    note(f"{tally.records} records were read from {topic}")
    for why, count in skipped.items():
        if count:
            note(f"  {count} {why}")
    if not executed:
        note("nothing was changed; repeat with --execute to do it")


@contextmanager
def reading_progress(reader: LogReader) -> Iterator[Callable[[Tally], None]]:
    """A progress bar on stderr while the log is read, if that is a terminal."""
    console = Console(stderr=True)
    total = reader.offsets_left
    with Progress(
        TextColumn("reading"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("reading", total=total)
        yield lambda _tally: progress.update(bar, completed=total - reader.offsets_left)


def _head(at: GroupTopic, *, executed: bool) -> dict[str, object]:
    return {
        "group": at.group_id,
        "topic": at.topic,
        "cluster_id": at.cluster_id,
        "topic_id": at.topic_id,
        "executed": executed,
    }


def _fields(planned: PlannedOffset) -> dict[str, object]:
    fields: dict[str, object] = {
        "partition": planned.partition,
        "current_offset": planned.current,
        "new_offset": planned.next_offset,
        "log_start_offset": planned.log.low,
        "log_end_offset": planned.log.high,
        "note": planned.note,
    }
    if planned.given_up is not None:
        fields["given_up"] = [list(offsets) for offsets in planned.given_up]
    return fields
