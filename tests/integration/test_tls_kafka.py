"""Kafka that wants TLS, a password and ACLs: what works, who may do what, and what is said when it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from fanfold_consumer.devstack import apache_kafka_available, temporary_folder
from fanfold_consumer.devstack.client_config import write_properties
from fanfold_producer import Publisher, PublishError
from fanfold_producer.errors import BrokerUnavailable
from fanfold_producer.kafka import ENV_PROPERTIES, KafkaConfig, cluster_and_topics
from fanfold_schemas import dead_letter_topic
from tests.support.database import Database
from tests.support.kafka import Broker, Topic, create_topic, unique_name
from tests.support.operator import Operator
from tests.support.rig import Rig, rig_for
from tests.support.secured_kafka import SecuredKafka, secured_kafka
from tests.support.tls import Authority

# Recognisable wherever it might turn up.
MEMBER, PRODUCER, PASSWORD = "member", "producer", "hush-4711-hush"
WRONG = "hush-wrong-hush"


@pytest.fixture(scope="module")
def kafka() -> Iterator[SecuredKafka]:
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(f"needs an Apache Kafka of its own: {missing}")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    with secured_kafka() as kafka:
        for user in (MEMBER, PRODUCER):
            kafka.add_user(user, PASSWORD)
        # As docs/operations.md says.
        kafka.allow(MEMBER, AclOperation.READ, ResourceType.GROUP, "group-", prefix=True)
        for operation in (AclOperation.DESCRIBE, AclOperation.WRITE):
            kafka.allow(PRODUCER, operation, ResourceType.TRANSACTIONAL_ID, "fanfold-", prefix=True)
        yield kafka


@pytest.fixture
def make_topic(kafka: SecuredKafka) -> Callable[[], Topic]:
    """Topics that the member may read and write, and nobody else."""

    def make() -> Topic:
        topic = create_topic(kafka.admin, unique_name("tls"), 2)
        for operation in (AclOperation.READ, AclOperation.WRITE):
            kafka.allow(MEMBER, operation, ResourceType.TOPIC, topic.name)
        return topic

    return make


@pytest.fixture
def topic(kafka: SecuredKafka, make_topic: Callable[[], Topic]) -> Topic:
    """A topic that the producer may write to, too."""
    topic = make_topic()
    kafka.allow(PRODUCER, AclOperation.WRITE, ResourceType.TOPIC, topic.name)
    return topic


@pytest.fixture
def rig(kafka: SecuredKafka, database: Database, tmp_path: Path) -> Iterator[Rig]:
    """It publishes as the producer; start members as `member(kafka)`."""
    with rig_for(kafka.client(PRODUCER, PASSWORD), database, tmp_path, atomic=True) as rig:
        yield rig


def member(kafka: SecuredKafka) -> KafkaConfig:
    return kafka.client(MEMBER, PASSWORD)


@pytest.fixture
def operator(
    kafka: SecuredKafka,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Operator:
    """`fanfold` with the member's settings, from the file that FANFOLD_KAFKA_PROPERTIES names."""
    config = member(kafka)
    file = tmp_path / "kafka.properties"
    write_properties(file, config.properties)
    monkeypatch.setenv(ENV_PROPERTIES, str(file))
    return Operator(Broker(config.bootstrap_servers, "apache-kafka"), database, monkeypatch, capsys)


def test_members_and_publishers_work_with_a_password_over_tls_and_log_no_secret(
    kafka: SecuredKafka, rig: Rig, topic: Topic
) -> None:
    running = rig.start(topic, kafka=member(kafka), log_level="debug")
    handle = rig.publish(topic, [("square", n) for n in range(20)], fold="total")
    assert handle.result(30) == sum(n * n for n in range(20))
    # It may not make the topic for dead letters, and goes on without.
    missing = running.await_event("dead_letter_topic.missing")
    assert missing["topic"] == dead_letter_topic(topic.name)
    assert "authorization" in missing["error"].lower()
    assert running.stop() == 0
    assert PASSWORD not in running.log()
    rig.assert_sound()


def test_a_producer_can_write_to_the_topics_of_its_acl_only(
    kafka: SecuredKafka, rig: Rig, topic: Topic, make_topic: Callable[[], Topic]
) -> None:
    other = make_topic()
    with pytest.raises(PublishError, match="grant this principal WRITE on the topic"):
        rig.publish(other, [("square", n) for n in range(3)])
    assert sum(other.end_offsets().values()) == 0
    rig.publish(topic, [("square", n) for n in range(3)])


def test_a_member_that_may_not_read_its_group_says_so_and_waits_for_the_acl(
    kafka: SecuredKafka, rig: Rig, topic: Topic
) -> None:
    group = unique_name("other")
    running = rig.start(topic, kafka=member(kafka), group=group)
    running.await_event("broker.unavailable", error="GROUP_AUTHORIZATION_FAILED")
    kafka.allow(MEMBER, AclOperation.READ, ResourceType.GROUP, group)
    running.await_partitions(2, 30)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("password", "check sasl.mechanism, sasl.username and sasl.password"),
        ("authority", "check that ssl.ca.location names the authority"),
        ("OTHERHOST", "certificate is for the host name that you connect to"),
        ("EXPIRED", "and has not expired"),
    ],
)
def test_a_connection_that_is_refused_is_told_with_what_to_check(
    kafka: SecuredKafka, topic: Topic, wrong: str, advice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    match wrong:
        case "password":
            config = kafka.client(PRODUCER, WRONG)
        case "authority":
            stranger = Authority(temporary_folder("tls") / "stranger")
            config = kafka.client(PRODUCER, PASSWORD, ca=stranger.certificate)
        case listener:
            config = kafka.client(PRODUCER, PASSWORD, listener=listener)
    with pytest.raises(BrokerUnavailable) as asked:
        cluster_and_topics(config, [topic.name], timeout=2)
    assert advice in str(asked.value)
    with Publisher(config) as publisher, pytest.raises(PublishError) as published:
        publisher.fan_out("t", [("square", n) for n in range(2)], topic=topic.name, timeout=2)
    assert advice in str(published.value)
    heard = "".join([str(asked.value), str(published.value), *capfd.readouterr()])
    assert PASSWORD not in heard
    assert WRONG not in heard


def test_a_member_with_a_wrong_password_says_so_at_start_and_not_what_it_is(
    kafka: SecuredKafka, rig: Rig, topic: Topic
) -> None:
    running = rig.start(topic, kafka=kafka.client(MEMBER, WRONG), log_level="debug")
    assert "check sasl.mechanism, sasl.username and sasl.password" in running.await_event("broker.unavailable")["error"]
    assert running.alive
    assert WRONG not in running.log()


def test_no_secret_is_on_a_members_command_line_or_in_its_environment(
    kafka: SecuredKafka, rig: Rig, topic: Topic
) -> None:
    running = rig.start(topic, kafka=member(kafka))
    running.await_partitions(2)
    command = Path(f"/proc/{running.pid}/cmdline")
    if not command.exists():
        pytest.skip("needs /proc")
    assert PASSWORD not in command.read_text()
    assert PASSWORD not in Path(f"/proc/{running.pid}/environ").read_text()


def test_commands_take_the_same_settings_from_the_file(
    operator: Operator, rig: Rig, kafka: SecuredKafka, topic: Topic
) -> None:
    rig.start(topic, kafka=member(kafka)).await_partitions(2)
    status = operator.run("status", "--group", rig.group, "--topic", topic, "--json")
    assert status.status == 0, status.err
    assert [row["log_end_offset"] for row in status.json["partitions"]] == [0, 0]
    doctor = operator.run("doctor", "--group", rig.group, "--topic", topic, "--json")
    assert {"kafka.replication": "copies 1, in sync 1"}.items() <= {f["check"]: f["value"] for f in doctor.json}.items()
    assert PASSWORD not in status.out + status.err + doctor.out + doctor.err
