"""Which functions and tables an SQL text names: enough of a reading of our own files to see what is not qualified."""

from __future__ import annotations

import re

_WORD = r"[a-z_][a-z0-9_]*"
_NOISE = re.compile(r"--[^\n]*|'(?:[^']|'')*'")
# A list of columns after "as x" is no call.
_CALL = re.compile(rf"(?<!\bas )(?<![\w.])((?:{_WORD}\.)?{_WORD})\s*\(")
_RELATION = re.compile(
    rf"\b(?:(?<!distinct )from|join|(?<!do )(?<!for )update) (?:only )?((?:{_WORD}\.)?{_WORD})(?![\w.]|\s*\()"
    rf"|\binsert into ((?:{_WORD}\.)?{_WORD})"
)
_COMMON_TABLE = re.compile(rf"\b({_WORD}) as (?:materialized )?\(")

# What else stands before a parenthesis. coalesce and its like are grammar too: no search path finds another.
_GRAMMAR = {
    *("all", "and", "any", "as", "between", "by", "case", "check", "coalesce", "conflict", "distinct", "else", "elsif"),
    *("except", "exists", "extract", "filter", "from", "greatest", "if", "in", "intersect", "into", "join", "key"),
    *("lateral", "least", "limit", "materialized", "not", "null", "nullif", "offset", "on", "or", "over", "perform"),
    *("return", "returning", "row", "select", "set", "table", "then", "union", "unique", "using", "values", "when"),
    *("where", "window", "with"),
}


def calls(text: str) -> set[str]:
    """The functions called, as they are written."""
    return {*_CALL.findall(_NOISE.sub("''", text))} - _GRAMMAR


def relations(text: str) -> set[str]:
    """The tables read and written, as they are written; names that a WITH of the same text defines left out."""
    plain = " ".join(_NOISE.sub("''", text).split())
    return {one or other for one, other in _RELATION.findall(plain)} - {*_COMMON_TABLE.findall(plain)}
