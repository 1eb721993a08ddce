"""Where the dump of a value and the dump of what was loaded from it part."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from fanfold_consumer.langgraph.codec import MARK
from fanfold_consumer.langgraph.refused import Refused
from fanfold_schemas import pack_value


def difference(plain: Any, again: Any, named: Container[str]) -> Refused:
    """The refusal of a value whose dumps differ; it names the innermost object that has the difference.

    Args:
        named: tags whose parts are names and values in turn.
    """
    what = "the value"
    keys: list[object] = []
    while True:
        if type(plain) is dict and type(again) is dict and list(plain) == list(again):
            pairs = [(key, plain[key], again[key]) for key in plain]
        elif type(plain) is list and type(again) is list and len(plain) == len(again) and _tag(plain) == _tag(again):
            tag = _tag(plain)
            what = f"a {tag[1:]}" if tag else what
            names = [None, *plain] if tag in named else [None] * len(plain)
            pairs = list(zip(names, plain, again, strict=False))
        else:
            break
        key, plain, again = next(pair for pair in pairs if pack_value(pair[1]) != pack_value(pair[2]))
        keys += [] if key is None else [key]
    refused = Refused(
        "E_VALUE",
        f"{what} would be another value after a round trip: its class changes what is in its fields, or does not take "
        "it; let its validators leave alone what they made, or say how it travels, with Types.adapting(...)",
    )
    refused.keys = keys[::-1]
    return refused


def _tag(plain: list[Any]) -> str:
    first = plain[0] if plain else None
    return first if isinstance(first, str) and first.startswith(MARK) else ""
