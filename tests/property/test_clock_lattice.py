"""The laws of the vector clock, for both that compute with it: `VectorClock` and the procedures.

What a batch of examples needs of Postgres is asked in one call; nothing of it is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any, Protocol

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanfold_schemas import VectorClock
from fanfold_schemas.limits import INT64_MAX
from tests.property.store import own_database
from tests.support.database import Server

Pair = tuple[VectorClock, VectorClock]

# Few branches and small counters, so that clocks meet; the ends of the range; names that JSON has to escape.
_BRANCHES = st.sampled_from(["", "a", "b", 'c|"\\', "é\x01"])
_clocks = st.dictionaries(_BRANCHES, st.one_of(st.integers(0, 4), st.just(INT64_MAX)), max_size=4).map(VectorClock)
_pairs = st.lists(st.tuples(_clocks, _clocks), min_size=1, max_size=8)
_triples = st.lists(st.tuples(_clocks, _clocks, _clocks), min_size=1, max_size=8)
_law = settings(max_examples=40, deadline=None)


class Algebra(Protocol):
    """Each method answers for many pairs at once."""

    def join(self, pairs: Sequence[Pair]) -> list[VectorClock]: ...

    def stale(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether the first, a thread's clock, makes work derived from the second stale."""
        ...


class InPython:
    def join(self, pairs: Sequence[Pair]) -> list[VectorClock]:
        return [a.merge(b) for a, b in pairs]

    def stale(self, pairs: Sequence[Pair]) -> list[bool]:
        return [clock.makes_stale(base) for clock, base in pairs]


class InPostgres:
    """As the owner of the schema, since a worker may not ask for staleness alone."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def join(self, pairs: Sequence[Pair]) -> list[VectorClock]:
        advance = "select fanfold.advance_thread(g.id, g.clock) from unnest(%s::text[], %s::jsonb[]) as g (id, clock)"
        threads = [str(number) for number in range(len(pairs))]
        with self._connection.transaction(force_rollback=True):
            for position in (0, 1):
                rows = self._rows(advance, threads, [_json(pair[position]) for pair in pairs])
        return [VectorClock(row[0]) for row in rows]

    def stale(self, pairs: Sequence[Pair]) -> list[bool]:
        rows = self._rows(
            "select fanfold.clock_makes_stale(g.clock, g.base)"
            " from unnest(%s::jsonb[], %s::jsonb[]) with ordinality as g (clock, base, no) order by g.no",
            [_json(clock) for clock, _ in pairs],
            [_json(base) for _, base in pairs],
        )
        return [row[0] for row in rows]

    def contains(self, pairs: Sequence[Pair]) -> list[bool]:
        """The procedures' first look, `clock @> base`, which spares them the others."""
        rows = self._rows(
            "select g.clock @> g.base"
            " from unnest(%s::jsonb[], %s::jsonb[]) with ordinality as g (clock, base, no) order by g.no",
            [_json(clock) for clock, _ in pairs],
            [_json(base) for _, base in pairs],
        )
        return [row[0] for row in rows]

    def accept(self, threads: Sequence[str], bases: Sequence[VectorClock]) -> tuple[list[str], dict[str, VectorClock]]:
        """Bases arriving in one batch: the state of each ('k' accepted, 's' stale) and where the threads then stand."""
        with self._connection.transaction(force_rollback=True):
            rows = self._rows(
                'select fanfold.advance_clocks(%s::text[], %s::jsonb[], %s::text[]::"char"[])::text[]',
                list(threads),
                [_json(base) for base in bases],
                ["k"] * len(bases),
            )
            clocks = self._rows("select thread_id, clock from fanfold.thread")
        return rows[0][0], {thread_id: VectorClock(clock) for thread_id, clock in clocks}

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), parameters).fetchall()


@pytest.fixture(scope="module")
def postgres(postgres_server: Server, migrated_template: str) -> Iterator[InPostgres]:
    with own_database(postgres_server, migrated_template) as connection:
        yield InPostgres(connection)


@pytest.fixture(scope="module", params=["python", "postgres"])
def clocks(request: pytest.FixtureRequest) -> Algebra:
    if request.param == "python":
        return InPython()
    algebra: Algebra = request.getfixturevalue("postgres")
    return algebra


def _json(clock: VectorClock) -> str:
    return json.dumps(clock.to_dict())


# The join.


@_law
@given(_pairs)
def test_python_and_postgres_agree(postgres: InPostgres, pairs: list[Pair]) -> None:
    assert postgres.join(pairs) == InPython().join(pairs)
    assert postgres.stale(pairs) == InPython().stale(pairs)


@_law
@given(pairs=_pairs)
def test_join_is_commutative(clocks: Algebra, pairs: list[Pair]) -> None:
    assert clocks.join(pairs) == clocks.join([(b, a) for a, b in pairs])


@_law
@given(triples=_triples)
def test_join_is_associative(clocks: Algebra, triples: list[tuple[VectorClock, ...]]) -> None:
    left = clocks.join([(a, b) for a, b, _ in triples])
    right = clocks.join([(b, c) for _, b, c in triples])
    assert clocks.join([(ab, c) for ab, (_, _, c) in zip(left, triples, strict=True)]) == clocks.join(
        [(a, bc) for bc, (a, _, _) in zip(right, triples, strict=True)]
    )


@_law
@given(pairs=_pairs)
def test_join_is_idempotent_and_the_empty_clock_is_its_bottom(clocks: Algebra, pairs: list[Pair]) -> None:
    alone = [a for a, _ in pairs]
    assert clocks.join([(a, a) for a in alone]) == alone
    assert clocks.join([(a, VectorClock()) for a in alone]) == alone
    joined = clocks.join(pairs)
    assert clocks.join([(ab, b) for ab, (_, b) in zip(joined, pairs, strict=True)]) == joined


@_law
@given(triples=_triples)
def test_join_is_the_least_upper_bound(clocks: Algebra, triples: list[tuple[VectorClock, ...]]) -> None:
    joined = clocks.join([(a, b) for a, b, _ in triples])
    # Any c made large enough is an upper bound too.
    uppers = [
        VectorClock({**c, **{n: max(c.get(n, 0), a.get(n, 0), b.get(n, 0)) for n in {*a, *b}}}) for a, b, c in triples
    ]
    for (a, b, _), ab, upper in zip(triples, joined, uppers, strict=True):
        assert ab.dominates(a)
        assert ab.dominates(b)
        assert upper.dominates(ab)


@_law
@given(triples=_triples)
def test_join_is_monotone(clocks: Algebra, triples: list[tuple[VectorClock, ...]]) -> None:
    greater = clocks.join([(a, b) for a, b, _ in triples])
    for below, above in zip(
        clocks.join([(a, c) for a, _, c in triples]),
        clocks.join([(ab, c) for ab, (_, _, c) in zip(greater, triples, strict=True)]),
        strict=True,
    ):
        assert above.dominates(below)


@_law
@given(pairs=_pairs)
def test_the_order_is_that_of_the_join(clocks: Algebra, pairs: list[Pair]) -> None:
    assert [ab == a for ab, (a, _) in zip(clocks.join(pairs), pairs, strict=True)] == [a.dominates(b) for a, b in pairs]


# The order, which only Python computes.


@given(_clocks, _clocks, _clocks)
def test_dominates_is_a_partial_order(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    assert a.dominates(a)
    assert (a.dominates(b) and b.dominates(a)) == (a == b)
    if a.dominates(b) and b.dominates(c):
        assert a.dominates(c)
    # Arbitrary clocks are rarely in order; these always are.
    ab = a.merge(b)
    assert ab.merge(c).dominates(ab)
    assert ab.merge(c).dominates(a)


@given(_clocks, _clocks)
def test_two_clocks_are_equal_ordered_or_concurrent(a: VectorClock, b: VectorClock) -> None:
    assert [a == b, a.dominates(b) and a != b, b.dominates(a) and a != b, a.concurrent_with(b)].count(True) == 1


# Staleness.


@_law
@given(pairs=_pairs)
def test_a_base_is_stale_exactly_when_a_branch_it_names_moved_on(clocks: Algebra, pairs: list[Pair]) -> None:
    assert clocks.stale(pairs) == [any(clock.get(name, 0) > base[name] for name in base) for clock, base in pairs]


@_law
@given(triples=_triples)
def test_what_is_stale_stays_stale_as_the_thread_moves_on(
    clocks: Algebra, triples: list[tuple[VectorClock, ...]]
) -> None:
    before = clocks.stale([(clock, base) for clock, _, base in triples])
    later = clocks.join([(clock, more) for clock, more, _ in triples])
    after = clocks.stale([(clock, base) for clock, (_, _, base) in zip(later, triples, strict=True)])
    assert all(now or not then for then, now in zip(before, after, strict=True))


@_law
@given(triples=_triples)
def test_a_later_base_on_the_same_branches_is_stale_only_where_the_earlier_one_is(
    clocks: Algebra, triples: list[tuple[VectorClock, ...]]
) -> None:
    later = [VectorClock({n: max(base[n], more.get(n, 0)) for n in base}) for _, base, more in triples]
    early = clocks.stale([(clock, base) for clock, base, _ in triples])
    late = clocks.stale([(clock, base) for (clock, _, _), base in zip(triples, later, strict=True)])
    assert all(then or not now for then, now in zip(early, late, strict=True))


@_law
@given(pairs=_pairs)
def test_an_accepted_base_does_not_make_itself_stale(clocks: Algebra, pairs: list[Pair]) -> None:
    fresh = [pair for pair, stale in zip(pairs, clocks.stale(pairs), strict=True) if not stale]
    if fresh:
        joined = clocks.join(fresh)
        assert not any(clocks.stale([(clock, base) for clock, (_, base) in zip(joined, fresh, strict=True)]))


def test_a_base_is_a_clock_and_the_branches_it_looked_at(clocks: Algebra) -> None:
    # Equal as clocks; but the second was derived from a state without branch a, the first did not look.
    none, zero, clock = VectorClock(), VectorClock({"a": 0}), VectorClock({"a": 1})
    assert none == zero
    assert clocks.stale([(clock, none), (clock, zero)]) == [False, True]


# What the commit does with them.


@_law
@given(_pairs)
def test_the_procedures_first_look_answers_only_where_the_clock_would_neither_move_nor_be_stale(
    postgres: InPostgres, pairs: list[Pair]
) -> None:
    contained = [pair for pair, answer in zip(pairs, postgres.contains(pairs), strict=True) if answer]
    for clock, base in contained:
        assert clock.dominates(base)
        assert not clock.makes_stale(base)


@_law
@given(st.lists(st.tuples(st.sampled_from(["t1", "t2", "t3"]), _clocks), min_size=1, max_size=8))
def test_a_batch_of_bases_is_accepted_as_if_they_came_one_by_one(
    postgres: InPostgres, arriving: list[tuple[str, VectorClock]]
) -> None:
    expected: dict[str, VectorClock] = {}
    states = []
    for thread_id, base in arriving:
        clock = expected.get(thread_id)
        stale = clock is not None and clock.makes_stale(base)
        states.append("s" if stale else "k")
        if not stale:
            expected[thread_id] = base if clock is None else clock.merge(base)
    found = postgres.accept([thread_id for thread_id, _ in arriving], [base for _, base in arriving])
    assert found == (states, expected)


@_law
@given(arriving=st.lists(_clocks, min_size=1, max_size=3))
def test_no_order_of_clocks_that_are_all_accepted_changes_where_a_thread_ends_up(
    clocks: Algebra, arriving: list[VectorClock]
) -> None:
    orders = list(permutations(arriving))
    ends = [VectorClock()] * len(orders)
    for step in range(len(arriving)):
        ends = clocks.join([(end, order[step]) for end, order in zip(ends, orders, strict=True)])
    assert len(set(ends)) == 1


def test_which_bases_are_accepted_does_depend_on_their_order(postgres: InPostgres) -> None:
    # Why the commit needs the thread's lock: refusing what is stale is a decision about an order, not a join.
    older, newer = VectorClock({"a": 1, "b": 1}), VectorClock({"a": 2})
    assert postgres.accept(["t", "t"], [older, newer]) == (["k", "k"], {"t": VectorClock({"a": 2, "b": 1})})
    assert postgres.accept(["t", "t"], [newer, older]) == (["k", "s"], {"t": VectorClock({"a": 2})})
