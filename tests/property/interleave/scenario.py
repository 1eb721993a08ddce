"""What a scenario is made of: what was there before, and what each session does, transaction by transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

Answer = Any
"""A transaction's reply as decoded JSON, or the word for its failure."""

FAILURES = {"ZF001": "fenced", "ZF002": "rewound", "ZF003": "conflict", "ZF004": "isolation", "ZF005": "backwards"}
RETRIED = "40001"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One call in a transaction of its own, as every caller makes it.

    Args:
        name: what is printed for it.
        statement: SQL that selects one JSON value; from what this session was answered before, if that matters. None:
            the session has nothing to do after those answers.
        say: the answer in a word or two.
        ends: `rollback` stands for a client that dies before its commit.
        progress: the next_offset that it stores, by partition.
    """

    name: str
    statement: str | Callable[[Sequence[Answer]], str | None]
    say: Callable[[Answer], str] = str
    ends: str = "commit"
    isolation: str = "read committed"
    progress: Mapping[int, int] = field(default_factory=dict)

    def sql(self, answers: Sequence[Answer]) -> str | None:
        return self.statement(answers) if callable(self.statement) else self.statement

    def word(self, answer: Answer) -> str:
        return answer if isinstance(answer, str) else self.say(answer)

    def answer(self, reply: str | None, failure: str | None) -> Answer:
        """What the caller hears; a client that died hears nothing."""
        if self.ends == "rollback":
            return "gone"
        if failure is not None:
            return FAILURES.get(failure, failure)
        return _without_ids(json.loads(reply)) if reply is not None else None


Program = tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class End:
    """How a scenario ended: what each session was answered, and all that the tables hold, as sorted JSON."""

    answers: tuple[tuple[Answer, ...], ...]
    tables: str

    @property
    def key(self) -> tuple[str, str]:
        return json.dumps(self.answers, sort_keys=True), self.tables

    def rows(self, table: str) -> list[dict[str, Any]]:
        return [json.loads(row) for row in json.loads(self.tables)[table]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Sessions that meet. `outcomes`: all that they may be answered, a word per transaction, sessions apart by `|`."""

    name: str
    setup: tuple[str, ...]
    sessions: tuple[Program, ...]
    outcomes: frozenset[str]

    def serial_orders(self) -> list[tuple[int, ...]]:
        """Every order of whole transactions that keeps each session's own: the numbers of the sessions in turn."""
        turns = [number for number, program in enumerate(self.sessions) for _ in program]
        return sorted(set(permutations(turns)))

    def outcome(self, answers: Sequence[Sequence[Answer]]) -> str:
        return " | ".join(
            ", ".join(transaction.word(answer) for transaction, answer in zip(program, given, strict=False))
            for program, given in zip(self.sessions, answers, strict=True)
        )


def _without_ids(answer: Answer) -> Answer:
    """Outbox ids come from a sequence: of them counts whether there is one."""
    if not isinstance(answer, dict):
        return answer
    return {
        name: [one is not None for one in value] if name.endswith("outbox_ids") else value
        for name, value in answer.items()
    }
