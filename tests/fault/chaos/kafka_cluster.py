"""Real Apache Kafka, one node or three, with a link of ours in front of each. KRaft, broker and controller in one."""

from __future__ import annotations

import base64
import random
import subprocess
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from fanfold_consumer.devstack import ServerFailed, free_port
from fanfold_consumer.devstack.embedded_broker import answers_metadata
from fanfold_consumer.devstack.maven import kafka_jars
from fanfold_consumer.devstack.ports import LOOPBACK
from fanfold_consumer.devstack.probe import probe_broker
from fanfold_consumer.devstack.process import Command, ServerProcess
from tests.fault.chaos.links import Link
from tests.support.wait import eventually

_START_S = 120.0
_STOP_S = 30.0
_ADMIN_S = 15.0

# Three of them share two cores with everything else. The first compiler alone starts in half the time.
_JAVA = ("java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_PROPERTIES = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
listeners=CLIENTS://{host}:{client_port},INSIDE://{host}:{inside_port},CONTROLLER://{host}:{controller_port}
advertised.listeners=CLIENTS://{host}:{link_port},INSIDE://{host}:{inside_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENTS:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INSIDE
log.dirs={data_dir}
auto.create.topics.enable=false
unclean.leader.election.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
# A campaign of minutes cannot wait for production's timeouts after each fault.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
replica.lag.time.max.ms=5000
replica.fetch.wait.max.ms=100
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
# What producers that were killed left open would hold up every reader of the partition.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
"""


class KafkaNode:
    """One broker. It keeps ports and data over restarts."""

    def __init__(self, node_id: int, folder: Path, rng: random.Random) -> None:
        self.node_id = node_id
        self.folder = folder
        self.client_port, self.inside_port, self.controller_port = free_port(), free_port(), free_port()
        self.link = Link(free_port(), lambda: (LOOPBACK, self.client_port), rng, name=f"kafka-{node_id}")
        self._process: ServerProcess | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def configure(self, cluster_id: str, nodes: Sequence[KafkaNode]) -> None:
        """Write the settings and format the data folder."""
        self.folder.mkdir(parents=True)
        self._properties.write_text(
            _PROPERTIES.format(
                host=LOOPBACK,
                node_id=self.node_id,
                voters=",".join(f"{n.node_id}@{LOOPBACK}:{n.controller_port}" for n in nodes),
                client_port=self.client_port,
                inside_port=self.inside_port,
                controller_port=self.controller_port,
                link_port=self.link.port,
                data_dir=self.data_dir,
                copies=len(nodes),
                in_sync=max(1, len(nodes) - 1),
            )
        )
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config", str(self._properties)]
        done = subprocess.run(
            [*_JAVA, "-cp", f"{kafka_jars()}/*", *tool],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S,
        )
        if done.returncode != 0:
            raise ServerFailed(f"Kafka's storage tool could not format {self.data_dir}.\n{done.stdout}{done.stderr}")

    def start(self) -> None:
        """Return when it answers, which with several nodes needs a majority of them."""
        if self.running:
            return
        self._process = ServerProcess(
            Command(
                name=f"Kafka node {self.node_id}",
                argv=[*_JAVA, "-cp", f"{kafka_jars()}/*", "kafka.Kafka", str(self._properties)],
                log_path=self.folder / "kafka.log",
                cwd=self.folder,
            )
        )
        self._process.wait_ready(lambda: answers_metadata(f"{LOOPBACK}:{self.inside_port}"), timeout_s=_START_S)

    def stop(self) -> None:
        """A clean shutdown: it hands its partitions over first."""
        if self._process is not None:
            self._process.stop(timeout_s=_STOP_S)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"


class KafkaCluster:
    """Brokers that clients reach through links, while brokers reach each other directly.

    Replicated to all; with three brokers a write needs two of them, so that one may be away.
    """

    def __init__(self, folder: Path, brokers: int, rng: random.Random) -> None:
        # Held by whoever takes a broker away, and by whoever needs all of them.
        self.brokers_held = threading.Lock()
        self.nodes = [KafkaNode(n, folder / f"kafka-{n}", random.Random(rng.random())) for n in range(1, brokers + 1)]

    @property
    def bootstrap(self) -> str:
        return ",".join(node.link.address for node in self.nodes)

    @property
    def direct_bootstrap(self) -> str:
        """Past the links: for operators, checkers and what must not be hit."""
        return ",".join(f"{LOOPBACK}:{node.inside_port}" for node in self.nodes)

    def start(self) -> None:
        # What `kafka-storage.sh random-uuid` prints, without starting a JVM for it.
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self._each(lambda node: node.configure(cluster_id, self.nodes))
        for node in self.nodes:
            node.link.start()
        self._each(KafkaNode.start)
        eventually(lambda: len(self.admin().list_topics(timeout=5).brokers) == len(self.nodes), 60, what="all brokers")
        probe_broker(self.direct_bootstrap, timeout_s=60)

    def stop(self) -> None:
        # Killed: nobody needs the data any more, and a clean shutdown of three nodes takes its time.
        self._each(KafkaNode.kill)
        for node in self.nodes:
            node.link.stop()

    def admin(self) -> AdminClient:
        """A new admin client past the links. Keep it until its futures are resolved."""
        return AdminClient({"bootstrap.servers": self.direct_bootstrap, "log_level": 0})

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic, waiting out an earlier one that is still being deleted."""
        admin = self.admin()
        new = NewTopic(name, partitions, len(self.nodes))

        def created() -> bool:
            try:
                admin.create_topics([new], operation_timeout=_ADMIN_S)[name].result()
            except KafkaException as error:
                if error.args[0].name() not in ("TOPIC_ALREADY_EXISTS", "REQUEST_TIMED_OUT", "_TIMED_OUT"):
                    raise
                return False
            return True

        eventually(created, 30, what=f"{name} created")
        eventually(lambda: self.partitions(name) == partitions, 30, what=f"leaders of {name}")

    def delete_topic(self, name: str) -> None:
        admin = self.admin()
        admin.delete_topics([name], operation_timeout=_ADMIN_S)[name].result()
        eventually(lambda: name not in admin.list_topics(timeout=_ADMIN_S).topics, 30, what=f"{name} deleted")

    def add_partitions(self, topic: str, count: int) -> int:
        """Raise the number of a topic's partitions by `count`; return how many it has now."""
        wanted = self.partitions(topic) + count
        admin = self.admin()
        admin.create_partitions([NewPartitions(topic, wanted)], operation_timeout=_ADMIN_S)[topic].result()
        eventually(lambda: self.partitions(topic) == wanted, 30, what=f"{wanted} partitions of {topic}")
        return wanted

    def partitions(self, topic: str) -> int:
        """How many there are, 0 while one has no leader."""
        found = self.admin().list_topics(timeout=_ADMIN_S).topics.get(topic)
        if found is None or found.error is not None:
            return 0
        leaderless = any(partition.leader < 0 for partition in found.partitions.values())
        return 0 if leaderless else len(found.partitions)

    def leader_of(self, topic: str, partition: int) -> KafkaNode:
        """The node that leads a partition now; waits while an election is going on."""

        def leader() -> KafkaNode | None:
            found = self.admin().list_topics(timeout=_ADMIN_S).topics[topic].partitions[partition].leader
            return next((node for node in self.nodes if node.node_id == found), None)

        found = eventually(leader, 30, what=f"a leader of {topic}-{partition}")
        assert found is not None
        return found

    def await_in_sync(self, timeout_s: float = 60.0) -> None:
        """Wait until every partition of every topic has all its copies in sync again."""

        def in_sync() -> bool:
            topics = self.admin().list_topics(timeout=_ADMIN_S).topics.values()
            return all(len(p.isrs) == len(p.replicas) for topic in topics for p in topic.partitions.values())

        eventually(in_sync, timeout_s, what="all copies in sync")

    def _each(self, work: Callable[[KafkaNode], None]) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(work, self.nodes))
