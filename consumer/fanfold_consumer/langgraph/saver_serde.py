"""The serialiser of a saver, strict where LANGGRAPH_STRICT_MSGPACK asks for it.

LangGraph looks at the variable once, when it is first imported; a `.env` file that is read after that has no effect,
and nothing says so. We look when a saver is made.
"""

from __future__ import annotations

import os
from enum import Enum

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from fanfold_consumer.errors import ConfigError

_VARIABLE = "LANGGRAPH_STRICT_MSGPACK"


class Stranger(Enum):
    """A type that no allowlist has."""

    HERE = 1


def serializer(given: SerializerProtocol | None) -> SerializerProtocol:
    """The one that was given, else LangGraph's.

    Raises:
        ConfigError: strictness is asked for, and this serialiser, or this LangGraph, builds whatever the bytes name.
    """
    if os.environ.get(_VARIABLE, "").lower() not in ("1", "true", "yes"):
        return given or JsonPlusSerializer()
    if given is not None:
        if given.loads_typed(given.dumps_typed(Stranger.HERE)) is Stranger.HERE:
            problem = (
                f"{_VARIABLE} is set, but the serialiser that was given ({type(given).__name__}) builds any type that "
                "its bytes name; make it with allowed_msgpack_modules=[the types of your state], or unset the variable"
            )
            raise ConfigError([problem])
        return given
    try:
        return JsonPlusSerializer(allowed_msgpack_modules=None)
    except TypeError:
        raise ConfigError(
            [f"{_VARIABLE} is set, but this langgraph-checkpoint cannot be strict; upgrade it to 4.0.1 or later"]
        ) from None
