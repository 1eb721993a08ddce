"""The serializer of checkpoints is strict, whoever imported LangGraph first and whatever the environment says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langgraph", reason="needs the extra langgraph")

_LANGGRAPH_FIRST = """
import langgraph.graph, os
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # too late: LangGraph has looked already
from fanfold_consumer.langgraph.serde import serde
"""
_FANFOLD_FIRST = """
from fanfold_consumer.langgraph.serde import serde
import langgraph.graph
"""
_PROGRAM = """
import sys
from pathlib import Path
import ormsgpack
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from fanfold_consumer.langgraph.values import declared_types
from tests.unit.langgraph_types import Color, Report, Step, Undeclared, make_builder

def attack(folder):
    called = ormsgpack.packb(("os", "mkdir", str(folder)))
    return "msgpack", ormsgpack.packb(ormsgpack.Ext(0, called))

folder = Path(sys.argv[1])
JsonPlusSerializer().loads_typed(attack(folder / "theirs"))
builder = make_builder()
ours = serde(declared_types(builder))
compiled = builder.set_entry_point("node").compile(checkpointer=InMemorySaver(serde=ours))
for strict in (ours, compiled.checkpointer.serde):
    strict.loads_typed(attack(folder / "ours"))
    for value in (Report(), Color.RED, [Step(name="a")]):
        assert strict.loads_typed(strict.dumps_typed(value)) == value, value
    assert strict.loads_typed(strict.dumps_typed(Undeclared(secret="x"))) == {"secret": "x"}
print(*sorted(made.name for made in folder.iterdir()))
"""


@pytest.mark.parametrize(
    ("imports", "environment", "made"),
    [
        # The stock serializer does as the bytes say, which shows that the attack is one.
        (_LANGGRAPH_FIRST, {}, "theirs"),
        (_FANFOLD_FIRST, {"LANGGRAPH_STRICT_MSGPACK": "true"}, ""),
    ],
    ids=["LangGraph is imported first and lenient", "Fanfold is imported first and LangGraph strict"],
)
def test_bytes_of_a_checkpoint_call_nothing_and_become_declared_classes_only(
    imports: str, environment: dict[str, str], made: str, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", imports + _PROGRAM, str(tmp_path)],
        env={name: value for name, value in os.environ.items() if name != "LANGGRAPH_STRICT_MSGPACK"} | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == made
