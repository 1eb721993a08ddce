"""The client's owner, without a broker: what it says when it cannot work at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from fanfold_consumer.assignment import TopicPartition
from fanfold_consumer.poller import Offsets, Poller

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
        await asyncio.wait_for(poller.close(), _BOUND_S)
        return said

    assert why in asyncio.run(scenario())
