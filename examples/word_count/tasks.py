"""Count words: one task a line, one fold over all lines. Copy this file and put your own work into it."""

from __future__ import annotations

import re
from collections import Counter

from fanfold_consumer import TaskContext, fold, task

TOP = 5


@task("count_words", timeout=10, retries=2)
async def count_words(line: str) -> dict[str, int]:
    """The arg is checked against the annotation before this runs; what it returns is the result of the task."""
    return dict(Counter(re.findall(r"[a-z']+", line.lower())))


@fold("merge_counts")
def merge_counts(lines: list[dict[str, int]], context: TaskContext) -> dict[str, object]:
    """Gets the results in the order of the lines, and in `context.failed` the indexes of those that are missing."""
    words: Counter[str] = Counter()
    for line in lines:
        words.update(line)
    top = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return {"lines": len(lines), "missing": list(context.failed), "words": words.total(), "top": dict(top)}
