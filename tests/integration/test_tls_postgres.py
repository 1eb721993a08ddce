"""Postgres over TLS with `verify-full`, and passwords that come from files: what works, and what is said if not."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fanfold_consumer.devstack import EmbeddedPostgres, postgres_installations, temporary_folder
from fanfold_sql import StoreUnavailable, connect, migrate
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.members import LocalMember
from tests.support.operator import Operator
from tests.support.rig import Rig, rig_for
from tests.support.tls import Authority

PASSWORD, WRONG = "hush-4711-hush", "hush-wrong-hush"
USER = "tls_worker"


@dataclass(frozen=True, slots=True)
class SecuredPostgres:
    """It takes workers over TLS with a password only. `dsn` is the way in for its owner."""

    dsn: str
    port: int
    authority: Authority

    def worker(self, *, password: str | None = PASSWORD, ca: Path | None = None, host: str = "127.0.0.1") -> str:
        return make_conninfo(
            host=host,
            port=self.port,
            dbname="postgres",
            user=USER,
            **({} if password is None else {"password": password}),
            sslmode="verify-full",
            sslrootcert=str(ca or self.authority.certificate),
        )


@cache
def _with_tls() -> Path | None:
    """The programs of an installed PostgreSQL that was built with TLS; the one in the wheel was not."""
    for programs in postgres_installations().values():
        ask = [str(programs / "pg_config"), "--configure"]
        if (programs / "pg_config").is_file() and "ssl" in subprocess.run(ask, capture_output=True, text=True).stdout:
            return programs
    return None


@pytest.fixture(scope="module")
def postgres() -> Iterator[SecuredPostgres]:
    programs = _with_tls()
    if programs is None:
        pytest.skip("no installed PostgreSQL was built with TLS")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    folder = temporary_folder("secured-postgres", enterable=True)
    authority = Authority(folder / "authority")
    (folder / "authority").chmod(0o711)
    # Beyond its address, `localhost` leads to it too; that is not in its certificate.
    issued = authority.issue("server")
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        os.chown(issued.key, account.pw_uid, account.pw_gid)
    issued.key.chmod(0o600)
    hba = folder / "pg_hba.conf"
    hba.write_text(f"hostssl all {USER} samehost scram-sha-256\nhost all postgres samehost trust\n")
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(issued.certificate),
        "ssl_key_file": str(issued.key),
        "hba_file": str(hba),
    }
    with EmbeddedPostgres(folder / "data", version=programs, settings=settings) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(f"create role {USER} login password '{PASSWORD}' in role fanfold_worker".encode())
        yield SecuredPostgres(server.dsn, server.port, authority)


@pytest.fixture
def rig(postgres: SecuredPostgres, broker: Broker, tmp_path: Path, topic: Topic) -> Iterator[Rig]:
    del topic  # it goes after the members
    database = Database(name="postgres", dsn=postgres.dsn, worker_dsn=postgres.worker())
    with rig_for(broker.config, database, tmp_path, atomic=broker.is_real_kafka) as rig:
        yield rig


@pytest.fixture
def operator(
    postgres: SecuredPostgres, broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, Database("postgres", postgres.dsn, postgres.worker()), monkeypatch, capsys)


def test_members_publishers_and_commands_work_over_verified_tls_and_log_no_secret(
    rig: Rig, operator: Operator, topic: Topic
) -> None:
    member = rig.start(topic, log_level="debug")
    assert rig.publish(topic, [("square", n) for n in range(20)], fold="sum").result(30) == 2470
    encrypted = rig.rows(
        "select distinct s.ssl from pg_stat_ssl s join pg_stat_activity using (pid) where application_name = 'fanfold'"
    )
    assert encrypted == [(True,)]
    for command in ("status", "doctor"):
        ran = operator.run(command, "--json")
        assert ran.json
        assert PASSWORD not in ran.out + ran.err
    assert member.stop() == 0
    assert PASSWORD not in member.log()


def test_a_server_whose_certificate_another_authority_signed_is_refused(postgres: SecuredPostgres) -> None:
    stranger = Authority(temporary_folder("tls") / "stranger")
    with pytest.raises(StoreUnavailable, match="check that sslrootcert names the authority"):
        connect(postgres.worker(ca=stranger.certificate))


def test_a_server_of_another_name_than_its_certificate_has_is_refused(postgres: SecuredPostgres) -> None:
    with pytest.raises(StoreUnavailable, match="connect to a host name that the server's certificate is for"):
        connect(postgres.worker(host="localhost"))


def test_a_connection_without_tls_is_not_let_in(postgres: SecuredPostgres) -> None:
    with pytest.raises(StoreUnavailable, match="no encryption"):
        connect(make_conninfo(postgres.worker(), sslmode="disable", sslrootcert=""))


def test_a_wrong_password_is_said_to_be_wrong_by_commands_and_members_that_do_not_say_what_it_is(
    postgres: SecuredPostgres, operator: Operator, rig: Rig, topic: Topic
) -> None:
    wrong = postgres.worker(password=WRONG)
    ran = operator.run("status", "--database-url", wrong)
    assert ran.status == 1
    assert "check user and password" in ran.err
    rig.database = Database("postgres", postgres.dsn, wrong)
    member = rig.start(topic, log_level="debug")
    assert "check user and password" in member.await_event("store.unavailable")["error"]
    assert WRONG not in member.log() + ran.out + ran.err


@pytest.mark.parametrize("way", ["password file", "service file"])
def test_a_password_may_come_from_a_file(
    postgres: SecuredPostgres, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    file = tmp_path / "secret"
    if way == "password file":
        file.write_text(f"127.0.0.1:*:*:{USER}:{PASSWORD}\n")
        monkeypatch.setenv("PGPASSFILE", str(file))
        url = postgres.worker(password=None)
    else:
        settings = psycopg.conninfo.conninfo_to_dict(postgres.worker())
        file.write_text("[fanfold]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))
        monkeypatch.setenv("PGSERVICEFILE", str(file))
        url = "service=fanfold"
    file.chmod(0o600)
    assert operator.run("status", "--database-url", url).status == 0


def test_a_member_takes_all_of_its_database_from_a_service_file(
    postgres: SecuredPostgres, rig: Rig, topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services"
    settings = psycopg.conninfo.conninfo_to_dict(postgres.worker())
    file.write_text("[fanfold]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    rig.database = Database("postgres", postgres.dsn, "service=fanfold")
    member: LocalMember = rig.start_here(topic)
    member.await_partitions()
