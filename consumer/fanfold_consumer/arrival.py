"""Before a member joins its group: both stores are waited for, and the dead-letter topics made."""

from __future__ import annotations

import asyncio

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.events import log
from fanfold_consumer.patience import Patience
from fanfold_producer.errors import BrokerUnavailable, ProducerError
from fanfold_producer.kafka import cluster_and_topics, create_topics
from fanfold_schemas import dead_letter_topic
from fanfold_sql import Store, connect

LOOK_S = 3.0
RETRY_S = 1.0


async def arrive(config: FleetConfig, store: Store, patience: Patience) -> frozenset[str]:
    """Wait until both stores answer. Returns the topics whose dead-letter topic is there.

    Raises:
        MigrationNeeded, StoreRejected, TopicMissing, KafkaConfigError: what waiting would not mend.
    """

    async def reach() -> None:
        # The pool would say that it has no connection; this says why.
        connection = await asyncio.to_thread(connect, config.database_url)
        connection.close()
        await store.outbox_stats()

    await patience.call("start", reach)
    while True:
        try:
            await asyncio.to_thread(cluster_and_topics, config.kafka.muted(), config.topics, timeout=LOOK_S)
            break
        except BrokerUnavailable as error:
            log.warning("broker.unavailable", error=str(error))
            await asyncio.sleep(RETRY_S)
    return await _dead_letter_topics(config)


async def _dead_letter_topics(config: FleetConfig) -> frozenset[str]:
    """The topics whose `-dlt` is there, or could be made. The table keeps dead letters in any case."""
    there = set()
    for topic in config.topics:
        wanted = {dead_letter_topic(topic): 1}
        try:
            await asyncio.to_thread(create_topics, config.kafka.muted(), wanted, replication=-1)
            there.add(topic)
        except ProducerError as error:
            log.warning("dead_letter_topic.missing", topic=dead_letter_topic(topic), error=str(error))
    return frozenset(there)
