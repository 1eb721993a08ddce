"""Programs that Maven fetches once, from the repository it is set up with: Apache Kafka's, and others' for tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from fanfold_consumer.devstack.cache import cache_dir, made_once
from fanfold_consumer.devstack.errors import DevStackError

KAFKA_VERSION = "4.1.0"
JAVA_MAJOR_MIN = 17

_DOWNLOAD_TIMEOUT_S = 900.0

# No repository is named: which one serves the artifacts is the machine's own Maven configuration.
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.fanfold</groupId>
  <artifactId>server-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>{group}</groupId>
      <artifactId>{artifact}</artifactId>
      <version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""


def apache_kafka_available(version: str = KAFKA_VERSION) -> str | None:
    """None when Apache Kafka can be started here, else why not. Starts no server and downloads nothing."""
    major = java_major_version()
    if major is None:
        return f"there is no java; Apache Kafka needs Java {JAVA_MAJOR_MIN} or newer"
    if major < JAVA_MAJOR_MIN:
        return f"the java on the PATH is version {major}; Apache Kafka needs {JAVA_MAJOR_MIN} or newer"
    if not _jars(version).is_dir() and shutil.which("mvn") is None:
        return f"there is no mvn to fetch Apache Kafka {version}, and {_jars(version)} does not have it yet"
    return None


def java_major_version() -> int | None:
    if shutil.which("java") is None:
        return None
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30)
    # "17.0.15", "21", and from the days before Java 9 "1.8.0_392"
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(found[1]) if found else None


def kafka_jars(version: str = KAFKA_VERSION) -> Path:
    """The folder with Kafka's jars, downloaded on first use. Concurrent callers wait for the first one.

    Raises:
        DevStackError: Maven could not fetch them; the message has what it said.
    """
    return made_once(_jars(version), partial(copy_dependencies, "org.apache.kafka", "kafka_2.13", version))


def _jars(version: str) -> Path:
    return cache_dir() / f"kafka-{version}" / "lib"


def copy_dependencies(group: str, artifact: str, version: str, folder: Path) -> None:
    """Let Maven put the jar of an artifact, and those it needs at run time, into a folder.

    Raises:
        DevStackError: Maven could not fetch them; the message has what it said.
    """
    what = f"{artifact} {version}"
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "pom.xml").write_text(_POM.format(group=group, artifact=artifact, version=version))
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        command.append(f"-DoutputDirectory={folder}")
        try:
            done = subprocess.run(
                command,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_DOWNLOAD_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise DevStackError(
                f"Maven did not fetch {what} within {_DOWNLOAD_TIMEOUT_S:g} s. "
                "Check its network and proxy settings and try again."
            ) from None
    if done.returncode != 0 or not list(folder.glob(f"{artifact}-*.jar")):
        raise DevStackError(
            f"Maven could not fetch {what} (status {done.returncode}). "
            f"Check its network and proxy settings and try again. It said:\n{done.stdout}{done.stderr}"
        )
