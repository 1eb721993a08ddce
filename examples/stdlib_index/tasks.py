"""Index Python's standard library: one task a file, one fold over all files.

`python examples/stdlib_index/tasks.py` does the same in a single process and prints the answer as JSON; the demo
compares its fleet with that.
"""

from __future__ import annotations

import io
import json
import keyword
import os
import sys
import sysconfig
import time
import tokenize
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from fanfold_consumer import fold, task

STDLIB = Path(sysconfig.get_paths()["stdlib"]).resolve()
RUNS_FILE = "STDLIB_INDEX_RUNS"
"""Names a file to which every call of a handler is appended, so that calls can be counted and not only effects."""

TOP = 10
_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True, slots=True)
class FileIndex:
    """One file. `problem`: why its identifiers are not counted; its lines always are."""

    path: str
    lines: int
    identifiers: dict[str, int]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LibraryIndex:
    """The whole library. `counted_twice`: results of a file that was in already; it is 0, or folding is broken."""

    files: int
    lines: int
    identifiers: int
    distinct_identifiers: int
    top_identifiers: list[tuple[str, int]]
    problems: dict[str, str]
    counted_twice: int


@task("index_file")
def index_file(path: str) -> FileIndex:
    """Count the lines and identifiers of a file, given its path relative to the standard library."""
    _note_call(path)
    file = (STDLIB / path).resolve()
    if not file.is_relative_to(STDLIB):
        raise ValueError(f"{path!r} is outside of the standard library, {STDLIB}")
    source = file.read_bytes()
    lines = len(source.splitlines())
    names: Counter[str] = Counter()
    try:
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                names[token.string] += 1
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
        # The library has test data that is no Python: unknown encodings, broken syntax. Half a count would be a lie.
        return FileIndex(path, lines, {}, type(error).__name__)
    return FileIndex(path, lines, dict(sorted(names.items())))


@fold("merge_indexes")
def merge_indexes(files: list[FileIndex]) -> LibraryIndex:
    """Add up all files. They come in the order of the Sends, so the answer does not depend on who was faster."""
    _note_call("fold")
    names: Counter[str] = Counter()
    for file in files:
        names.update(file.identifiers)
    return LibraryIndex(
        files=len(files),
        lines=sum(file.lines for file in files),
        identifiers=names.total(),
        distinct_identifiers=len(names),
        top_identifiers=sorted(names.items(), key=lambda item: (-item[1], item[0]))[:TOP],
        problems={file.path: file.problem for file in files if file.problem is not None},
        counted_twice=len(files) - len({file.path for file in files}),
    )


def stdlib_files(limit: int | None = None) -> list[str]:
    """Every .py file of the running interpreter's library, sorted; with a limit so many, evenly spaced."""
    found = sorted(
        path.relative_to(STDLIB).as_posix()
        for path in STDLIB.rglob("*.py")
        if not _NOT_STDLIB.intersection(path.relative_to(STDLIB).parts)
    )
    if limit is None or limit >= len(found):
        return found
    return [found[at * len(found) // limit] for at in range(limit)]


def _note_call(what: str) -> None:
    name = os.environ.get(RUNS_FILE)
    if name:
        # One unbuffered write in append mode: lines of several processes never mix, and none is lost by kill -9.
        with Path(name).open("ab", buffering=0) as runs:
            runs.write(f"{time.time():.4f} {os.getpid()} {what}\n".encode())


if __name__ == "__main__":
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else None
    print(json.dumps(asdict(merge_indexes([index_file(path) for path in stdlib_files(limit)]))))
