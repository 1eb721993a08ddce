"""What migrating an empty database gives is what schema.sql says, so that a change of the schema is seen in review.

After a deliberate change: FANFOLD_UPDATE_SCHEMA=1 python -m pytest tests/sql/test_schema.py
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.sql.introspect import schema_text
from tests.support.database import Database

SCHEMA = Path(__file__).with_name("schema.sql")
_HEADER = (
    "-- The migrated database, read back from its catalogs. Generated: see test_schema.py. Not run by anything.\n\n"
)


def test_the_migrated_database_is_the_checked_in_schema(database: Database) -> None:
    with database.connect() as connection:
        found = _HEADER + schema_text(connection)
    if os.environ.get("FANFOLD_UPDATE_SCHEMA"):
        SCHEMA.write_text(found, encoding="utf-8")
    assert found == SCHEMA.read_text(encoding="utf-8")
