"""Where downloads that several runs share are kept."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """FANFOLD_CACHE, else fanfold/ in XDG_CACHE_HOME, else ~/.cache/fanfold. Not created here."""
    own = os.environ.get("FANFOLD_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fanfold"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills on first use, given where. Concurrent callers wait for the first one."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="download-") as scratch:
                made = Path(scratch, folder.name)
                made.mkdir()
                make(made)
                # The rename is what makes it true: a folder of this name is always complete.
                made.rename(folder)
    return folder
