"""The fuzzer, short and seeded; the long form is `python -m tests.property.fuzz_wire`."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fanfold_schemas import Task, decode_task
from tests.property.fuzz_wire import mutations, note
from tests.property.wire_properties import as_arg, check, outcome, seeds


@pytest.mark.parametrize("data", seeds(bytes_max=2**16), ids=lambda data: f"{len(data)} bytes")
def test_the_properties_hold_for_all_known_inputs(data: bytes) -> None:
    check(data)


@pytest.mark.parametrize("seed", range(3))
def test_the_properties_hold_for_changed_inputs(seed: int) -> None:
    for data in itertools.islice(mutations(seeds(), seed), 2000):
        check(data)


def test_the_same_seed_makes_the_same_inputs_and_another_seed_others() -> None:
    def first(seed: int) -> list[bytes]:
        return list(itertools.islice(mutations([b"abc" * 9, b"xyz"], seed), 50))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_changed_inputs_are_neither_all_good_nor_all_bad() -> None:
    changed = itertools.islice(mutations(seeds(), 1), 1000)
    good = sum(isinstance(outcome(decode_task, as_arg(data)), Task) for data in changed)
    assert 20 < good < 900


def test_what_breaks_a_property_is_kept_once_for_each_way_of_breaking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds: dict[str, Path] = {}
    for data in (b"a", b"bb"):
        note(AssertionError(f"{len(data)} bytes"), data, kinds, tmp_path / "found")
    note(KeyError("a"), b"ccc", kinds, tmp_path / "found")
    assert sorted(path.read_bytes() for path in kinds.values()) == [b"a", b"ccc"]
    assert sorted(tmp_path.glob("found/*.bin")) == sorted(kinds.values())
    assert capsys.readouterr().err.count("fuzz_wire: found ") == 2
