"""A real Apache Kafka for tests: one KRaft node, broker and controller in one, on loopback."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from fanfold_consumer.devstack.embedded_broker import answers_metadata
from fanfold_consumer.devstack.errors import ServerFailed
from fanfold_consumer.devstack.maven import KAFKA_VERSION, apache_kafka_available, kafka_jars
from fanfold_consumer.devstack.ports import LOOPBACK, free_port
from fanfold_consumer.devstack.probe import probe_broker
from fanfold_consumer.devstack.process import Command, ServerProcess, temporary_folder

__all__ = ["ApacheKafka", "apache_kafka_available"]

_START_TIMEOUT_S = 90.0
_PROBE_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_FORMAT_TIMEOUT_S = 60.0

# Small and quick rather than fast: it shares a developer's machine with the tests that use it.
_JAVA = ("java", "-Xms128m", "-Xmx320m", "-XX:+UseSerialGC")

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{extra_listeners}
advertised.listeners=PLAINTEXT://{host}:{port}{extra_listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data_dir}
auto.create.topics.enable=false
# One node keeps the only copy of everything.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Tests kill members and wait until the group notices: production's minimums would make each wait a long one.
# The node too: restarted after a kill, it waits until the controller has given up its earlier life.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
group.consumer.min.session.timeout.ms=500
group.consumer.min.heartbeat.interval.ms=100
"""


class ApacheKafka:
    """One Kafka node; needs Java, and Maven for the first download (see `apache_kafka_available`).

    Args:
        folder: where settings, data and log live; a temporary one when None. `stop` and `kill` keep the data,
            so a restart finds every topic, record and offset again.
        port: where clients connect; a free one when None. It stays the same over restarts.
        extra_listeners: the names of further ones and their ports. What they speak is said in `settings`.
        settings: further lines of its properties. They win over ours.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        version: str = KAFKA_VERSION,
        extra_listeners: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = temporary_folder("kafka") if folder is None else folder.absolute()
        self.port = free_port() if port is None else port
        self.version = version
        self.log_path = self.folder / "kafka.log"
        self._extra_listeners = dict(extra_listeners or {})
        self._settings = dict(settings or {})
        self._controller_port = free_port()
        self._process: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Start the node; return when a record has made the whole round trip through it.

        Raises:
            DevStackError: Kafka could not be fetched or did not start. The message has the end of its log.
        """
        if self.running:
            return
        jars = kafka_jars(self.version)
        properties = self._configure(jars)
        self._process = ServerProcess(
            Command(
                name=f"Apache Kafka {self.version}",
                argv=[*_JAVA, "-cp", f"{jars}/*", "kafka.Kafka", str(properties)],
                log_path=self.log_path,
                cwd=self.folder,
            )
        )
        self._process.wait_ready(lambda: answers_metadata(self.bootstrap), timeout_s=_START_TIMEOUT_S)
        probe_broker(self.bootstrap, timeout_s=_PROBE_TIMEOUT_S)

    def stop(self) -> None:
        """A clean shutdown, as by an operator."""
        if self._process is not None:
            self._process.stop(timeout_s=_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> ApacheKafka:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _configure(self, jars: Path) -> Path:
        """Write the settings, and format the data folder unless that was done in an earlier life."""
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        properties.write_text(
            _PROPERTIES.format(
                host=LOOPBACK,
                port=self.port,
                controller_port=self._controller_port,
                extra_listeners="".join(f",{n}://{LOOPBACK}:{port}" for n, port in self._extra_listeners.items()),
                data_dir=self.data_dir,
            )
            # Of a key that is there twice, the last one counts.
            + "".join(f"{name}={value}\n" for name, value in self._settings.items())
        )
        if not (self.data_dir / "meta.properties").exists():
            self._format(jars, properties)
        return properties

    def _format(self, jars: Path, properties: Path) -> None:
        # What `kafka-storage.sh random-uuid` prints, without starting a JVM for it. Given apart, an id that begins with
        # a dash, as every 64th does, would be taken for an option.
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        done = subprocess.run(
            [
                *(*_JAVA, "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format"),
                *(f"--cluster-id={cluster_id}", "--config", str(properties)),
            ],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise ServerFailed(
                f"Kafka's storage tool could not format {self.data_dir} (status {done.returncode}).\n"
                f"{done.stdout}{done.stderr}"
            )
