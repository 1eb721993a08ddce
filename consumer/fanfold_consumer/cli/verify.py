"""`fanfold replay --verify`: run handlers again without effect, and compare."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import click

from fanfold_consumer.cli.render import note, print_json
from fanfold_consumer.cli.replay_output import reading_progress
from fanfold_consumer.events import configure_logging
from fanfold_consumer.registry import load_handlers
from fanfold_consumer.replay.log_reader import LogReader
from fanfold_consumer.replay.reset import GroupTopic
from fanfold_consumer.replay.verify import DryClaimStore, Verified, Verifier, Wanted
from fanfold_producer.kafka import KafkaConfig
from fanfold_sql import Store


@dataclass(frozen=True, slots=True)
class Verification:
    """What `--verify` was given beside the range."""

    handlers: tuple[str, ...]
    thread_id: str | None
    fan_out_id: str | None
    concurrency: int
    limit: int | None
    sample: int | None
    seed: int
    claim_store: str | None


async def verify(
    kafka: KafkaConfig,
    store: Store,
    at: GroupTopic,
    ranges: Mapping[int, tuple[int, int]],
    asked: Verification,
    as_json: bool,
) -> bool:
    """Verify the tasks of the ranges, print what was found, and return whether all is the same."""
    # What handlers' failures come to is printed below, once; a line for each attempt would bury it.
    configure_logging(json=False, level="critical")
    registry = load_handlers(asked.handlers)
    claim_store = None if asked.claim_store is None else DryClaimStore.open(asked.claim_store)
    wanted = Wanted(
        at.topic,
        at.cluster_id,
        at.topic_id,
        asked.thread_id,
        asked.fan_out_id,
        asked.limit,
        asked.sample,
        asked.seed,
    )
    verifier = Verifier(store, registry, claim_store, wanted, concurrency=asked.concurrency)
    reader = await asyncio.to_thread(LogReader, kafka, at.topic)
    with reader:
        reader.start(ranges)
        with reading_progress(reader) as on_read:
            report = await verifier.run(reader, on_read)
    _print(wanted, ranges, report, as_json)
    return report.is_same


def _print(wanted: Wanted, ranges: Mapping[int, tuple[int, int]], report: Verified, as_json: bool) -> None:
    differing = sum(report.kinds.values())
    if as_json:
        print_json(
            {
                "topic": wanted.topic,
                "mode": "verify",
                "thread_id": wanted.thread_id,
                "fan_out_id": wanted.fan_out_id,
                "ranges": [{"partition": p, "from": low, "to": high} for p, (low, high) in sorted(ranges.items())],
                "records": report.tally.records,
                "repeated": report.tally.repeated,
                "undecodable": report.tally.undecodable,
                "tasks": report.tasks,
                "folds": report.folds,
                "same": report.same,
                "differences_by_kind": dict(report.kinds),
                "differences": [asdict(difference) for difference in report.differences],
                "skipped": dict(report.skipped),
            }
        )
        return
    click.echo(f"{report.tasks} tasks and {report.folds} folds ran again: {report.same} came to what is stored")
    for difference in report.differences:
        click.echo(
            f"{difference.kind}: {difference.at} task {difference.task_id} index {difference.index} "
            f"of fan-out {difference.fan_out_id}, {difference.node}: {difference.what}"
        )
    if differing > len(report.differences):
        note(f"{differing - len(report.differences)} differences more")
    for why, count in report.skipped.items():
        note(f"{count} not compared: {why}")
    note("nothing was committed, published or parked")
