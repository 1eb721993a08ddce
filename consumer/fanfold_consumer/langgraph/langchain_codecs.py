"""The types of LangChain and LangGraph that every graph may use without declaring them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import langchain_core.messages
import langgraph.types
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.messages.base import TextAccessor
from langgraph.types import Command, Interrupt, Send

from fanfold_consumer.langgraph.class_codecs import class_codec
from fanfold_consumer.langgraph.codec import Codec, by_name, in_turn, only
from fanfold_consumer.langgraph.refused import Unfit


def _messages() -> list[type[BaseMessage]]:
    """Whichever messages the installed release has."""
    found = (getattr(langchain_core.messages, name) for name in langchain_core.messages.__all__)
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, BaseMessage)]


def _take_send(send: Send) -> list[Any]:
    fields = {"node": send.node, "arg": send.arg}
    timeout = getattr(send, "timeout", None)  # since 1.2
    return in_turn(fields if timeout is None else fields | {"timeout": timeout})


def _make_send(parts: Sequence[Any]) -> Send:
    fields = by_name(parts)
    if type(fields["node"]) is not str:
        raise Unfit("a node that is no text")
    return Send(fields.pop("node"), fields.pop("arg"), **fields)


# Those of the second line are not in every supported release.
_CLASSES: list[type] = [*_messages(), Document, Command, Interrupt]
_CLASSES += filter(None, (getattr(langgraph.types, name, None) for name in ("Overwrite", "TimeoutPolicy")))

LANGCHAIN_CODECS = (
    *(class_codec(cls, cls.__name__) for cls in _CLASSES),
    Codec(Send, "Send", _take_send, _make_send, named=True),
    # What `message.text` is, and nodes return it as it is.
    Codec(TextAccessor, "text", lambda text: [str(text)], lambda parts: TextAccessor(only(str, parts))),
)
