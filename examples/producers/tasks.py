"""What the producers of this folder ask for. Each arg has in it what tends to go wrong between languages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fanfold_consumer import fold, task


@dataclass(frozen=True, slots=True)
class Line:
    """The arg of `count_line`, a map on the wire.

    Attributes:
        at_ns: unix time in nanoseconds, which a double cannot hold.
        sha256: of the text in UTF-8, as 32 bytes and not as text.
    """

    text: str
    at_ns: int
    sha256: bytes


@task("count_line", retries=0)
async def count_line(line: Line) -> dict[str, int]:
    if hashlib.sha256(line.text.encode()).digest() != line.sha256:
        raise ValueError("the text is not the one that its producer hashed")
    return {"words": len(line.text.split()), "at_ns": line.at_ns}


@fold("sum_lines")
def sum_lines(lines: list[dict[str, int]]) -> dict[str, int]:
    times = [line["at_ns"] for line in lines]
    words = sum(line["words"] for line in lines)
    return {"lines": len(lines), "words": words, "first_ns": min(times), "last_ns": max(times)}
