"""Kafka's own accidents: leaders that go, partitions that are added, a topic that is made anew."""

from __future__ import annotations

import random

from tests.fault.chaos.nemeses.act import Since, act, await_true, hold
from tests.fault.chaos.nemeses.own_work import OwnWork
from tests.fault.chaos.world import World

_TASKS = 40
_PARTITIONS_MAX = 16
_NOTICED_S = 60.0


class RestartLeader:
    """The leader of a partition is stopped or killed, and started again after a while. One broker at a time."""

    name = "restart_leader"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        kafka = world.stack.kafka
        topic = rng.choice(world.topics)
        with kafka.brokers_held:
            kafka.await_in_sync()
            partition = rng.randrange(kafka.partitions(topic))
            leader = kafka.leader_of(topic, partition)
            killed = rng.random() < 0.5
            with act(world, self.name, f"node {leader.node_id}", how="kill" if killed else "stop") as this:
                since = Since(world)
                try:
                    if killed:
                        leader.kill()
                    else:
                        leader.stop()
                    hold(seconds)
                    # A single broker has nobody to hand over to: then the members say that it is away.
                    others = [node for node in kafka.nodes if node is not leader]
                    moved = bool(others) and await_true(lambda: kafka.leader_of(topic, partition) is not leader)
                finally:
                    leader.start()
                kafka.await_in_sync()
                noticed = {} if moved else since.any_of("broker.unavailable", "library.warned")
                this.effect(moved or noticed, leader_moved=moved, **noticed)


class RaisePartitions:
    """A topic gets more partitions while it is written and read."""

    name = "raise_partitions"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        kafka = world.stack.kafka
        with kafka.brokers_held:
            topic = min(world.topics, key=kafka.partitions)
            before = kafka.partitions(topic)
            if before >= _PARTITIONS_MAX:
                return
            now = kafka.add_partitions(topic, rng.randint(1, 2))
        with act(world, self.name, topic, partitions=before) as this:
            hold(seconds)
            new = range(before, now)

            def claimed() -> bool:
                return all(world.fleet.count("partition.claimed", topic=topic, partition=n) for n in new)

            this.effect(await_true(claimed, _NOTICED_S), partitions=now)


class RecreateTopic:
    """The side topic is deleted with unread records in it and made anew, while members read it.

    What was on the deleted log may be lost: guarantees speak of records that Kafka still keeps. What is published
    afterwards may not, although its offsets were all there before.
    """

    name = "recreate_topic"

    def run(self, world: World, rng: random.Random, seconds: float) -> None:
        kafka, topic = world.stack.kafka, world.side_topic
        with kafka.brokers_held, act(world, self.name, topic) as this:
            since = Since(world)
            work = OwnWork(world, self.name)
            partitions = kafka.partitions(topic)
            first = work.publish(topic, _TASKS)
            work.await_folded(first)
            work.publish(topic, rng.randint(_TASKS, 4 * _TASKS), label="lost")
            kafka.delete_topic(topic)
            kafka.create_topic(topic, partitions)
            after = work.publish(topic, 2 * _TASKS)
            noticed = since.any_of("topic.recreated", timeout_s=_NOTICED_S)
            folded = work.await_folded(after)
            this.effect(noticed and folded, fan_out=after, **noticed)
            hold(seconds / 2)


BROKER_NEMESES = (RestartLeader(), RaisePartitions(), RecreateTopic())
