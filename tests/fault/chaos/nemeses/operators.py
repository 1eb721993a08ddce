"""What operators do to a fleet at work: offsets set back, and Kafka's own offsets of the group deleted."""

from __future__ import annotations

import os
import random
import subprocess
import sys

from confluent_kafka import KafkaException

from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS
from tests.fault.chaos.nemeses.act import Since, act, await_true, hold
from tests.fault.chaos.world import World

_COMMAND_S = 60.0
_ADMIN_S = 15.0
_EMPTY_S = 20.0
_BACK_MAX = 200


class OffsetReset:
    """`fanfold replay --execute --fence` under a running fleet, to the beginning or some records back."""

    name = "offset_reset"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        topic = rng.choice(world.topics)
        to = rng.choice((["--to-earliest"], ["--shift-by", str(-rng.randint(1, _BACK_MAX))]))
        with act(world, self.name, topic, to=" ".join(to)) as this:
            since = Since(world)
            command = [sys.executable, "-c", "from fanfold_consumer.cli import main; main()", "replay"]
            done = subprocess.run(
                [*command, "--group", world.group, "--topic", topic, *to, "--fence", "--execute"],
                cwd=world.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                env={
                    **os.environ,
                    "DATABASE_URL": world.stack.worker_dsn,
                    ENV_BOOTSTRAP_SERVERS: world.stack.kafka.direct_bootstrap,
                },
            )
            fenced = since.any_of("partition.fenced")
            hold(seconds)
            # It may have been too late for some partitions, whose members claimed them again meanwhile; it says so.
            this.effect(fenced, status=done.returncode, said=done.stderr[-200:], **fenced)


class DeleteGroup:
    """All members at once get SIGKILL, and Kafka forgets the group: its copy of the offsets is not what is gone by."""

    name = "delete_group"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        del rng
        with world.stack.kafka.brokers_held, act(world, self.name, f"group {world.group}") as this:
            since = Since(world)
            admin = world.stack.kafka.admin()

            def deleted() -> bool:
                try:
                    admin.delete_consumer_groups([world.group], request_timeout=_ADMIN_S)[world.group].result()
                except KafkaException as error:
                    # Its members are gone, and their sessions are not over yet.
                    if error.args[0].name() not in ("NON_EMPTY_GROUP", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR"):
                        raise
                    return False
                return True

            with world.fleet.all_down():
                gone = await_true(deleted, _EMPTY_S)
            claimed = since.any_of("partition.claimed")
            hold(seconds)
            this.effect(gone and claimed, **claimed)


OPERATOR_NEMESES = (OffsetReset(), DeleteGroup())
