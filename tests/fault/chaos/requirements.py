"""What a campaign takes that not every machine has."""

from __future__ import annotations

from fanfold_consumer.devstack import apache_kafka_available
from tests.support.choose import chosen_postgres


def missing() -> str | None:
    """None if a campaign can be run here, else why not."""
    no_kafka = apache_kafka_available()
    if no_kafka is not None:
        return f"needs an Apache Kafka of its own: {no_kafka}"
    if not chosen_postgres().kind.isdigit():
        return f"needs a PostgreSQL of this machine, to be killed; this one is {chosen_postgres().kind}"
    return None
