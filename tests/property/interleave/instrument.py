"""Breakpoints in the procedures' own text, so that what is stepped is what is shipped.

Before every statement of a plpgsql body that touches a table or takes an advisory lock stands a call that waits until
it is let through. It changes nothing: under READ COMMITTED each statement of a volatile function takes its own
snapshot anyway, and an `if` leaves FOUND and ROW_COUNT alone. A function that is one statement under one snapshot
(SQL, or STABLE) has no inside to stop in; it is a step as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fanfold_sql.migrate import Script

LOCKS = "advisory locks"
"""Stands for the advisory locks among the names of tables."""

_BREAKPOINT = re.compile(r"if stepping\.stop\('\w+:\d+'\) then end if; ")
_HEADER = re.compile(
    r"(?:function|procedure) fanfold\.(?P<name>\w+)\(.*?"
    r"\blanguage (?P<language>\w+)(?P<options>.*?)\bas \$\$(?P<body>.*)\$\$;",
    re.DOTALL,
)
_OPAQUE = re.compile(r"--[^\n]*|'(?:[^']|'')*'", re.DOTALL)
_TOKEN = re.compile(r"\w+|[();]")
_CALL = re.compile(r"\bfanfold\.(\w+)\s*\(")
_TABLE = re.compile(r"\bfanfold\.(\w+)")
_WRITTEN = re.compile(r"\b(?:insert into|update|delete from)\s+fanfold\.(\w+)")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a step reads and writes (or locks), and `ends`: what it had written and now lets others see."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def __or__(self, other: Footprint) -> Footprint:
        return Footprint(self.reads | other.reads, self.writes | other.writes, self.ends | other.ends)

    def __bool__(self) -> bool:
        return bool(self.reads or self.writes or self.ends)

    def commutes_with(self, other: Footprint) -> bool:
        """Whether either order of the two leads to the same: what is not committed is seen by nobody else."""
        return not (
            self.writes & other.writes
            or self.ends & (other.reads | other.writes)
            or other.ends & (self.reads | self.writes)
        )


class CannotInstrument(Exception):
    """A body uses plpgsql in a way no breakpoint can be put into. Teach `statements`, or write it otherwise."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """A procedure's file. `stepped`: it runs several statements under snapshots of their own."""

    name: str
    text: str
    body: str
    body_start: int
    stepped: bool

    @classmethod
    def parse(cls, script: Script) -> Procedure:
        found = _HEADER.search(script.text)
        if found is None or found["name"] != script.name:
            raise CannotInstrument(f"{script.name}.sql does not hold one function of that name between $$ and $$")
        volatile = not re.search(r"\b(stable|immutable)\b", found["options"])
        if found["language"] == "sql" and _hide(found["body"]).rstrip().rstrip(";").count(";"):
            raise CannotInstrument(f"{script.name} is SQL of several statements, which cannot be told apart")
        stepped = volatile and found["language"] == "plpgsql"
        return cls(script.name, script.text, found["body"], found.start("body"), stepped)


@dataclass(frozen=True, slots=True)
class Instrumented:
    """The procedures with their breakpoints. `steps`: what each breakpoint's statement does, by label."""

    texts: Mapping[str, str]
    steps: Mapping[str, Footprint]
    whole: Mapping[str, Footprint] = field(default_factory=dict)
    """What the procedures without breakpoints do, by name."""

    def whole_call(self, statement: str) -> Footprint:
        """What a statement does through procedures that have no breakpoints."""
        return _union(self.whole[name] for name in _CALL.findall(statement) if name in self.whole)


def instrument(scripts: Iterable[Script]) -> Instrumented:
    """Put a breakpoint before every statement that touches something; see the module."""
    scripts = list(scripts)
    migrations = [script.text for script in scripts if script.kind == "migration"]
    tables = frozenset(name for text in migrations for name in re.findall(r"create table fanfold\.(\w+)", text))
    procedures = [Procedure.parse(script) for script in scripts if script.kind == "procedure"]
    # Callees first: a statement that calls an opaque function does what that function does.
    whole: dict[str, Footprint] = {}
    opaque = {procedure.name: procedure for procedure in procedures if not procedure.stepped}
    while opaque:
        ready = [
            procedure
            for procedure in opaque.values()
            if not (set(_CALL.findall(_hide(procedure.body))) - {procedure.name}) & opaque.keys()
        ]
        for procedure in ready:
            whole[procedure.name] = _footprint(_hide(procedure.body), tables, whole)
            del opaque[procedure.name]
        if not ready:
            raise CannotInstrument(f"procedures call each other in a circle: {', '.join(opaque)}")
    texts: dict[str, str] = {}
    steps: dict[str, Footprint] = {}
    for procedure in procedures:
        texts[procedure.name] = procedure.text
        if procedure.stepped:
            texts[procedure.name] = _with_breakpoints(procedure, tables, whole, steps)
    return Instrumented(texts, steps, whole)


def without_breakpoints(text: str) -> str:
    return _BREAKPOINT.sub("", text)


def statements(body: str) -> Iterator[tuple[str, int, str]]:
    """(first word, position, text) of every statement and every head of a block in a plpgsql body, in order."""
    code = _hide(body)
    start: int | None = None
    first, ends_with = "", ";"
    parens = cases = 0
    for token in _TOKEN.finditer(code):
        word = token[0]
        if start is None:
            if word == ";":
                continue
            start, first = token.start(), word
            ends_with = _LAST_WORD.get(word, ";")
            if word in _UNKNOWN:
                raise CannotInstrument(f"{word!r} starts a statement: what comes after it cannot be stepped")
        if word in "()":
            parens += 1 if word == "(" else -1
        elif parens == 0 and first != "end" and word in ("case", "end"):
            cases += 1 if word == "case" else -1
        if parens == 0 and cases == 0 and word == ends_with:
            yield first, start, code[start : token.end()]
            start = None


# What ends the head of a block; its statements follow. Everything else ends with a semicolon.
_LAST_WORD = {
    "declare": "begin",
    "begin": "begin",
    "if": "then",
    "elsif": "then",
    # What its block wrote is rolled back by then; to count it as written leaves out fewer orders than could be.
    "exception": "then",
    "else": "else",
    "for": "loop",
    "foreach": "loop",
    "while": "loop",
    "loop": "loop",
}
# A case of statements.
_UNKNOWN = frozenset({"case"})
# Evaluated where no statement can stand before them, or more than once.
_NO_PLACE_BEFORE = frozenset({"declare", "elsif", "while"})


def _with_breakpoints(
    procedure: Procedure, tables: frozenset[str], whole: Mapping[str, Footprint], steps: dict[str, Footprint]
) -> str:
    text, written = procedure.text, 0
    pieces: list[str] = []
    for first, start, statement in statements(procedure.body):
        footprint = _footprint(statement, tables, whole)
        if not footprint:
            continue
        position = procedure.body_start + start
        label = f"{procedure.name}:{text.count(chr(10), 0, position) + 1}"
        if first in _NO_PLACE_BEFORE:
            raise CannotInstrument(f"{label}: no breakpoint can stand before a {first!r} that looks at tables")
        if label in steps:
            raise CannotInstrument(f"{label}: two statements on one line")
        steps[label] = footprint
        pieces += [text[written:position], f"if stepping.stop('{label}') then end if; "]
        written = position
    return "".join([*pieces, text[written:]])


def _footprint(statement: str, tables: frozenset[str], whole: Mapping[str, Footprint]) -> Footprint:
    named = frozenset(_TABLE.findall(statement)) & tables
    written = frozenset(_WRITTEN.findall(statement)) & tables
    if re.search(r"\bfor (no key )?update\b", statement):
        written |= named
    if "advisory" in statement:
        written |= {LOCKS}
    called = (whole[name] for name in _CALL.findall(statement) if name in whole)
    return Footprint(named, written) | _union(called)


def _union(footprints: Iterable[Footprint]) -> Footprint:
    total = Footprint()
    for footprint in footprints:
        total |= footprint
    return total


def _hide(text: str) -> str:
    """The same text, comments and literals blanked, so that positions stay and words in them do not count."""
    return _OPAQUE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
