"""Settings of a fleet member: every limit holds at both ends, and every problem is told at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fanfold_consumer import ConfigError, FleetConfig
from fanfold_consumer.config import _BOUNDS
from fanfold_producer.kafka import KafkaConfig

# Wide enough for every setting to be tried at its ends without hitting another check.
_ROOMY = {"max.poll.interval.ms": "86400000"}


def _config(kafka: dict[str, str] | None = None, **settings: Any) -> FleetConfig:
    given: dict[str, Any] = {"group_id": "g", "topics": ("t",), "kafka": KafkaConfig("broker:9092", kafka or {})}
    return FleetConfig(**given | settings)


def _problems(config: FleetConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.check()
    return list(caught.value.problems)


def _only_problem(config: FleetConfig) -> str:
    (problem,) = _problems(config)
    return problem


def test_the_defaults_can_work() -> None:
    _config().check()


def test_all_problems_are_told_at_once() -> None:
    config = _config(
        {"session.timeout.ms": "6000", "group.protocol": "consumer"},
        group_id="",
        topics=("a b", "fine", "x" * 250),
        start="middle",
        concurrency=0,
        pool_size=1000,
        health_port=70_000,
    )
    problems = "\n".join(_problems(config))
    for what in ("--group", "'a b'", "'xxx", "--start", "--concurrency", "--pool-size", "--health-port", "session."):
        assert what in problems, what
    assert len(problems.splitlines()) == 8
    assert "fine" not in problems


def test_the_error_lists_its_problems_one_a_line() -> None:
    with pytest.raises(ConfigError, match=r"cannot work:\n  - --group: .*\n  - --topic: none is named$"):
        _config(group_id="a b", topics=()).check()


@pytest.mark.parametrize("group_id", ["", "a b", "a/b", "x" * 201, "a\n"])
def test_a_group_must_be_an_id(group_id: str) -> None:
    assert "--group" in _only_problem(_config(group_id=group_id))


def test_a_member_needs_a_topic() -> None:
    assert _only_problem(_config(topics=())) == "--topic: none is named"


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "ä", "x" * 246])
def test_a_topic_must_be_one_that_kafka_takes_with_its_dead_letter_topic(topic: str) -> None:
    assert "--topic" in _only_problem(_config(topics=("fine", topic)))


def test_every_number_has_limits() -> None:
    numbers = {
        field.name
        for field in dataclasses.fields(FleetConfig)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers == {name for name, _, _ in _BOUNDS}


@pytest.mark.parametrize(("name", "low", "high"), _BOUNDS)
def test_a_number_may_be_at_its_limits_and_not_beyond(name: str, low: float, high: float) -> None:
    for value in (low, high):
        _config(_ROOMY, **{name: value}).check()
    step = 1 if isinstance(low, int) and isinstance(high, int) else 0.01
    for value in (low - step, high + step, float("nan")):
        problems = _problems(_config(_ROOMY, **{name: value}))
        assert any(p.startswith(f"--{name.replace('_', '-')}: {value} is outside {low} .. {high}") for p in problems)


@pytest.mark.parametrize("port", [None, 0, 1, 65_535])
def test_a_health_port_may_be_any_free_one_or_none(port: int | None) -> None:
    _config(health_port=port).check()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_health_port_must_be_a_port(port: int) -> None:
    assert _only_problem(_config(health_port=port)) == f"--health-port: {port} is outside 0 .. 65535"


def test_a_small_bound_on_what_is_in_flight_bounds_all_other_numbers_without_a_complaint() -> None:
    _config(in_flight_max=1).check()


def test_a_hand_over_must_end_before_the_broker_throws_the_member_out() -> None:
    assert "max.poll.interval.ms 5000" in _only_problem(_config({"max.poll.interval.ms": "5000"}, revoke_grace_s=5))
    _config({"max.poll.interval.ms": "5001"}, revoke_grace_s=5).check()
    assert "max.poll.interval.ms 300000" in _only_problem(_config(revoke_grace_s=300))


@pytest.mark.parametrize("value", ["5m", "", "1e5"])
def test_a_poll_interval_that_is_no_number_is_a_problem_and_no_traceback(value: str) -> None:
    problem = _only_problem(_config({"max.poll.interval.ms": value}))
    assert problem.startswith(f"Kafka property max.poll.interval.ms={value}")


@pytest.mark.parametrize("name", ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"])
@pytest.mark.parametrize("protocol", ["consumer", "CONSUMER"])
def test_what_the_broker_decides_under_the_new_protocol_cannot_be_set(name: str, protocol: str) -> None:
    config = _config({"group.protocol": protocol, f"consumer.{name}": "range"})
    assert _only_problem(config).startswith(f"Kafka property {name}=range")
    _config({"consumer.partition.assignment.strategy": "range"}).check()


@pytest.mark.parametrize("assignor", ["", "sticky", "RANGE", "range,sticky", "range roundrobin"])
def test_an_assignor_must_be_one_that_the_client_knows(assignor: str) -> None:
    assert "--assignor" in _only_problem(_config(assignor=assignor))
    _config({"group.protocol": "consumer"}, assignor=assignor).check()


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "range,roundrobin", "cooperative-sticky"])
def test_an_assignor_that_the_client_knows_is_taken(assignor: str) -> None:
    _config(assignor=assignor).check()


def test_assignors_of_two_kinds_cannot_be_mixed() -> None:
    assert "cannot be mixed" in _only_problem(_config(assignor="cooperative-sticky,range"))


def test_what_fanfold_sets_itself_may_be_written_out_in_a_file_that_others_share() -> None:
    shared = {"isolation.level": "read_committed", "enable.auto.commit": "false", "auto.offset.reset": "error"}
    config = _config(shared)
    config.check()
    assert config.consumer_settings()["isolation.level"] == "read_committed"
    assert config.consumer_settings()["check.crcs"] is True


class TestConsumerSettings:
    def test_offsets_are_left_to_postgres_and_a_missing_one_is_an_error(self) -> None:
        settings = _config().consumer_settings()
        assert settings["enable.auto.commit"] is False
        assert settings["enable.auto.offset.store"] is False
        assert settings["auto.offset.reset"] == "error"
        assert settings["isolation.level"] == "read_committed"
        assert settings["bootstrap.servers"] == "broker:9092"
        assert settings["group.id"] == "g"

    def test_the_classic_protocol_is_given_an_assignor(self) -> None:
        settings = _config(assignor="range").consumer_settings()
        assert settings["partition.assignment.strategy"] == "range"

    @pytest.mark.parametrize("protocol", ["consumer", "CONSUMER"])
    def test_the_new_protocol_is_given_none(self, protocol: str) -> None:
        assert "partition.assignment.strategy" not in _config({"group.protocol": protocol}).consumer_settings()

    def test_a_property_comes_before_our_default(self) -> None:
        settings = _config({"consumer.fetch.wait.max.ms": "500", "partition.assignment.strategy": "range"})
        assert settings.consumer_settings()["fetch.wait.max.ms"] == "500"
        assert settings.consumer_settings()["partition.assignment.strategy"] == "range"

    def test_properties_of_producers_are_left_out(self) -> None:
        assert "linger.ms" not in _config({"producer.linger.ms": "5"}).consumer_settings()

    def test_membership_is_static_only_if_the_instance_is_named(self) -> None:
        assert "group.instance.id" not in _config().consumer_settings()
        assert _config(group_instance_id="pod-1").consumer_settings()["group.instance.id"] == "pod-1"

    @pytest.mark.parametrize(
        ("properties", "assignor", "cooperative"),
        [
            ({}, "cooperative-sticky", True),
            ({}, "range", False),
            ({}, "range,roundrobin", False),
            ({"group.protocol": "classic"}, "range", False),
            ({"group.protocol": "consumer"}, "range", True),
            ({"consumer.group.protocol": "CONSUMER"}, "range", True),
            ({"partition.assignment.strategy": "range"}, "cooperative-sticky", False),
            ({"consumer.partition.assignment.strategy": "cooperative-sticky"}, "range", True),
        ],
    )
    def test_assignments_are_incremental_under_cooperative_rebalancing_and_the_new_protocol(
        self, properties: dict[str, str], assignor: str, cooperative: bool
    ) -> None:
        assert _config(properties, assignor=assignor).cooperative is cooperative
