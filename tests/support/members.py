"""Members of a fleet under test: real processes to be killed, and one on a thread of this process for quick tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions

from fanfold_consumer import Fleet, FleetConfig, Registry
from fanfold_consumer.devstack.client_config import write_properties
from fanfold_consumer.events import EVENTS
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS, ENV_PROPERTIES, KafkaConfig
from tests.support.handlers import ENV_FOLDER, MODULE
from tests.support.kafka import Broker
from tests.support.tree import ROOT
from tests.support.wait import eventually

SESSION_S = 3.0
"""How long after a kill -9 the group notices. The embedded broker's join needs about as long."""
_SESSION = {
    "consumer.session.timeout.ms": f"{SESSION_S * 1000:.0f}",
    "consumer.heartbeat.interval.ms": "300",
}
_HANDLERS = "fleet_handlers"
_STOP_S = 15.0


def member_config(kafka: KafkaConfig) -> KafkaConfig:
    """With sessions that end while a test waits, unless it says otherwise or leaves them to the broker (KIP-848)."""
    if kafka.properties.get("consumer.group.protocol") == "consumer":
        return kafka
    return KafkaConfig(kafka.bootstrap_servers, {**_SESSION, **kafka.properties})


class Member:
    """A `fanfold consume` process. Its log is JSON, one event a line."""

    def __init__(self, number: int, folder: Path, kafka: KafkaConfig, database_url: str, options: list[str]) -> None:
        self.log_path = folder / f"member-{number}.log"
        (folder / f"{_HANDLERS}.py").write_text(MODULE)
        properties = folder / f"member-{number}.properties"
        write_properties(properties, kafka.properties)
        command = [sys.executable, "-c", "from fanfold_consumer.cli import main; main()", "consume"]
        command += ["--handlers", _HANDLERS, "--log-format", "json", *options]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
                    "DATABASE_URL": database_url,
                    ENV_BOOTSTRAP_SERVERS: kafka.bootstrap_servers,
                    ENV_PROPERTIES: str(properties),
                    ENV_FOLDER: str(folder),
                },
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of that name that have these fields."""
        found = [event for event in self._events() if event["event"] == name]
        return [event for event in found if fields.items() <= event.items()]

    def unknown_events(self) -> set[str]:
        """Names it logged that the list of events does not have."""
        return {event["event"] for event in self._events()} - EVENTS.keys()

    def stray_lines(self) -> list[str]:
        """Lines of its log that are no JSON."""
        return [line for line in self.log().splitlines() if not line.startswith("{")]

    def await_event(self, name: str, timeout_s: float = 20.0, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for the `count`-th such event."""

        def arrived() -> list[dict[str, Any]]:
            found = self.events(name, **fields)
            assert len(found) >= count or self.alive, f"the member ended:\n{self.log()}"
            return found if len(found) >= count else []

        return eventually(arrived, timeout_s, what=f"{count} {name} {fields} in {self.log_path}")[count - 1]

    def await_partitions(self, count: int, timeout_s: float = 20.0) -> Member:
        """Wait until it has claimed `count` partitions in all."""
        self.await_event("partition.claimed", timeout_s, count=count)
        return self

    def kill(self) -> None:
        """SIGKILL: what a crash or the kernel's memory killer does."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: asks for a drain."""
        self._process.send_signal(signal.SIGTERM)

    def await_exit(self, timeout_s: float = _STOP_S) -> int:
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Drain and return the exit status."""
        self.terminate()
        return self.await_exit()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _events(self) -> list[dict[str, Any]]:
        # What is no JSON was written by librdkafka itself, or is a line that is being written now.
        lines = [line for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [json.loads(line) for line in lines]


class LocalMember:
    """A member on an event loop of its own in this process: starts at once, and its insides can be looked at."""

    def __init__(self, config: FleetConfig, registry: Registry) -> None:
        self.fleet = Fleet(config, registry)
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="local-member")
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def await_partitions(self) -> LocalMember:
        """Wait until it has claimed some."""
        eventually(lambda: self.metric("fanfold_partitions", phase="running"), what="a partition claimed")
        return self

    def metric(self, name: str, **labels: str) -> float:
        return self.fleet.metrics.registry.get_sample_value(name, labels) or 0.0

    def stop(self) -> None:
        """Drain, and raise what the member ended with, if it ended with an error."""
        if self.alive:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self.alive, "the member did not stop"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self.fleet.run(self._stop))
        except BaseException as error:
            self._error = error


def group_offsets(broker: Broker, group: str, topic: str) -> dict[int, int]:
    """A group's offsets as Kafka's own tools see them, by partition."""
    admin = broker.admin()
    future = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
    parts = future.result().topic_partitions or []
    return {part.partition: part.offset for part in parts if part.topic == topic and part.offset >= 0}


def options_of(settings: Mapping[str, Any]) -> list[str]:
    """`in_flight_max=8` as `--in-flight-max 8`; a list as the option several times."""
    options = []
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            options += [f"--{name.replace('_', '-')}", str(one)]
    return options
