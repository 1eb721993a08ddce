"""LangGraph's serializer for checkpoints, in strict mode whatever the environment says and whenever it is imported."""

from __future__ import annotations

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from fanfold_consumer.langgraph.values import Types


def serde(types: Types) -> JsonPlusSerializer:
    """A serializer whose bytes become the graph's declared classes, those that LangGraph calls safe, and no others.

    LangGraph reads `LANGGRAPH_STRICT_MSGPACK` once, when its own module is imported first, by whomever. Without it, any
    callable that a checkpoint names is imported and called. An allowlist of one's own is strict either way. What is not
    in it comes back as the raw data it was stored as, with a warning, as in LangGraph's strict mode.
    """
    return JsonPlusSerializer(allowed_msgpack_modules=[(cls.__module__, cls.__name__) for cls in types.classes])
