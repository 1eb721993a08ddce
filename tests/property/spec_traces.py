"""Behaviours of the specification as Python values: read from TLC's text, or from the JSON file in the tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

Picture = dict[str, Any]
"""What the model and the database are compared by: clock, fan-outs, results, partitions, outbox."""

_TOKEN = re.compile(r'"[^"]*"|\w+|<<|>>|\|->|:>|@@|[\[\](){},]')
# In the files of a simulation, and in what TLC says of a counterexample.
_STATE = re.compile(r"^(?:STATE_\d+ ==|State \d+: <.*>$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """`act`: what was done, with what was answered; `after`: the picture of the model's database then."""

    act: dict[str, Any]
    after: Picture


Trace = list[Step]


def read_trace(text: str) -> Trace:
    """The behaviour in a text that TLC wrote."""
    steps = []
    for state in _STATE.split(text)[1:]:
        values = dict(re.findall(r"^/\\ (\w+) = (.*?)(?=^/\\ |\n\n|\Z)", state, re.MULTILINE | re.DOTALL))
        steps.append(Step(parse(values["act"]), _picture(values["db"])))
    return steps


@lru_cache(maxsize=4096)
def _picture(text: str) -> Picture:
    db = parse(text)
    fans, results, parts = db["fan"], db["res"], db["part"]
    return {
        "clock": {branch: counter for branch, counter in db["clock"].items() if counter},
        "fan": {f: [fan["open"], fan["rem"], fan["run"], fan["complete"], fan["cancelled"]] for f, fan in fans.items()},
        "res": {f: [[row[i]["run"], row[i]["pending"]] for i in sorted(row)] for f, row in results.items()},
        "part": {
            p: [part["epoch"], owner_name(part["owner"]), part["next"], sorted(part["isl"]), len(part["commits"])]
            for p, part in parts.items()
        },
        "out": sorted([row["id"], row["f"], row["i"], row["run"]] for row in db["out"]),
    }


def owner_name(owner: Sequence[Any]) -> str | None:
    """`m1.2`: the second life of member m1."""
    return None if owner[0] == "nobody" else f"{owner[0]}.{owner[1]}"


def parse(text: str) -> Any:
    """A TLA+ value as TLC prints it. Records and functions become dicts; tuples and sets become lists."""
    tokens = _TOKEN.findall(text)
    value, end = _value(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"{len(tokens) - end} tokens left over after a value: {text[:200]!r}")
    return value


def _value(tokens: Sequence[str], at: int) -> tuple[Any, int]:
    match tokens[at]:
        case "[":
            return _pairs(tokens, at + 1, "|->", ",", "]")
        case "(":
            return _pairs(tokens, at + 1, ":>", "@@", ")")
        case "{":
            return _items(tokens, at + 1, "}")
        case "<<":
            return _items(tokens, at + 1, ">>")
        case "TRUE" | "FALSE":
            return tokens[at] == "TRUE", at + 1
        case token if token[0].isdigit():
            return int(token), at + 1
        case token:
            return token.strip('"'), at + 1


def _items(tokens: Sequence[str], at: int, close: str) -> tuple[list[Any], int]:
    items = []
    while tokens[at] != close:
        value, at = _value(tokens, at)
        items.append(value)
        at += tokens[at] == ","
    return items, at + 1


def _pairs(tokens: Sequence[str], at: int, arrow: str, comma: str, close: str) -> tuple[dict[Any, Any], int]:
    pairs = {}
    while tokens[at] != close:
        key, at = _value(tokens, at)
        if tokens[at] != arrow:
            raise ValueError(f"{arrow!r} expected, found {tokens[at]!r}")
        pairs[key], at = _value(tokens, at + 1)
        at += tokens[at] == comma
    return pairs, at + 1


def labels(trace: Trace) -> frozenset[str]:
    """What a trace covers: each kind of action, with the answer it got."""
    return frozenset(label for step in trace for label in _labels(step.act))


def _labels(act: dict[str, Any]) -> Iterator[str]:
    answer = act.get("reply") or act.get("verdict") or act.get("answer")
    yield f"{act['name']}: {answer}" if answer else act["name"]
    if act.get("cause", "nothing") not in ("nothing", ""):
        yield f"{act['name']} for its {act['cause']}"
    for _, _, outcome in act.get("outcomes", ()):
        yield f"outcome: {outcome}"


def save(traces: Sequence[Trace], path: Path) -> None:
    """One line a trace; of each picture only what changed."""
    lines = []
    for trace in traces:
        before: Picture = {}
        steps = []
        for step in trace:
            steps.append([step.act, {name: part for name, part in step.after.items() if before.get(name) != part}])
            before = step.after
        lines.append(json.dumps(steps, separators=(",", ":"), sort_keys=True))
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def load(path: Path) -> list[Trace]:
    traces = []
    for steps in json.loads(path.read_text()):
        picture: Picture = {}
        trace = []
        for act, changed in steps:
            picture = {**picture, **changed}
            trace.append(Step(act, picture))
        traces.append(trace)
    return traces
