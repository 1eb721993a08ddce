"""An Apache Kafka that wants TLS and a password, and lets nobody do what no ACL allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from fanfold_consumer.devstack import ApacheKafka, free_port, temporary_folder
from fanfold_producer.kafka import KafkaConfig
from tests.support.kafka import Broker
from tests.support.tls import Authority

_TIMEOUT_S = 15.0
_CERTIFICATES = {
    "CLIENTS": ("IP:127.0.0.1", timedelta(days=1)),
    "OTHERHOST": ("DNS:kafka.example", timedelta(days=1)),
    "EXPIRED": ("IP:127.0.0.1", timedelta(days=-1)),
}
"""What is in the certificate of each listener."""


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """Clients come in by SASL_SSL and SCRAM-SHA-512. Without TLS one is an administrator, as which tests make topics.

    Attributes:
        authority: who signed the certificates of its listeners.
        admin: the way in for administrators.
        ports: of the listeners, by name.
    """

    authority: Authority
    admin: Broker
    ports: dict[str, int]

    def client(
        self, user: str, password: str, *, listener: str = "CLIENTS", ca: Path | None = None, **properties: str
    ) -> KafkaConfig:
        return KafkaConfig(
            f"127.0.0.1:{self.ports[listener]}",
            {
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": str(ca or self.authority.certificate),
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": user,
                "sasl.password": password,
                **properties,
            },
        )

    def add_user(self, name: str, password: str) -> None:
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(name, credential, password.encode())
        admin = self.admin.admin()
        admin.alter_user_scram_credentials([change])[name].result(_TIMEOUT_S)

    def allow(self, user: str, operation: AclOperation, kind: ResourceType, name: str, *, prefix: bool = False) -> None:
        """What `kafka-acls.sh --add --allow-principal User:<user>` does."""
        pattern = ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL
        binding = AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        admin = self.admin.admin()
        admin.create_acls([binding])[binding].result(_TIMEOUT_S)


@contextmanager
def secured_kafka() -> Iterator[SecuredKafka]:
    folder = temporary_folder("secured-kafka")
    authority = Authority(folder / "authority")
    ports = {name: free_port() for name in _CERTIFICATES}
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.security.protocol.map": ",".join(
            ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *(f"{name}:SASL_SSL" for name in ports)]
        ),
    }
    for name, (host, until) in _CERTIFICATES.items():
        keystore = folder / f"{name}.pem"
        keystore.write_text(authority.issue(name, host=host, until=until).both)
        prefix = f"listener.name.{name.lower()}"
        settings |= {
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.location": str(keystore),
            f"{prefix}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{prefix}.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }
    with ApacheKafka(folder / "kafka", extra_listeners=ports, settings=settings) as kafka:
        yield SecuredKafka(authority, Broker(kafka.bootstrap, "apache-kafka"), ports)
