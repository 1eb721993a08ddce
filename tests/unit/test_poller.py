"""The client's owner, without a broker: what it says when it cannot work at all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message

from fanfold_consumer.assignment import TopicPartition
from fanfold_consumer.poller import Offsets, Poller
from tests.support.wait import eventually

_BOUND_S = 10.0


class Sink:
    """Hears what a poller without a broker can say."""

    def __init__(self) -> None:
        self.fatal: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_fatal(self, why: str) -> None:
        self.fatal.set_result(why)

    def on_records(self, messages: list[Message]) -> None: ...
    def on_assigned(self, keys: list[TopicPartition]) -> None: ...
    def on_lost(self, keys: list[TopicPartition]) -> None: ...
    def on_end(self, key: TopicPartition, offset: int) -> None: ...
    def on_partition_error(self, key: TopicPartition, error: KafkaError) -> None: ...
    def on_not_mirrored(self, keys: list[TopicPartition]) -> None: ...

    async def revoke(self, keys: list[TopicPartition]) -> Offsets:
        return {}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"no.such.setting": 1}, 'No such configuration property: "no.such.setting"'),
        ({"partition.assignment.strategy": "none"}, "Unsupported partition.assignment.strategy"),
        ({"group.id": None}, "group.id"),
    ],
)
def test_settings_that_the_client_does_not_take_end_the_member_and_not_only_its_thread(
    settings: dict[str, Any], why: str
) -> None:
    async def scenario() -> str:
        sink = Sink()
        given = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0}
        poller = Poller(
            {name: value for name, value in (given | settings).items() if value is not None},
            ["t"],
            asyncio.get_running_loop(),
            sink,
            incremental=True,
            records_max=1,
            in_flight_max=1,
            in_flight_bytes_max=1,
            revoke_timeout_s=1.0,
        )
        poller.start()
        said = await asyncio.wait_for(sink.fatal, _BOUND_S)
        eventually(lambda: poller.why_not_polling() == "the thread that polls Kafka has ended")
        await asyncio.wait_for(poller.close(), _BOUND_S)
        return said

    assert why in asyncio.run(scenario())


def test_a_poller_that_hangs_says_so_from_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanfold_consumer.poller.STALL_S", 0.2)

    async def scenario() -> None:
        free = threading.Event()

        def hang(_: Consumer) -> None:
            free.wait(_BOUND_S)

        poller = Poller(
            {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0},
            ["t"],
            asyncio.get_running_loop(),
            Sink(),
            incremental=True,
            records_max=1,
            in_flight_max=1,
            in_flight_bytes_max=1,
            revoke_timeout_s=0.0,
        )
        poller.start()
        assert poller.why_not_polling() is None
        poller.do(hang)
        eventually(lambda: "has not been polled" in (poller.why_not_polling() or ""))
        free.set()
        eventually(lambda: poller.why_not_polling() is None)
        await asyncio.wait_for(poller.close(), _BOUND_S)
        assert poller.why_not_polling() is None, "closed is not hung"

    asyncio.run(scenario())
