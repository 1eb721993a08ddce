"""The vector clock of a thread: one counter a branch. Lamport 1978; Fidge 1988 and Mattern 1989 for the vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fanfold_schemas.errors import SchemaError
from fanfold_schemas.limits import BRANCH_CHARS_MAX, BRANCHES_MAX, INT64_MAX


class VectorClock(Mapping[str, int]):
    """An immutable `{branch: counter}`. A branch that is not named stands at 0.

    Clocks with `merge` form a join-semilattice (merge is commutative, associative and idempotent, and never goes
    down), so a thread's clock is the join of the bases it accepted, in whatever order they came. Which it accepts does
    depend on their order (docs/crdt.md). Two clocks that differ in branches at 0 are equal, but as bases they are not
    the same: one of them looked at more.
    """

    __slots__ = ("_counters",)

    def __init__(self, counters: Mapping[str, int] | None = None) -> None:
        self._counters: dict[str, int] = check_clock(counters or {}, "$.base")

    def __getitem__(self, branch: str) -> int:
        return self._counters[branch]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counters)

    def __len__(self) -> int:
        return len(self._counters)

    def __hash__(self) -> int:
        return hash(frozenset((b, n) for b, n in self._counters.items() if n))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VectorClock):
            return NotImplemented
        return self.dominates(other) and other.dominates(self)

    def __repr__(self) -> str:
        return f"VectorClock({self._counters!r})"

    def merge(self, other: VectorClock) -> VectorClock:
        """The least clock that dominates both. It may name more branches than a record can: a thread outgrows them."""
        merged = dict(self._counters)
        for branch, counter in other._counters.items():
            merged[branch] = max(counter, merged.get(branch, 0))
        clock = VectorClock()
        clock._counters = merged
        return clock

    def dominates(self, other: VectorClock) -> bool:
        """Whether every branch here is at least as far as there (so a clock dominates itself)."""
        return all(self._counters.get(branch, 0) >= counter for branch, counter in other._counters.items())

    def concurrent_with(self, other: VectorClock) -> bool:
        """Whether neither happened before the other."""
        return not self.dominates(other) and not other.dominates(self)

    def makes_stale(self, base: VectorClock) -> bool:
        """Whether work derived from `base` is stale on a thread that stands here.

        Only branches that the base names count: a branch it never looked at may move freely.
        """
        return any(self._counters.get(branch, 0) > counter for branch, counter in base._counters.items())

    def advance(self, branch: str) -> VectorClock:
        """This clock with one branch one step on."""
        return VectorClock({**self._counters, branch: self._counters.get(branch, 0) + 1})

    def to_dict(self) -> dict[str, int]:
        return dict(self._counters)


def check_clock(counters: Mapping[Any, Any], path: str) -> dict[str, int]:
    """Return the counters as a dict of their own, or raise `SchemaError` (`E_LIMIT`, `E_SCHEMA` or `E_VALUE`)."""
    if len(counters) > BRANCHES_MAX:
        raise SchemaError("E_LIMIT", path, f"{len(counters)} branches, at most {BRANCHES_MAX}")
    checked: dict[str, int] = {}
    for branch, counter in counters.items():
        if not isinstance(branch, str) or not isinstance(counter, int) or isinstance(counter, bool):
            raise SchemaError("E_SCHEMA", path, "a clock maps branch names to integers")
        if len(branch) > BRANCH_CHARS_MAX:
            raise SchemaError("E_LIMIT", path, f"a branch of {len(branch)} characters, at most {BRANCH_CHARS_MAX}")
        if "\0" in branch:
            raise SchemaError("E_VALUE", path, "a branch with a NUL character")
        if not 0 <= counter <= INT64_MAX:
            raise SchemaError("E_LIMIT", path, f"counter {counter} of branch {branch[:40]!r} is outside 0..2^63-1")
        checked[branch] = counter
    return checked
