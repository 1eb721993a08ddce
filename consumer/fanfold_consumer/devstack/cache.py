"""Where downloads that several runs share are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """FANFOLD_CACHE, else fanfold/ in XDG_CACHE_HOME, else ~/.cache/fanfold. Not created here."""
    own = os.environ.get("FANFOLD_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fanfold"
