"""What is downloaded for servers is either complete and what was pinned, or not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fanfold_consumer.devstack import DevStackError
from fanfold_consumer.devstack.cache import cache_dir, made_once
from tests.support import postgres_builds


def _write(folder: Path) -> None:
    (folder / "file").write_text("made")


def test_a_folder_is_made_on_first_use_and_then_kept(tmp_path: Path) -> None:
    folder = made_once(tmp_path / "thing-1" / "lib", _write)
    (folder / "file").write_text("kept")
    assert made_once(folder, _write) == folder
    assert (folder / "file").read_text() == "kept"


def test_a_failure_leaves_no_half_made_folder_so_the_next_call_tries_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        _write(folder)
        raise DevStackError("the network went away")

    with pytest.raises(DevStackError):
        made_once(tmp_path / "lib", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert (made_once(tmp_path / "lib", _write) / "file").read_text() == "made"


def test_concurrent_callers_make_it_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        _write(folder)

    callers = [threading.Thread(target=made_once, args=(tmp_path / "lib", make)) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(made) == 1


def test_a_server_that_is_not_the_pinned_one_is_neither_unpacked_nor_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FANFOLD_CACHE", str(tmp_path))
    build = postgres_builds.Build("linux-amd64", "14.24.0", "0" * 64)
    monkeypatch.setattr(postgres_builds, "postgres_installations", dict)
    monkeypatch.setattr(postgres_builds, "_builds", lambda: {14: build})

    def serve_another(_group: str, artifact: str, version: str, folder: Path) -> None:
        (folder / f"{artifact}-{version}.jar").write_bytes(b"another")

    monkeypatch.setattr(postgres_builds, "copy_dependencies", serve_another)
    with pytest.raises(DevStackError, match=r"not 0000.* as when it was pinned"):
        postgres_builds.postgres_programs(14)
    assert cache_dir() == tmp_path
    assert not build.folder.exists()
