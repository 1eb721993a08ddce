"""Which broker and which PostgreSQL this run uses, and why. Decided once, without starting anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from fanfold_consumer.devstack import ENV_DATABASE_URL, apache_kafka_available, postgres_installations
from fanfold_consumer.devstack.postgres import DEFAULT_VERSION
from tests.support.postgres_builds import available_versions

ENV_BROKER = "FANFOLD_TEST_BROKER"
ENV_POSTGRES = "FANFOLD_TEST_POSTGRES"

BROKERS = ("docker", "apache-kafka", "embedded")


@dataclass(frozen=True, slots=True)
class Choice:
    kind: str
    why: str


@cache
def docker_missing() -> str | None:
    """None when a container engine answers, else why there is none."""
    try:
        import docker
    except ImportError:
        return "the docker package is not installed"
    try:
        client = docker.from_env(timeout=3)
        try:
            client.ping()
        finally:
            client.close()
    except Exception as error:  # docker wraps the causes in many classes; each one means: not here
        return f"no container engine answers ({type(error).__name__})"
    return None


@cache
def chosen_broker() -> Choice:
    """The best real broker there is: a container, else Apache Kafka started here, else the embedded one."""
    asked = os.environ.get(ENV_BROKER)
    if asked:
        if asked not in BROKERS:
            raise ValueError(f"{ENV_BROKER}={asked!r} names no broker; take one of {', '.join(BROKERS)}")
        return Choice(asked, f"asked for by {ENV_BROKER}")
    no_docker = docker_missing()
    if no_docker is None:
        return Choice("docker", "a container engine answers")
    no_kafka = apache_kafka_available()
    if no_kafka is None:
        return Choice("apache-kafka", no_docker)
    return Choice("embedded", f"{no_docker}; {no_kafka}")


@cache
def chosen_postgres() -> Choice:
    """DATABASE_URL, else an embedded server (FANFOLD_TEST_POSTGRES asks for a version), else a container."""
    if os.environ.get(ENV_DATABASE_URL):
        return Choice("external", f"{ENV_DATABASE_URL} is set")
    found = postgres_installations()
    asked = os.environ.get(ENV_POSTGRES)
    if asked:
        available = [str(version) for version in available_versions()]
        if asked not in available:
            raise ValueError(
                f"{ENV_POSTGRES}={asked!r} cannot be had here: installed or fetched by Maven are "
                f"{', '.join(available) or 'none'}"
            )
        return Choice(asked, f"asked for by {ENV_POSTGRES}")
    if found:
        return Choice(str(DEFAULT_VERSION if DEFAULT_VERSION in found else max(found)), "embedded")
    no_docker = docker_missing()
    if no_docker is None:
        return Choice("docker", "no PostgreSQL is installed; a container engine answers")
    raise ValueError(
        f"no PostgreSQL for the tests: none is installed, {ENV_DATABASE_URL} is not set, and {no_docker}. "
        "Install the dev-stack extra."
    )
