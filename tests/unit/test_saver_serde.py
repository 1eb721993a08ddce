"""What a saver builds from stored bytes when LANGGRAPH_STRICT_MSGPACK asks it to be strict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from fanfold_consumer import ConfigError
from fanfold_consumer.langgraph import saver_serde
from fanfold_consumer.langgraph.saver_serde import serializer

_VARIABLE = "LANGGRAPH_STRICT_MSGPACK"

needs_strict = pytest.mark.skipif(
    not hasattr(jsonplus, "_lg_msgpack"), reason="this langgraph-checkpoint knows no strictness"
)


@dataclass
class Own:
    word: str


class _Cipher:
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "reversed", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return ciphertext[::-1]


def _back(serde: SerializerProtocol, value: object) -> object:
    return serde.loads_typed(serde.dumps_typed(value))


def test_without_the_variable_langgraphs_own_rules_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_VARIABLE, raising=False)
    given = JsonPlusSerializer()
    assert serializer(given) is given
    assert _back(serializer(None), Own("x")) == Own("x")


@needs_strict
@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_the_variable_counts_though_langgraph_was_imported_before_it_was_set(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(_VARIABLE, value)
    made = serializer(None)
    assert not isinstance(_back(made, Own("x")), Own)
    now = datetime.now(UTC)
    assert _back(made, {"when": now, "tags": {1, 2}}) == {"when": now, "tags": {1, 2}}


@needs_strict
def test_a_serialiser_that_builds_anything_is_refused_also_behind_a_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_VARIABLE, "true")
    permissive = JsonPlusSerializer(allowed_msgpack_modules=True)
    for given in (permissive, EncryptedSerializer(_Cipher(), permissive)):
        with pytest.raises(ConfigError, match="allowed_msgpack_modules"):
            serializer(given)


@needs_strict
def test_a_serialiser_that_names_its_types_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_VARIABLE, "true")
    named = JsonPlusSerializer(allowed_msgpack_modules=[Own])
    assert serializer(named) is named
    assert _back(named, Own("x")) == Own("x")


def test_a_langgraph_that_cannot_be_strict_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(JsonPlusSerializer):
        def __init__(self) -> None:
            super().__init__()

    monkeypatch.setenv(_VARIABLE, "true")
    monkeypatch.setattr(saver_serde, "JsonPlusSerializer", Older)
    with pytest.raises(ConfigError, match="langgraph-checkpoint"):
        serializer(None)
