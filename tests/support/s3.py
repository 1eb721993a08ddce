"""A real S3 API for tests: S3Proxy (Java) over a folder, with signed requests, on loopback."""

from __future__ import annotations

import shutil
import socket
from functools import partial
from pathlib import Path

from fanfold_consumer.devstack import temporary_folder
from fanfold_consumer.devstack.cache import cache_dir, made_once
from fanfold_consumer.devstack.maven import JAVA_MAJOR_MIN, copy_dependencies, java_major_version
from fanfold_consumer.devstack.ports import LOOPBACK, free_port
from fanfold_consumer.devstack.process import Command, ServerProcess

VERSION = "2.6.0"
BUCKET = "claims"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_PROPERTIES = """\
s3proxy.endpoint=http://{host}:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity=tests
s3proxy.credential=secret
# The checksums that newer clients send with a bulk deletion.
s3proxy.ignore-unknown-headers=true
jclouds.provider=filesystem-nio2
jclouds.identity=unused
jclouds.credential=unused
jclouds.filesystem.basedir={data}
"""


def s3_available() -> str | None:
    """None when the server can be started here, else why not."""
    major = java_major_version()
    if major is None or major < JAVA_MAJOR_MIN:
        return f"there is no java of version {JAVA_MAJOR_MIN} or newer to run S3Proxy"
    if not _jars().is_dir() and shutil.which("mvn") is None:
        return f"there is no mvn to fetch S3Proxy {VERSION}, and {_jars()} does not have it yet"
    return None


def _jars() -> Path:
    return cache_dir() / f"s3proxy-{VERSION}" / "lib"


class S3Server:
    """One server with one bucket. `kill` and `start` keep port and objects."""

    def __init__(self) -> None:
        self.folder = temporary_folder("s3")
        self.port = free_port()
        self._process: ServerProcess | None = None
        (self.data / BUCKET).mkdir(parents=True)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def env(self) -> dict[str, str]:
        """What obstore reads: as AWS' own tools do, but for AWS_ALLOW_HTTP."""
        return {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        jars = made_once(_jars(), partial(copy_dependencies, "org.gaul", "s3proxy", VERSION))
        properties = self.folder / "s3proxy.properties"
        properties.write_text(_PROPERTIES.format(host=LOOPBACK, port=self.port, data=self.data))
        java = ["java", "-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-DLOG_LEVEL=WARN", "-cp", f"{jars}/*"]
        self._process = ServerProcess(
            Command(
                name=f"S3Proxy {VERSION}",
                argv=[*java, "org.gaul.s3proxy.Main", "--properties", str(properties)],
                log_path=self.folder / "s3proxy.log",
                cwd=self.folder,
            )
        )
        self._process.wait_ready(self._listens, timeout_s=_START_TIMEOUT_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(timeout_s=_STOP_TIMEOUT_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), 1.0).close()
        except OSError:
            return False
        return True
