"""Every way to hurt, by name."""

from __future__ import annotations

import shutil

from tests.fault.chaos.nemeses.brokers import BROKER_NEMESES
from tests.fault.chaos.nemeses.database import DATABASE_NEMESES, POOLER_NEMESES
from tests.fault.chaos.nemeses.members import MEMBER_NEMESES
from tests.fault.chaos.nemeses.network import NETWORK_NEMESES
from tests.fault.chaos.nemeses.operators import OPERATOR_NEMESES
from tests.fault.chaos.nemeses.records import RECORD_NEMESES
from tests.fault.chaos.world import Nemesis

_ALL: tuple[Nemesis, ...] = (
    *MEMBER_NEMESES,
    *DATABASE_NEMESES,
    # Without PgBouncer there is no pooler to hurt.
    *(POOLER_NEMESES if shutil.which("pgbouncer") else ()),
    *BROKER_NEMESES,
    *RECORD_NEMESES,
    *OPERATOR_NEMESES,
    *NETWORK_NEMESES,
)
ALL: dict[str, Nemesis] = {nemesis.name: nemesis for nemesis in _ALL}
