"""A rig for each test: members, a publisher, and eyes on the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.database import Database
from tests.support.kafka import Broker
from tests.support.rig import Rig, rig_for


@pytest.fixture
def rig(broker: Broker, database: Database, tmp_path: Path) -> Iterator[Rig]:
    with rig_for(broker.config, database, tmp_path, atomic=broker.is_real_kafka) as rig:
        yield rig
