"""Every setting of a fleet member: meaning, unit, default and what its limits are. Checked at start, all at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict

from fanfold_consumer.errors import ConfigError
from fanfold_producer.claim_store import CLAIM_CHECK_BYTES_MIN, ClaimStore
from fanfold_producer.errors import ClaimStoreRefused
from fanfold_producer.kafka import KafkaConfig
from fanfold_schemas import SchemaError, check_id, check_topic
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX, RECORD_BYTES_MAX

PORT_MAX = 65_535
ASSIGNOR = "partition.assignment.strategy"
COOPERATIVE = "cooperative-sticky"
_ASSIGNORS = (COOPERATIVE, "range", "roundrobin")


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """Settings of one member. Counts are per member, not per partition.

    Attributes:
        group_id: consumer group; also the name under which progress is kept in Postgres.
        topics: read by every member of the group.
        database_url: empty: libpq's own PG* variables.
        start: where a group that never finished anything in a partition begins.
        assignor: `partition.assignment.strategy`; ignored with `group.protocol=consumer` in the Kafka properties.
        group_instance_id: static membership: a restart within the session timeout keeps its partitions. None: dynamic.
        concurrency: tasks whose handlers run at once.
        sync_workers: OS threads for `def` handlers; at most `concurrency`.
        process_workers: processes for handlers with `isolation="process"`, started when they are needed. A call that
            waits for one holds a place of `concurrency`.
        retry_in_place_s: a longer wait for a task's next attempt is spent in the outbox and holds none of those places.
        in_flight_max: records polled and not yet committed; beyond it polling pauses. Bounds every other number here.
        in_flight_bytes_max: the same in bytes of their values; and of what is fetched from the claim store for them.
        batch_results_max: results in one commit. A commit never waits for so many: whatever is finished goes.
        batch_bytes_max: bytes of payload in one commit.
        poll_records_max: records taken from the client at once.
        drain_s: on SIGTERM, how long running handlers may go on.
        revoke_grace_s: when a partition moves, how long its running handlers may go on before it is handed over.
        pool_size: Postgres connections.
        prepare: prepared statements, where the connection is direct.
        early_lock_release: commits free their threads before they are on disk, and are acknowledged when they are. For
            hot threads on slow disks; readers may see what a crash takes back.
        renew_interval_s: how often the member says in Postgres that it lives, and learns that it was fenced.
        mirror_interval_s: how often offsets are copied to Kafka, for lag tools and autoscalers.
        relay_interval_s: how often the outbox is looked at for records that others left.
        relay_lease_s: how long a record is one member's to publish before another does. After a crash between a commit
            and its publishing a fold is so late.
        claim_store: URL of the store that large args come from and large results go to; None: there is none.
        claim_check_bytes_min: a result of more encoded bytes goes there, and so does an arg of a Send.
        health_port: for /live, /ready and /metrics; None: no endpoint; 0: any free port.
        health_host: the address it listens on.
    """

    group_id: str
    topics: tuple[str, ...]
    kafka: KafkaConfig
    database_url: str = ""
    start: Literal["earliest", "latest"] = "earliest"
    assignor: str = COOPERATIVE
    group_instance_id: str | None = None
    concurrency: int = 256
    sync_workers: int = 32
    process_workers: int = os.cpu_count() or 1
    retry_in_place_s: float = 5.0
    in_flight_max: int = 4000
    in_flight_bytes_max: int = 64 * 1024 * 1024
    batch_results_max: int = 1000
    batch_bytes_max: int = 8 * 1024 * 1024
    poll_records_max: int = 1000
    drain_s: float = 25.0
    revoke_grace_s: float = 5.0
    pool_size: int = 4
    prepare: bool = True
    early_lock_release: bool = False
    renew_interval_s: float = 1.0
    mirror_interval_s: float = 0.5
    relay_interval_s: float = 0.2
    relay_lease_s: float = 10.0
    claim_store: str | None = None
    claim_check_bytes_min: int = CLAIM_CHECK_BYTES_MIN
    health_port: int | None = None
    health_host: str = "127.0.0.1"

    def check(self) -> None:
        """Raise `ConfigError` with every problem there is."""
        problems: list[str] = []
        try:
            check_id(self.group_id, "--group")
        except SchemaError as error:
            problems.append(f"--group: {error.detail}")
        if not self.topics:
            problems.append("--topic: none is named")
        for topic in self.topics:
            try:
                check_topic(topic)
            except ValueError as error:
                problems.append(f"--topic: {error}")
        if self.start not in ("earliest", "latest"):
            problems.append(f"--start: {self.start!r}; choose earliest or latest")
        try:
            conninfo_to_dict(self.database_url)
        except psycopg.ProgrammingError:
            # Neither the text nor the reason is repeated: both may have a password in them.
            problems.append("--database-url: not of the form postgresql://user@host/database, nor key=value settings")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                problems.append(f"--{name.replace('_', '-')}: {value} is outside {low} .. {high}")
        if self.claim_store is not None:
            try:
                ClaimStore.open(self.claim_store)
            except ClaimStoreRefused as error:
                problems.append(f"--claim-store: {error}")
        if self.health_port is not None and not 0 <= self.health_port <= PORT_MAX:
            problems.append(f"--health-port: {self.health_port} is outside 0 .. {PORT_MAX}")
        problems.extend(self._kafka_problems())
        if problems:
            raise ConfigError(problems)

    def open_claim_store(self) -> ClaimStore | None:
        """The claim store, if one is named."""
        if self.claim_store is None:
            return None
        return ClaimStore.open(self.claim_store, bytes_min=self.claim_check_bytes_min)

    def consumer_settings(self) -> dict[str, object]:
        """librdkafka settings of the group's client.

        Offsets are never committed or stored by the client: the truth is in Postgres. An offset that the log does not
        have stops its partition (`auto.offset.reset=error`) instead of skipping records.
        """
        given = self.kafka.consumer()
        settings: dict[str, object] = {
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 65536,
            # How long a partition that was added waits until the group notices. librdkafka's default is five minutes;
            # the price is one small request of each member every so often.
            "topic.metadata.refresh.interval.ms": 10_000,
        }
        if not _is_new_protocol(given):
            settings[ASSIGNOR] = self.assignor
        settings |= given
        settings |= {
            "group.id": self.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            # Without it, records that were damaged on the broker's disk are passed over in silence.
            "check.crcs": True,
        }
        if self.group_instance_id:
            settings["group.instance.id"] = self.group_instance_id
        return settings

    @property
    def cooperative(self) -> bool:
        """Whether assignments are incremental: KIP-429 cooperative rebalancing, or the KIP-848 protocol."""
        settings = self.consumer_settings()
        return _is_new_protocol(settings) or "cooperative" in str(settings[ASSIGNOR])

    def _kafka_problems(self) -> list[str]:
        # What fanfold sets itself, `group.id` and the like, is for `KafkaConfig` to refuse, and it did.
        given = self.kafka.consumer()
        problems = []
        if _is_new_protocol(given):
            problems += [
                f"Kafka property {name}={given[name]}: the broker decides it under group.protocol=consumer; omit it"
                for name in ("session.timeout.ms", "heartbeat.interval.ms", ASSIGNOR)
                if name in given
            ]
        else:
            problems += self._assignor_problems(given)
        interval = str(given.get("max.poll.interval.ms", 300_000))
        if not (interval.isascii() and interval.isdigit()):
            problems.append(f"Kafka property max.poll.interval.ms={interval}: give a whole number of milliseconds")
        elif self.revoke_grace_s * 1000 >= int(interval):
            problems.append(
                f"--revoke-grace-s {self.revoke_grace_s} reaches max.poll.interval.ms {interval}: "
                "the broker would throw the member out while it hands over"
            )
        return problems

    def _assignor_problems(self, given: Mapping[str, object]) -> list[str]:
        where, value = "--assignor", self.assignor
        if ASSIGNOR in given:
            where, value = f"Kafka property {ASSIGNOR}", str(given[ASSIGNOR])
        names = value.split(",")
        if not set(names) <= set(_ASSIGNORS):
            return [f"{where}: {value!r}; choose of {', '.join(_ASSIGNORS)}"]
        if COOPERATIVE in names and len(set(names)) > 1:
            return [f"{where}: {value}: {COOPERATIVE} cannot be mixed with others"]
        return []


def _is_new_protocol(settings: Mapping[str, object]) -> bool:
    """KIP-848: the broker assigns. librdkafka takes the name in any case."""
    return str(settings.get("group.protocol", "")).lower() == "consumer"


_BOUNDS = (
    ("concurrency", 1, 100_000),
    ("sync_workers", 1, 1_000),
    ("process_workers", 1, 1_000),
    ("retry_in_place_s", 0, 600),
    ("in_flight_max", 1, 1_000_000),
    ("in_flight_bytes_max", RECORD_BYTES_MAX, 2**40),
    ("batch_results_max", 1, 10_000),
    ("batch_bytes_max", 1024, 2**30),
    ("poll_records_max", 1, 10_000),
    ("drain_s", 0, 3600),
    ("revoke_grace_s", 0, 600),
    ("pool_size", 2, 100),
    ("renew_interval_s", 0.1, 5),
    ("mirror_interval_s", 0.05, 60),
    ("relay_interval_s", 0.02, 60),
    ("relay_lease_s", 1, 3600),
    ("claim_check_bytes_min", 0, CLAIM_CHECK_BYTES_MAX),
)
