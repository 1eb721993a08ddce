"""The servers of a campaign: Kafka behind links, PostgreSQL with a standby behind PgBouncer behind a link."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fanfold_consumer.devstack import free_port
from fanfold_consumer.devstack.ports import LOOPBACK
from tests.fault.chaos.kafka_cluster import KafkaCluster
from tests.fault.chaos.links import Link
from tests.fault.chaos.pooler import Pooler
from tests.fault.chaos.postgres_pair import DATABASE, OWNER, WORKER, PostgresPair


@dataclass(frozen=True, slots=True)
class ChaosStack:
    """member → `links["postgres"]` → `pooler` → the present primary; member → `links["kafka-n"]` → broker n.

    Attributes:
        pooler: None where PgBouncer is not installed; the link leads to the primary itself then.
        links: by name.
    """

    kafka: KafkaCluster
    postgres: PostgresPair
    pooler: Pooler | None
    links: dict[str, Link]

    @property
    def worker_dsn(self) -> str:
        """What members and publishers are given: as a worker, through link and pooler."""
        return f"postgresql://{WORKER}@{self.links['postgres'].address}/{DATABASE}"

    @property
    def owner_dsn(self) -> str:
        """Of the present primary, directly, as superuser. After a failover it is another one."""
        return self.postgres.owner_dsn


@contextmanager
def chaos_stack(folder: Path, brokers: int, seed: int) -> Iterator[ChaosStack]:
    """Start everything, at once where it can be; stop everything."""
    rng = random.Random(f"stack-{seed}")
    pooler = Pooler(DATABASE, (WORKER, OWNER), OWNER) if shutil.which("pgbouncer") else None

    def moved(port: int) -> None:
        if pooler is not None:
            pooler.point_at(port)
            pooler.reload()

    postgres = PostgresPair(moved)

    def database() -> tuple[str, int]:
        return LOOPBACK, pooler.port if pooler is not None else postgres.primary.port

    kafka = KafkaCluster(folder, brokers, rng)
    link = Link(free_port(), database, random.Random(rng.random()), name="postgres")
    with ExitStack() as stack:
        stack.callback(kafka.stop)
        stack.callback(postgres.stop)
        with ThreadPoolExecutor(2) as pool:
            for start in [pool.submit(kafka.start), pool.submit(postgres.start)]:
                start.result()
        if pooler is not None:
            stack.callback(pooler.kill)
            pooler.start()
        stack.enter_context(link)
        links = {each.name: each for each in (link, *(node.link for node in kafka.nodes))}
        yield ChaosStack(kafka, postgres, pooler, links)
