"""KafkaConfig: where settings come from, which win, and that every problem is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanfold_producer import KafkaConfig, KafkaConfigError, cluster_and_topics


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("FANFOLD_KAFKA_PROPERTIES", raising=False)


def _file(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    file = folder / "client.properties"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("FANFOLD_KAFKA_PROPERTIES", str(file))


def test_a_setting_without_a_prefix_reaches_every_kind_of_client() -> None:
    config = KafkaConfig("kafka:9092", {"security.protocol": "SSL"})
    for settings in (config.consumer(), config.producer(), config.admin()):
        assert settings["security.protocol"] == "SSL"
        assert settings["bootstrap.servers"] == "kafka:9092"


def test_a_prefixed_setting_reaches_its_own_kind_only_and_beats_the_common_one() -> None:
    config = KafkaConfig("kafka:9092", {"producer.client.id": "writer", "client.id": "all"})
    assert config.producer()["client.id"] == "writer"
    assert config.consumer()["client.id"] == "all"
    assert config.admin()["client.id"] == "all"
    assert not [name for name in config.admin() if name.startswith("producer.")]


def test_extra_settings_win_and_may_be_spelled_with_underscores() -> None:
    config = KafkaConfig("kafka:9092", {"linger.ms": "7"})
    assert config.producer(linger_ms=3)["linger.ms"] == 3
    assert config.consumer(**{"group.id": "g"})["group.id"] == "g"
    assert config.consumer(error_cb=print)["error_cb"] is print


def test_the_environment_the_file_and_the_overrides_are_merged_in_this_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _file(
        monkeypatch,
        tmp_path,
        "# a comment\n\nbootstrap.servers=file:1\nclient.id = from file \nsasl.password=a=b\nlinger.ms=1\n",
    )
    assert KafkaConfig.from_env().bootstrap_servers == "file:1"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:2")
    assert KafkaConfig.from_env().bootstrap_servers == "environment:2"
    assert KafkaConfig.from_env("argument:3").bootstrap_servers == "argument:3"
    config = KafkaConfig.from_env("argument:3", ["linger.ms=9", "bootstrap.servers=override:4"])
    assert config.bootstrap_servers == "override:4"
    assert config.properties == {"client.id": "from file", "sasl.password": "a=b", "linger.ms": "9"}


@pytest.mark.parametrize(
    "servers",
    ["kafka", "kafka:9092", "a:1,b:65535", "PLAINTEXT://kafka:9092", "[::1]:9092", "[::1]", " a:1 , b:2 ", "10.0.0.1"],
)
def test_addresses_that_librdkafka_takes_are_taken(servers: str) -> None:
    assert KafkaConfig(servers).admin()["bootstrap.servers"] == servers


@pytest.mark.parametrize("servers", ["", " ", "kafka:", "kafka:0", "kafka:65536", "kafka:x", "a:1,", ":9092", "a b:1"])
def test_an_address_that_cannot_be_one_is_refused(servers: str) -> None:
    with pytest.raises(KafkaConfigError) as caught:
        KafkaConfig(servers)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("acks", "1"),
        ("producer.acks", "0"),
        ("enable.idempotence", "false"),
        ("transactional.id", "mine"),
        ("enable.auto.commit", "true"),
        ("consumer.enable.auto.commit", "true"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_uncommitted"),
        ("group.id", "g"),
        ("bootstrap.servers", "kafka:9092"),
    ],
)
def test_a_setting_that_would_break_a_guarantee_is_refused_with_the_reason(key: str, value: str) -> None:
    with pytest.raises(KafkaConfigError, match=key):
        KafkaConfig("kafka:9092", {key: value})


def test_a_guarded_setting_may_be_written_with_the_value_that_it_has_anyway() -> None:
    KafkaConfig("kafka:9092", {"acks": "all", "consumer.isolation.level": "read_committed"})


def test_all_problems_of_all_sources_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _file(monkeypatch, tmp_path, "client.id=x\nnonsense\nacks=1\n")
    with pytest.raises(KafkaConfigError) as caught:
        KafkaConfig.from_env("kafka:99999", ["=value", "group.id=g"])
    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for part in ("line 2", "acks=1", "kafka:99999", "-X number 1", "group.id=g"):
        assert part in told


def test_no_address_anywhere_says_how_to_give_one() -> None:
    with pytest.raises(KafkaConfigError, match="KAFKA_BOOTSTRAP_SERVERS"):
        KafkaConfig.from_env()


def test_a_properties_file_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FANFOLD_KAFKA_PROPERTIES", str(tmp_path / "missing"))
    with pytest.raises(KafkaConfigError, match="FANFOLD_KAFKA_PROPERTIES"):
        KafkaConfig.from_env("kafka:9092")


def test_secrets_are_neither_in_the_repr_nor_in_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "hunter2" not in repr(KafkaConfig("kafka:9092", {"sasl.password": "hunter2"}))
    _file(monkeypatch, tmp_path, "sasl.password hunter2\n")
    with pytest.raises(KafkaConfigError) as caught:
        KafkaConfig.from_env("kafka:9092")
    assert "hunter2" not in str(caught.value)


def test_a_setting_that_librdkafka_does_not_know_is_a_config_error_when_a_client_is_made() -> None:
    with pytest.raises(KafkaConfigError, match=r"no\.such\.setting"):
        cluster_and_topics(KafkaConfig("kafka:9092", {"no.such.setting": "1"}), [])
