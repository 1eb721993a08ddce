"""What Kafka and the clients' settings must be like, judged from their facts."""

from __future__ import annotations

from datetime import timedelta

from fanfold_consumer.doctor.findings import Check, Plan, Status, Unknown, Verdict
from fanfold_consumer.doctor.kafka import KafkaFacts
from fanfold_schemas.limits import RECORD_BYTES_MAX

AHEAD_MAX_S = 1.0
REPLICATION_MIN = 3
RETENTION_MIN = timedelta(days=3)
_HEARTBEATS_PER_SESSION = 3


def _cluster(facts: KafkaFacts, plan: Plan) -> Verdict:
    return Verdict("ok", f"cluster {facts.cluster_id}, brokers: {facts.brokers}")


def _topic(facts: KafkaFacts, plan: Plan) -> Verdict:
    if isinstance(facts.topic, str):
        return Verdict("fail", facts.topic)
    partitions = facts.topic.partitions
    return Verdict("ok" if partitions >= plan.members else "warn", f"partitions {partitions}, members {plan.members}")


def _client_settings(facts: KafkaFacts, plan: Plan) -> Verdict:
    return Verdict("fail", facts.clients) if isinstance(facts.clients, str) else Verdict("ok", "accepted")


def _replication(facts: KafkaFacts, plan: Plan) -> Verdict:
    topic = facts.the_topic()
    status: Status = "ok"
    if topic.replication < REPLICATION_MIN or topic.in_sync < topic.replication:
        status = "fail" if topic.replication == 1 else "warn"
    return Verdict(status, f"copies {topic.replication}, in sync {topic.in_sync}")


def _min_insync(facts: KafkaFacts, plan: Plan) -> Verdict:
    topic = facts.the_topic()
    least = int(topic.setting("min.insync.replicas"))
    value = f"{least}, copies {topic.replication}, in sync {topic.in_sync}"
    if least > topic.in_sync:
        return Verdict("fail", value)
    return Verdict("ok" if 2 <= least < topic.replication else "warn", value)


def _unclean_election(facts: KafkaFacts, plan: Plan) -> Verdict:
    value = facts.the_topic().setting("unclean.leader.election.enable")
    return Verdict("ok" if value == "false" else "fail", value)


def _cleanup_policy(facts: KafkaFacts, plan: Plan) -> Verdict:
    value = facts.the_topic().setting("cleanup.policy")
    return Verdict("fail" if "compact" in value else "ok", value)


def _retention(facts: KafkaFacts, plan: Plan) -> Verdict:
    topic = facts.the_topic()
    age_ms, size = int(topic.setting("retention.ms")), int(topic.setting("retention.bytes"))
    value = "for ever" if age_ms < 0 else _days(age_ms)
    if size >= 0:
        return Verdict("warn", f"{value}, {size:,} bytes a partition")
    return Verdict("ok" if age_ms < 0 or age_ms >= _ms(RETENTION_MIN) else "warn", value)


def _prune_age(facts: KafkaFacts, plan: Plan) -> Verdict:
    topic = facts.the_topic()
    if plan.prune_after is None:
        raise Unknown("name the age you give to `fanfold prune` with --prune-older-than")
    value = _days(_ms(plan.prune_after))
    age_ms, segment_ms = int(topic.setting("retention.ms")), int(topic.setting("segment.ms"))
    if age_ms < 0:
        return Verdict("fail", value, "never: the topic keeps its records for ever")
    kept_ms = age_ms + segment_ms
    bound = f"≥ {_days(kept_ms)}: retention.ms + segment.ms"
    return Verdict("ok" if _ms(plan.prune_after) >= kept_ms else "fail", value, bound)


def _record_size(facts: KafkaFacts, plan: Plan) -> Verdict:
    broker, client = int(facts.the_topic().setting("max.message.bytes")), facts.the_clients().message_bytes_max
    status: Status = "ok" if min(broker, client) >= RECORD_BYTES_MAX else "fail"
    return Verdict(status, f"{broker:,} on the topic, {client:,} in the client")


def _session_timeout(facts: KafkaFacts, plan: Plan) -> Verdict:
    clients = facts.the_clients()
    session_ms = clients.session_timeout_ms
    if session_ms is None:
        return Verdict("ok", f"{facts.broker_setting('group.consumer.session.timeout.ms')} ms, by the broker")
    least, most = (int(facts.broker_setting(f"group.{end}.session.timeout.ms")) for end in ("min", "max"))
    value = f"{session_ms} ms, a heartbeat every {clients.heartbeat_interval_ms} ms"
    bound = f"{least} .. {most} ms, {_HEARTBEATS_PER_SESSION} heartbeats"
    if not least <= session_ms <= most:
        return Verdict("fail", value, bound)
    enough = clients.heartbeat_interval_ms * _HEARTBEATS_PER_SESSION <= session_ms
    return Verdict("ok" if enough else "warn", value, bound)


def _transaction_timeout(facts: KafkaFacts, plan: Plan) -> Verdict:
    ours, most = facts.the_clients().transaction_timeout_ms, int(facts.broker_setting("transaction.max.timeout.ms"))
    return Verdict("ok" if ours <= most else "fail", f"{ours} ms", f"≤ {most} ms")


def _clock(facts: KafkaFacts, plan: Plan) -> Verdict:
    ahead_s = facts.the_topic().newest_ahead_s
    if isinstance(ahead_s, str):
        raise Unknown(ahead_s)
    if ahead_s <= AHEAD_MAX_S:
        return Verdict("ok", "the newest record is of the past")
    return Verdict("warn", f"the newest record is {ahead_s:.1f} s ahead")


def _days(ms: int) -> str:
    return f"{ms / _ms(timedelta(days=1)):.3g} days"


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


KAFKA_CHECKS: tuple[Check[KafkaFacts], ...] = (
    Check(
        "kafka.cluster",
        _cluster,
        bound="answers",
        why="Members wait until it does; nothing is published or read meanwhile.",
        fix="Start it, or check --bootstrap-servers, and what a secured cluster needs (`-X security.protocol=...`).",
    ),
    Check(
        "kafka.topic",
        _topic,
        bound="exists, with a partition for every member",
        why="Fanfold creates no topic unless told to. A member without a partition does nothing.",
        fix="`fanfold publish --create-topic N`, `kafka-topics.sh --alter --partitions N`, or fewer members. If this "
        "principal may not see it: grant it DESCRIBE and READ.",
    ),
    Check(
        "kafka.client-settings",
        _client_settings,
        bound="accepted by librdkafka",
        why="Members and publishers would stop at start.",
        fix="Mend the `-X` options or the file that FANFOLD_KAFKA_PROPERTIES names.",
    ),
    Check(
        "kafka.replication",
        _replication,
        bound=f"≥ {REPLICATION_MIN} copies, all in sync",
        why="A task that is lost with its only copy leaves its fan-out open for ever. With two, there is only one "
        "while a broker restarts.",
        fix="Move the partitions to three brokers (`kafka-reassign-partitions.sh`); if copies are not in sync, look "
        "for the broker that is away.",
    ),
    Check(
        "kafka.min-insync",
        _min_insync,
        bound="2 ≤ min.insync.replicas < copies, and as many in sync",
        why="With 1, a record that one broker alone has is acknowledged and can be lost. With all of them, no broker "
        "may restart without stopping every publisher; with more than are in sync, nothing can be published now.",
        fix="`kafka-configs.sh --alter --entity-type topics --entity-name <topic> --add-config "
        "min.insync.replicas=2` with three copies.",
    ),
    Check(
        "kafka.unclean-election",
        _unclean_election,
        bound="unclean.leader.election.enable = false",
        why="A leader that had missed records makes acknowledged ones disappear, and gives their offsets to others.",
        fix="Set `unclean.leader.election.enable=false` on the topic.",
    ),
    Check(
        "kafka.cleanup-policy",
        _cleanup_policy,
        bound="cleanup.policy without compact",
        why="Compaction keeps the last record of a key. Folds of one thread have the same key: earlier ones would "
        "vanish before they were read.",
        fix="Set `cleanup.policy=delete` on the topic.",
    ),
    Check(
        "kafka.retention",
        _retention,
        bound=f"≥ {RETENTION_MIN.days} days, and no bound in bytes",
        why="What is deleted before it was read is lost, and its partition stops. It has to outlive an outage over a "
        "weekend; a bound in bytes lets a burst of publishing shorten it to anything.",
        fix="Set `retention.ms=604800000` and `retention.bytes=-1` on the topic.",
    ),
    Check(
        "kafka.prune-age",
        _prune_age,
        bound="≥ retention.ms + segment.ms",
        why="A task of a fan-out that was pruned runs again as if it were new when its record comes again. Records "
        "live longer than retention.ms: they go by segments, and one is not closed before segment.ms.",
        fix="Prune with a greater age, or lower retention.ms and segment.ms of the topic.",
    ),
    Check(
        "kafka.record-size",
        _record_size,
        bound=f"max.message.bytes ≥ {RECORD_BYTES_MAX:,}, on the topic and in the client (message.max.bytes)",
        why="Tasks up to Fanfold's limit of a record would be refused when they are published: folds and Sends of "
        "handlers, too, which then wait in the outbox.",
        fix="Set `max.message.bytes=1048588` on the topic; leave `message.max.bytes` out of the client's settings.",
    ),
    Check(
        "kafka.session-timeout",
        _session_timeout,
        bound="within group.min.session.timeout.ms and group.max.session.timeout.ms, and 3 heartbeats long",
        why="Outside, the broker does not let a member join. With fewer heartbeats, one that is late ends the "
        "session, and its work is done again elsewhere.",
        fix="`-X consumer.session.timeout.ms=45000`, `-X consumer.heartbeat.interval.ms=3000`, or other bounds on "
        "the brokers.",
    ),
    Check(
        "kafka.transaction-timeout",
        _transaction_timeout,
        bound="≤ transaction.max.timeout.ms of the brokers",
        why="The broker refuses the publisher's transactions; only `atomic=False` would publish.",
        fix="Leave `transaction.timeout.ms` out of the client's settings, or raise transaction.max.timeout.ms on the "
        "brokers.",
    ),
    Check(
        "kafka.clock",
        _clock,
        bound=f"no record more than {AHEAD_MAX_S:g} s ahead of this machine's clock",
        why="A timestamp of the future keeps its segment from being deleted until then, and replay by time starts in "
        "the wrong place. It is a publisher's clock, or the broker's with message.timestamp.type=LogAppendTime; "
        "one that is late cannot be told from an old record.",
        fix="Run a time service (chrony, systemd-timesyncd) where the publishers and brokers are, and here.",
    ),
)
