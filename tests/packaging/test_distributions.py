"""What a user installs is complete: wheel, sdist and editable carry the SQL files and the type markers."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.tree import ROOT, project_files

_PACKAGES = {
    "fanfold_schemas": "schemas",
    "fanfold_sql": "sql",
    "fanfold_producer": "producer",
    "fanfold_consumer": "consumer",
}

# Looked up, not imported: what is asked is where the files are, not whether the dependencies are.
_SHOW_SQL = """
from importlib.util import find_spec
from pathlib import Path
package = Path(find_spec("fanfold_sql").submodule_search_locations[0])
for path in package.glob("*/*.sql"):
    print(path.relative_to(package).as_posix())
"""


def _run(*command: str, cwd: Path, pythonpath: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if pythonpath is not None:
        env["PYTHONPATH"] = str(pythonpath)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{said}"
    return done.stdout


def _build(source: Path, kind: str, target: Path) -> Path:
    """Build one distribution with what is installed: nothing is downloaded."""
    build = (sys.executable, "-m", "build", "--no-isolation", f"--{kind}")
    _run(*build, "--outdir", str(target), ".", cwd=source)
    (built,) = target.iterdir()
    return built


def _pip_install(*arguments: str, target: Path, cwd: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index")
    _run(*pip, "--no-deps", "--target", str(target), *arguments, cwd=cwd)


def _sources() -> set[str]:
    """Every file of the four packages as it should be named in a wheel."""
    roots = {package: ROOT / folder for package, folder in _PACKAGES.items()}
    return {
        path.relative_to(root).as_posix()
        for path in project_files()
        for package, root in roots.items()
        if path.is_relative_to(root / package)
    }


def _sql_sources() -> set[str]:
    root = ROOT / "sql" / "fanfold_sql"
    return {path.relative_to(root).as_posix() for path in root.glob("*/*.sql")}


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if ".dist-info/" not in name or name.endswith(("/METADATA", "/entry_points.txt"))
        }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def test_the_wheel_has_every_file_of_the_four_packages_and_nothing_else(wheel: Path) -> None:
    packaged = {name for name in _content(wheel) if ".dist-info/" not in name}
    assert packaged == _sources()
    assert _sql_sources()


@pytest.mark.parametrize("package", _PACKAGES)
def test_the_wheel_marks_each_package_as_typed(wheel: Path, package: str) -> None:
    assert f"{package}/py.typed" in _content(wheel)


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert _content(_build(source, "wheel", tmp_path / "wheel")) == _content(wheel)


def test_the_sdist_has_the_tests_and_the_licence(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "Makefile", "pyproject.toml", "tests/conftest.py", "requirements/dev.txt"} <= names


def test_an_installed_wheel_finds_its_sql_and_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    _pip_install(str(wheel), target=target, cwd=tmp_path)
    found = _run(sys.executable, "-c", _SHOW_SQL, cwd=tmp_path, pythonpath=target).split()
    assert set(found) == _sql_sources()
    show = "import fanfold_sql; print(fanfold_sql.__file__)"
    where = _run(sys.executable, "-c", show, cwd=tmp_path, pythonpath=target)
    assert Path(where.strip()).is_relative_to(target)
    version = _run(str(target / "bin" / "fanfold"), "--version", cwd=tmp_path, pythonpath=target)
    assert "0.1.0" in version


def test_an_editable_install_finds_its_sql(tmp_path: Path) -> None:
    target = tmp_path / "editable"
    _pip_install("--no-build-isolation", "--editable", str(ROOT), target=target, cwd=tmp_path)
    # Only site folders have their .pth files read, and a --target is none until it is made one.
    show = f"import site; site.addsitedir({str(target)!r})\n{_SHOW_SQL}"
    found = _run(sys.executable, "-S", "-c", show, cwd=tmp_path).split()
    assert set(found) == _sql_sources()
