"""`fanfold audit` beside a fleet that works: whatever is on its way at that moment, it finds nothing that is not so."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from fanfold_consumer import Registry, RetryAfter, Send, Sends, TaskContext
from fanfold_sql import Store
from tests.integration.test_audit import audited, operator
from tests.support.kafka import Topic
from tests.support.operator import Operator
from tests.support.rig import Rig
from tests.support.wait import eventually

__all__ = ["operator"]


def declared(gate: threading.Event) -> Registry:
    """Handlers that succeed, fail, ask for more, and, until the gate opens, wait or ask to be tried again later."""
    registry = Registry()

    @registry.task("square")
    async def square(n: int) -> int:
        return n * n

    @registry.task("fail", retries=0)
    async def fail(n: int) -> int:
        raise ValueError(n)

    @registry.task("hold")
    async def hold(n: int) -> int:
        while not gate.is_set():  # noqa: ASYNC110  it is opened by another thread
            await asyncio.sleep(0.01)
        return n

    @registry.task("later", retries=10_000)
    async def later(n: int, context: TaskContext) -> int:
        if not gate.is_set():
            raise RetryAfter(0.1)
        return n

    @registry.task("fork")
    async def fork(n: int) -> Sends:
        return Sends([Send("square", i) for i in range(n)], fold="sum", value=n)

    return registry


@pytest.mark.needs_real_kafka("the embedded broker has no transactions, without which a fan-out may be there in part")
def test_an_audit_beside_a_working_fleet_finds_nothing(operator: Operator, rig: Rig, topic: Topic) -> None:
    gate = threading.Event()
    member = rig.start_here(topic, registry=declared(gate), concurrency=8, retry_in_place_s=0.0)
    sends = [[Send(node, n) for n in range(1, 7)] for node in ("square", "fail", "later", "fork")]
    rig.publish(topic, [Send("hold", n) for n in range(3)], thread_id="held", fold="sum")
    beside = []
    for round_ in range(3):
        for kind, same in enumerate(sends):
            rig.publish(topic, same, thread_id=f"t{round_}-{kind}", fold="count")
        quorum = rig.build(topic, [Send("square", n) for n in range(6)], thread_id=f"q{round_}", quorum=3)
        rig.write([*quorum.records, *quorum.records])
        cancelled = rig.publish(topic, sends[2], thread_id=f"c{round_}", fold="count")
        rig.store(partial(Store.cancel_fan_out, fan_out_id=cancelled.fan_out_id, thread_id=f"c{round_}"))
        topic.send([b"no task at all"])
        beside.append(audited(operator, topic))
    gate.set()
    folded = "select from fanfold.fan_out where fold is not null and folded_at is null and cancelled_at is null"
    eventually(lambda: not rig.rows(folded) and not rig.rows("select from fanfold.outbox"), 60, what="all folded")
    assert operator.replay("--topic", topic, "--thread", "t0-0", "--rerun", "--execute").status == 0
    assert audited(operator, topic)["findings"] == []
    eventually(lambda: not rig.rows(folded) and not rig.rows("select from fanfold.outbox"), 60, what="folded again")
    eventually(lambda: not audited(operator, topic)["tasks"]["waiting"], 30, what="nothing that waits")
    member.stop()

    report = audited(operator, topic)

    assert [found["findings"] for found in beside] == [[]] * 3
    assert all(found["tasks"]["waiting"] > 0 for found in beside)
    assert report["findings"] == []
    assert report["tasks"]["missing"] == report["tasks"]["waiting"] == 0
    assert (report["tasks"]["failed"], report["undecodable"]["dead"]) == (18, 3)
    assert report["tasks"]["refused"] >= 18
    assert report["repeated"] > 0
