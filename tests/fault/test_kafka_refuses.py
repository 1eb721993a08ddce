"""A broker that stops letting a member read: the partition waits, the others go on, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from fanfold_consumer.devstack import ApacheKafka, apache_kafka_available, temporary_folder
from fanfold_producer.kafka import KafkaConfig
from tests.support.database import Database
from tests.support.kafka import Broker, create_topic, unique_name
from tests.support.rig import rig_for

_AUTHORIZER = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:operator
"""


class GuardedKafka(ApacheKafka):
    """A broker that asks who may do what; everybody everything, until an ACL of a topic says otherwise."""

    def _configure(self, jars: Path) -> Path:
        properties = super()._configure(jars)
        with properties.open("a") as file:
            file.write(_AUTHORIZER)
        return properties


@pytest.fixture
def guarded() -> Iterator[ApacheKafka]:
    missing = apache_kafka_available()
    if missing is not None:
        pytest.skip(f"needs an Apache Kafka of its own: {missing}")
    with GuardedKafka(temporary_folder("guarded") / "kafka") as kafka:
        yield kafka


def _allow(admin: AdminClient, topic: str, operation: AclOperation, permission: AclPermissionType) -> None:
    binding = AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission
    )
    for future in admin.create_acls([binding]).values():
        future.result(15)


def _forget_acls(admin: AdminClient, topic: str) -> None:
    anybody: Any = None
    every = AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        anybody,
        anybody,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for future in admin.delete_acls([every]).values():
        future.result(15)


def test_a_topic_that_may_not_be_read_any_more_waits_until_it_may(
    guarded: ApacheKafka, database: Database, tmp_path: Path
) -> None:
    broker = Broker(guarded.bootstrap, "apache-kafka")
    refused, other = (create_topic(broker, unique_name(label), 2) for label in ("refused", "other"))
    admin = broker.admin()
    with rig_for(KafkaConfig(guarded.bootstrap), database, tmp_path, atomic=True) as rig:
        member = rig.start(refused, other).await_partitions(4)
        assert rig.publish(refused, [("square", n) for n in range(10)], fold="sum").result(30) == 285
        _allow(admin, refused.name, AclOperation.ALL, AclPermissionType.ALLOW)
        _allow(admin, refused.name, AclOperation.READ, AclPermissionType.DENY)
        member.await_event("partition.refused", topic=refused.name)
        waiting = rig.publish(refused, [("square", n) for n in range(10)], thread_id="t2", fold="sum")
        assert rig.publish(other, [("square", n) for n in range(10)], thread_id="t3", fold="sum").result(30) == 285
        assert rig.fan_out(waiting.fan_out_id) is None
        _forget_acls(admin, refused.name)
        assert waiting.result(60) == 285
        assert member.alive
        assert member.unknown_events() == set()
        assert rig.notes.again() == 0
        assert {state.stopped for state in rig.partitions().values()} == {None}
        rig.assert_sound()
