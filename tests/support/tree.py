"""The files of the source tree that belong to the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

_CACHES = {".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"}
_GENERATED = {".git", ".venv", ".venv-bench", ".venv-oldest", "dist", *_CACHES}


def project_files() -> list[Path]:
    """What git tracks or would track; without git (an unpacked sdist) all but what is generated."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = (path for path in ROOT.rglob("*") if not _GENERATED.intersection(path.relative_to(ROOT).parts))
        return [path for path in found if path.is_file()]
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
