"""Sends from a file: JSON Lines or CSV, checked as a whole before anything is published, safe to repeat."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec

from fanfold_producer.errors import ProducerError
from fanfold_schemas import SchemaError, Send, check_id
from fanfold_schemas.ids import NAMESPACE
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX, FAN_OUT_SIZE_MAX

Format = Literal["jsonl", "csv"]

LINE_BYTES_MAX = 8 * 1024 * 1024
"""More than any record needs, escapes included; a longer line is refused without being read."""

LARGE_LINE_BYTES_MAX = 4 * CLAIM_CHECK_BYTES_MAX
"""The same where there is a claim store."""

PROBLEMS_SHOWN_MAX = 10

_SPOOL_BYTES_MAX = 8 * 1024 * 1024
_FIELDS = ("node", "arg", "task_id")


class FileRefused(ProducerError, ValueError):
    """The file cannot be published as it is; nothing was. Do: mend the lines that `problems` names."""

    def __init__(self, name: str, problems: list[str], *, more: bool = False) -> None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        rest = "\n  and more after that" if more else ""
        super().__init__(f"{name} was not published:\n{listed}{rest}")
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that holds a Send, or says why it holds none. Lines count from 1; of a CSV row, its first."""

    number: int
    send: Send | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The Sends of one fan-out and the lines they stand in."""

    lines: list[int]
    sends: list[Send]


def open_input(path: str, stdin: IO[bytes]) -> IO[bytes]:
    """A seekable file, which the caller closes; `-` is `stdin`, kept in a temporary file beyond 8 MiB."""
    if path != "-":
        return Path(path).open("rb")
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES_MAX)  # noqa: SIM115
    shutil.copyfileobj(stdin, spool)
    return cast("IO[bytes]", spool)


def format_of(path: str) -> Format:
    """CSV by its suffix, else JSON Lines."""
    return "csv" if path.lower().endswith(".csv") else "jsonl"


def read_lines(file: IO[bytes], fmt: Format, node: str | None, line_bytes_max: int = LINE_BYTES_MAX) -> Iterator[Line]:
    """Every line that is not blank, from the beginning.

    Args:
        node: JSON Lines: then each line's value is the arg, whatever it is; without it a line is
            `{"node": ..., "arg": ..., "task_id": ...}`, arg and task_id optional. CSV needs it: a row is a map
            of the header's names to text.
    """
    file.seek(0)
    if node is not None:
        check_id(node, "--node")
    if fmt == "csv":
        if node is None:
            raise ValueError("CSV rows name no handler: pass --node")
        return _csv_lines(file, node, line_bytes_max)
    return _json_lines(file, node, line_bytes_max)


def read_parts(
    name: str, lines: Iterator[Line], *, split: int | None = None, seen: Callable[[int], None] | None = None
) -> Iterator[Part]:
    """The Sends in parts of at most `split`, in order; without `split` all in one.

    Args:
        name: of the file, for messages.
        seen: called with the number of every line, for a progress bar.

    Raises:
        FileRefused: lines that hold no Send (of many, the first ten), none at all, or more than one fan-out takes.
    """
    size_max = FAN_OUT_SIZE_MAX if split is None else split
    problems: list[str] = []
    part = Part([], [])
    empty = True
    for line in lines:
        if seen is not None:
            seen(line.number)
        if line.send is None:
            if len(problems) == PROBLEMS_SHOWN_MAX:
                raise FileRefused(name, problems, more=True)
            problems.append(f"line {line.number}: {line.problem}")
            continue
        if len(part.sends) == size_max:
            if split is None:
                too_wide = (
                    f"line {line.number}: more than {FAN_OUT_SIZE_MAX:,} tasks, which is as wide as a fan-out gets; "
                    f"pass --split N (up to {FAN_OUT_SIZE_MAX}) to publish several fan-outs of N tasks"
                )
                raise FileRefused(name, [*problems, too_wide])
            if not problems:
                yield part
            part = Part([], [])
        empty = False
        part.lines.append(line.number)
        part.sends.append(line.send)
    if problems:
        raise FileRefused(name, problems)
    if empty:
        raise FileRefused(name, ["it holds no task: a fan-out has at least one"])
    yield part


def at_line(name: str, part: Part, error: SchemaError) -> Exception:
    """A refusal that names an item of `part.sends`, as one that names its line."""
    found = re.match(r"^\$\.sends\[(\d+)\](.*)", error.path)
    if found is None:
        return error
    path = found[2].removeprefix(".") or "the task"
    detail = re.sub(r"\$\.sends\[(\d+)\]", lambda m: f"line {part.lines[int(m[1])]}", error.detail)
    return FileRefused(name, [f"line {part.lines[int(found[1])]}: {path}: {detail} ({error.code})"])


def derive_fan_out_id(
    file: IO[bytes], fmt: Format, thread_id: str, node: str | None, fold: str | None, base: Mapping[str, int]
) -> str:
    """The id of the fan-out that this file is: the same for the same contents and arguments, so twice is once."""
    file.seek(0)
    digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    clock = ",".join(f"{branch}={counter}" for branch, counter in sorted(base.items()))
    return str(uuid.uuid5(NAMESPACE, "\n".join(["file", digest, fmt, thread_id, node or "", fold or "", clock])))


def part_id(fan_out_id: str, split: int | None, number: int) -> str:
    """The id of one of several fan-outs, from 0. The width is part of it: other parts would be other work."""
    return fan_out_id if split is None else f"{fan_out_id}.{split}.{number}"


def _json_lines(file: IO[bytes], node: str | None, line_bytes_max: int) -> Iterator[Line]:
    number = 0
    while raw := file.readline(line_bytes_max + 1):
        number += 1
        if len(raw) > line_bytes_max:
            yield Line(number, None, f"longer than {line_bytes_max:,} bytes; lines end with a newline")
            return
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield _json_line(number, raw, node)


def _json_line(number: int, raw: bytes, node: str | None) -> Line:
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        return Line(number, None, f"no JSON: {error}")
    except UnicodeDecodeError:
        return Line(number, None, "no UTF-8")
    except RecursionError:
        return Line(number, None, "nested too deep")
    if node is not None:
        return Line(number, Send(node, value))
    if not isinstance(value, dict) or "node" not in value:
        return Line(number, None, 'expected {"node": ..., "arg": ...}; or pass --node, and each line is an arg')
    unknown = [field for field in value if field not in _FIELDS]
    if unknown:
        return Line(number, None, f"unknown field {unknown[0][:60]!r}; a line has {', '.join(_FIELDS)}")
    try:
        check_id(value["node"], "node")
        if value.get("task_id") is not None:
            check_id(value["task_id"], "task_id")
    except SchemaError as error:
        return Line(number, None, f"{error.path}: {error.detail} ({error.code})")
    return Line(number, Send(value["node"], value.get("arg"), value.get("task_id")))


def _csv_lines(file: IO[bytes], node: str, line_bytes_max: int) -> Iterator[Line]:
    # The module's own limit is half of what a string may have.
    csv.field_size_limit(max(csv.field_size_limit(), line_bytes_max))
    text = io.TextIOWrapper(cast(Any, file), encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    header: list[str] = []
    try:
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows, None)
            except (csv.Error, UnicodeDecodeError) as error:
                yield Line(number, None, f"no CSV in UTF-8: {error}")
                return
            if row is None:
                return
            if not row:
                continue
            if not header:
                header = row
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice or "" in header:
                    yield Line(number, None, f"the header needs distinct names; twice or empty: {twice or ['']}")
                    return
            elif len(row) != len(header):
                yield Line(number, None, f"{len(row)} fields, the header has {len(header)}")
            else:
                yield Line(number, Send(node, dict(zip(header, row, strict=True))))
    finally:
        text.detach()
