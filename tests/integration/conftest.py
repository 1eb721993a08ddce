"""A rig for each test: members, a publisher, and eyes on the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.rig import Rig, rig_for


@pytest.fixture
def rig(broker: Broker, database: Database, tmp_path: Path, make_topic: Callable[..., Topic]) -> Iterator[Rig]:
    # It asks for topics, so that they go after its members: under a topic that the embedded broker deletes, librdkafka
    # ends its process (a leader without a topic's name in the answer to a fetch).
    del make_topic
    with rig_for(broker.config, database, tmp_path, atomic=broker.is_real_kafka) as rig:
        yield rig
