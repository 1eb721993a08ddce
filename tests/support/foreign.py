"""Producers in other languages: the programs of examples/producers, and what they need, fetched once."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.producers import tasks
from fanfold_consumer import Registry
from fanfold_consumer.devstack.cache import cache_dir, made_once
from fanfold_consumer.devstack.maven import java_major_version
from fanfold_producer.kafka import ENV_BOOTSTRAP_SERVERS
from tests.support.kafka import Broker
from tests.support.tree import ROOT

FOLDER = ROOT / "examples/producers"
LINES = FOLDER / "lines.tsv"

_FETCH_TIMEOUT_S = 60.0
_RUN_TIMEOUT_S = 60.0
_NODE_MIN = (20, 19, 4)
_JAVA_MAJOR_MIN = 17


class Unavailable(Exception):
    """The producer cannot run here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Client:
    """One of the programs. `own_ids`: its task ids are `<fan_out_id>.<index>`, and it writes no ce_id."""

    name: str
    command: tuple[str, ...]
    own_ids: bool = False

    def publish(self, broker: Broker, topic: str, thread_id: str, fan_out_id: str, **env: str) -> None:
        """Publish the lines of the example; fails with what the program said if it fails."""
        done = subprocess.run(
            [*self.command, topic, thread_id, fan_out_id, str(LINES)],
            env={**os.environ, ENV_BOOTSTRAP_SERVERS: broker.bootstrap, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT_S,
        )
        assert done.returncode == 0, f"{self.name} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"


def kcat(scratch: Path) -> Client:
    del scratch
    if "Transactions" not in _said("kcat", "-V"):
        raise Unavailable("the kcat on the PATH knows no transactions; 1.7 does")
    return Client("kcat", ("bash", str(FOLDER / "kcat/publish.sh")), own_ids=True)


def node(scratch: Path) -> Client:
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", _said("node", "--version"))
    if found is None or tuple(map(int, found.groups())) < _NODE_MIN:
        raise Unavailable(f"the node on the PATH is older than {'.'.join(map(str, _NODE_MIN))}")
    recipe = [FOLDER / "node/package.json", FOLDER / "node/package-lock.json"]
    packages = _fetched(
        "node", recipe, ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
    )
    # A module looks for packages beside itself and above, so it has to stand beside them.
    shutil.copy(FOLDER / "node/publish.mjs", scratch)
    (scratch / "node_modules").symlink_to(packages / "node_modules")
    return Client("node", ("node", str(scratch / "publish.mjs")))


def java(scratch: Path) -> Client:
    del scratch
    if shutil.which("javac") is None or (java_major_version() or 0) < _JAVA_MAJOR_MIN:
        raise Unavailable(f"there is no JDK {_JAVA_MAJOR_MIN} or newer on the PATH")
    copy = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib"]
    jars = _fetched("java", [FOLDER / "java/pom.xml"], copy) / "lib"
    return Client("java", ("java", "-cp", f"{jars}/*", str(FOLDER / "java/Publish.java")))


def args() -> list[dict[str, Any]]:
    """What the programs publish: the args of their tasks, in order."""
    rows = [line.split("\t") for line in LINES.read_text().splitlines()]
    return [{"text": text, "at_ns": int(at), "sha256": hashlib.sha256(text.encode()).digest()} for at, text in rows]


def registry() -> Registry:
    """The handlers of their tasks."""
    found = Registry()
    found.task("count_line", retries=0)(tasks.count_line)
    found.fold("sum_lines")(tasks.sum_lines)
    return found


CLIENTS: tuple[Callable[[Path], Client], ...] = (kcat, node, java)


def _fetched(label: str, recipe: Sequence[Path], command: Sequence[str]) -> Path:
    """The folder in which `command` fetched what the files of `recipe` ask for. Another recipe is another folder."""
    if shutil.which(command[0]) is None:
        raise Unavailable(f"there is no {command[0]}")

    def fetch(folder: Path) -> None:
        for file in recipe:
            shutil.copy(file, folder)
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FETCH_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]} fetched nothing within {_FETCH_TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            raise Unavailable(f"{command[0]} could not fetch what it needs: {(done.stderr or done.stdout)[-500:]}")

    content = hashlib.sha256(b"".join(file.read_bytes() for file in recipe)).hexdigest()
    return made_once(cache_dir() / "examples" / f"{label}-{content[:12]}", fetch)


def _said(*command: str) -> str:
    """What a program says of itself."""
    if shutil.which(command[0]) is None:
        raise Unavailable(f"there is no {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr
