"""How to reach Kafka, said once for every kind of client, and what the cluster says about itself."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fanfold_producer.errors import BrokerRefused, BrokerUnavailable, KafkaConfigError, TopicMissing
from fanfold_producer.trouble import REACHABLE, Trouble

ENV_BOOTSTRAP_SERVERS = "KAFKA_BOOTSTRAP_SERVERS"
ENV_PROPERTIES = "FANFOLD_KAFKA_PROPERTIES"

Kind = Literal["consumer", "producer"]
_PREFIXES = ("consumer.", "producer.")

# What Fanfold's guarantees rest on. The value that may be written all the same, and why no other works.
_OWNED: Mapping[str, tuple[frozenset[str], str]] = {
    "acks": (frozenset({"all", "-1"}), "a record acknowledged by one broker alone can be lost"),
    "request.required.acks": (
        frozenset({"all", "-1"}),
        "a record acknowledged by one broker alone can be lost",
    ),
    "enable.idempotence": (frozenset({"true"}), "retries would write records twice and out of order"),
    "transactional.id": (frozenset(), "each publisher makes its own; a shared one fences the others"),
    "isolation.level": (
        frozenset({"read_committed"}),
        "members would run tasks of fan-outs that were aborted",
    ),
    "enable.auto.commit": (frozenset({"false"}), "progress is committed with the results, in Postgres"),
    "enable.auto.offset.store": (frozenset({"false"}), "progress is committed with the results, in Postgres"),
    "check.crcs": (frozenset({"true"}), "a damaged record would be passed over without a word"),
    "auto.offset.reset": (frozenset({"error"}), "any other value skips or repeats records without a word"),
    "group.id": (frozenset(), "name the group where the fleet is started (`--group`)"),
}

# A broker that is away for a minute is asked ten times a second otherwise, with a line on stderr each time.
_DEFAULTS: Mapping[str, str] = {"reconnect.backoff.ms": "100", "reconnect.backoff.max.ms": "2000", "log_level": "5"}

_is_host = re.compile(r"^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\])\Z").match


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """The address of a cluster and librdkafka settings for its clients.

    Attributes:
        bootstrap_servers: `host:port[,host:port]`; a port that is left out is 9092.
        properties: librdkafka settings; a key may begin with `consumer.` or `producer.` and then counts for
            that kind of client only, before the same key without a prefix. Not shown by `repr`: some are secret.

    Raises:
        KafkaConfigError: all problems at once. Names that librdkafka does not know are found by the client.
    """

    bootstrap_servers: str
    properties: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        problems = _problems(self.bootstrap_servers, self.properties)
        if problems:
            raise KafkaConfigError(problems)

    @classmethod
    def from_env(cls, bootstrap_servers: str | None = None, overrides: Sequence[str] = ()) -> KafkaConfig:
        """The configuration of this process; later sources win.

        1. the file that FANFOLD_KAFKA_PROPERTIES names: lines `key=value`, comments begin with `#`,
        2. KAFKA_BOOTSTRAP_SERVERS, or instead of it `bootstrap_servers`,
        3. `overrides`, each `key=value`, as given with `-X`.

        Raises:
            KafkaConfigError: all problems of all sources at once.
        """
        properties: dict[str, str] = {}
        problems: list[str] = []
        file = os.environ.get(ENV_PROPERTIES)
        if file:
            _take(_lines(file, problems), properties, problems)
        address = bootstrap_servers or os.environ.get(ENV_BOOTSTRAP_SERVERS)
        if address:
            properties["bootstrap.servers"] = address
        _take([(f"-X number {n}", text) for n, text in enumerate(overrides, 1)], properties, problems)
        servers = properties.pop("bootstrap.servers", "")
        problems.extend(_problems(servers, properties))
        if problems:
            raise KafkaConfigError(problems)
        return cls(servers, properties)

    def consumer(self, **extra: Any) -> dict[str, Any]:
        """Settings for a `Consumer`. `extra`, which wins, may say `group_id` for `group.id`."""
        return {**self._of("consumer"), **_dotted(extra)}

    def producer(self, **extra: Any) -> dict[str, Any]:
        """Settings for a `Producer`. `extra`, which wins, may say `linger_ms` for `linger.ms`."""
        return {**self._of("producer"), **_dotted(extra)}

    def admin(self) -> dict[str, Any]:
        """Settings for an `AdminClient`: those without a prefix."""
        return self._of(None)

    def muted(self, *, but_warnings: bool = False) -> KafkaConfig:
        """Without librdkafka's own lines on stderr, for what says itself what failed. Its user's `log_level` stands."""
        return replace(self, properties={"log_level": "4" if but_warnings else "0", **self.properties})

    def _of(self, kind: Kind | None) -> dict[str, Any]:
        settings: dict[str, Any] = {**_DEFAULTS, "bootstrap.servers": self.bootstrap_servers}
        settings.update({k: v for k, v in self.properties.items() if not k.startswith(_PREFIXES)})
        if kind is not None:
            prefix = f"{kind}."
            own = {k.removeprefix(prefix): v for k, v in self.properties.items() if k.startswith(prefix)}
            settings.update(own)
        return settings


def cluster_and_topics(
    config: KafkaConfig, topics: Iterable[str], *, timeout: float = 10.0
) -> tuple[str, dict[str, tuple[str, int]]]:
    """The cluster's id and, for each topic, its id and number of partitions. Blocks up to `timeout` seconds.

    Raises:
        TopicMissing: with all that are missing, and the command that creates them.
        BrokerUnavailable: no answer in time.
        BrokerRefused: the broker said no.
        KafkaConfigError: librdkafka does not take the settings.
    """
    names = sorted(set(topics))
    deadline = time.monotonic() + timeout
    admin = _Admin(config)
    cluster = admin.resolve(admin.client.describe_cluster(request_timeout=timeout), "describe the cluster", deadline)
    found: dict[str, tuple[str, int]] = {}
    missing = []
    futures = admin.client.describe_topics(TopicCollection(names), request_timeout=timeout) if names else {}
    for name, future in futures.items():
        try:
            described = admin.resolve(future, f"describe topic {name!r}", deadline)
        except TopicMissing:
            missing.append(name)
            continue
        found[name] = (str(described.topic_id), len(described.partitions))
    if missing:
        raise _topic_missing(config, missing)
    return str(cluster.cluster_id), found


def create_topics(
    config: KafkaConfig, topics: Mapping[str, int], *, replication: int = 1, timeout: float = 15.0
) -> list[str]:
    """Create topics, {name: partitions}, that do not exist. Returns those that were new, sorted.

    One that exists keeps its partitions, whatever their number. On return, every topic can be described.

    Raises:
        BrokerUnavailable, BrokerRefused, KafkaConfigError: as `cluster_and_topics`. Safe to repeat.
    """
    deadline = time.monotonic() + timeout
    admin = _Admin(config)
    wanted = [NewTopic(name, count, replication) for name, count in sorted(topics.items())]
    futures = admin.client.create_topics(wanted, operation_timeout=timeout, request_timeout=timeout) if wanted else {}
    created = []
    for name, future in futures.items():
        try:
            admin.resolve(future, f"create topic {name!r} with {topics[name]} partitions", deadline)
            created.append(name)
        except _TopicExists:
            continue
    _await_topics(config, sorted(topics), deadline)
    return sorted(created)


def client_error(
    what: str, config: KafkaConfig, error: KafkaException, *, advice: str = REACHABLE
) -> BrokerUnavailable | BrokerRefused:
    """Our error for librdkafka's: whether to repeat is the first thing to know."""
    cause = error.args[0]
    name = cause.name()
    message = f"cannot {what} at {config.bootstrap_servers}: {cause.str()} ({name})"
    if cause.retriable() or name in _PASSING:
        return BrokerUnavailable(f"{message}; {advice}, then repeat")
    return BrokerRefused(message)


class _TopicExists(Exception):
    pass


_PASSING = frozenset(
    {
        "_TIMED_OUT",
        "_TRANSPORT",
        "_ALL_BROKERS_DOWN",
        "_RESOLVE",
        "_TIMED_OUT_QUEUE",
        "_MSG_TIMED_OUT",
        "_WAIT_COORD",
        "REQUEST_TIMED_OUT",
        "NOT_CONTROLLER",
        "LEADER_NOT_AVAILABLE",
    }
)


class _Admin:
    """An admin client that knows why it hears nothing. It must outlive its futures: without it they never resolve."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._trouble = Trouble()
        settings: dict[str, Any] = {**config.admin(), "error_cb": self._trouble}
        try:
            self.client = AdminClient(settings)
        except KafkaException as error:
            raise KafkaConfigError([error.args[0].str()]) from error

    def resolve(self, future: Future[Any], what: str, deadline: float) -> Any:
        try:
            # librdkafka's own timeout comes first as a rule; the second more lets its better message through.
            return future.result(max(0.0, deadline - time.monotonic()) + 1.0)
        except FutureTimeout as error:
            raise BrokerUnavailable(
                f"cannot {what} at {self._config.bootstrap_servers}: no answer; {self._advice()}, then repeat"
            ) from error
        except KafkaException as error:
            name = error.args[0].name()
            if name == "UNKNOWN_TOPIC_OR_PART":
                raise TopicMissing(f"cannot {what}: there is none", ()) from error
            if name == "TOPIC_ALREADY_EXISTS":
                raise _TopicExists from error
            raise client_error(what, self._config, error, advice=self._advice()) from error

    def _advice(self) -> str:
        self.client.poll(0)  # callbacks run here and nowhere else
        return self._trouble.advice()


def _await_topics(config: KafkaConfig, names: Sequence[str], deadline: float) -> None:
    # A created topic reaches the brokers' metadata a moment later; who asks too early hears there is none.
    wait = 0.01
    while True:
        left = deadline - time.monotonic()
        try:
            cluster_and_topics(config, names, timeout=max(1.0, left))
            return
        except TopicMissing:
            if left <= 0:
                raise
            time.sleep(wait)
            wait = min(0.25, wait * 2)


def _topic_missing(config: KafkaConfig, names: Sequence[str]) -> TopicMissing:
    servers = config.bootstrap_servers
    commands = "\n".join(
        f"  kafka-topics.sh --bootstrap-server {servers} --create --topic {name} --partitions 12" for name in names
    )
    plural = "topics do not exist" if len(names) > 1 else "topic does not exist"
    return TopicMissing(
        f"{len(names)} {plural} at {servers}: {', '.join(names)}. Fanfold creates none unless told to, because "
        f"the number of partitions is a decision. `fanfold publish --create-topic N` creates it, as does:\n{commands}",
        names,
    )


def _lines(file: str, problems: list[str]) -> list[tuple[str, str]]:
    """[(where, `key=value`)] of a properties file, without comments and empty lines."""
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"cannot read {file}, which {ENV_PROPERTIES} names: {error}")
        return []
    lines = [(f"{file} line {n}", line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    return [(where, line) for where, line in lines if line and not line.startswith("#")]


def _take(entries: Iterable[tuple[str, str]], properties: dict[str, str], problems: list[str]) -> None:
    for where, text in entries:
        key, equals, value = (part.strip() for part in text.partition("="))
        if equals and key:
            properties[key] = value
        else:
            # The text is not repeated: half a line may be a password.
            problems.append(f"{where} is no `key=value`")


def _problems(servers: str, properties: Mapping[str, str]) -> list[str]:
    problems = []
    if not servers.strip():
        problems.append(
            f"no broker is named: set {ENV_BOOTSTRAP_SERVERS} or pass --bootstrap-servers, host:port[,host:port]"
        )
    else:
        problems.extend(
            f"bootstrap server {server.strip()!r} is no host:port with a port of 1..65535"
            for server in servers.split(",")
            if not _is_address(server.strip())
        )
    for key, value in properties.items():
        name = key.removeprefix("consumer.").removeprefix("producer.")
        if name == "bootstrap.servers":
            problems.append(f"{key} does not belong here; it is `bootstrap_servers`, for all clients")
        owned = _OWNED.get(name)
        if owned is not None and value.strip().lower() not in owned[0]:
            problems.append(f"{key}={value} is not possible: {owned[1]}; leave it out")
    return problems


def _is_address(server: str) -> bool:
    address = server.rpartition("://")[2]
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, "9092"
    return bool(_is_host(host)) and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535


def _dotted(extra: Mapping[str, Any]) -> dict[str, Any]:
    # Settings are spelled with dots; what confluent-kafka adds to them (callbacks) with underscores.
    return {
        name
        if name.endswith("_cb") or name in ("on_delivery", "on_commit", "logger")
        else name.replace("_", "."): value
        for name, value in extra.items()
    }
