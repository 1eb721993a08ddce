"""The built-in folds over what Postgres keeps: order of arrival, redelivery, batches and pages do not matter.

Two things make it so, and each is tested by itself: the register under every fold (one result per index, highest run,
then first writer) and index order when it is read. Only some folds would get along without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanfold_consumer.folds import BUILT_IN, built_in
from fanfold_schemas.codec import decode_payload, encode_payload
from fanfold_sql import Finished
from tests.property.store import own_database
from tests.sql.support import FanOutSpec, Tables, Worker
from tests.support.database import Server

NAMES = (*BUILT_IN, "first:2")
# Join-semilattices on their results: folding a fold in again changes nothing, in any order.
MERGES = ("union", "min", "max")
# These need the register: counted twice, a result would change them.
NEED_THE_REGISTER = ("collect", "count", "sum", "first:2")

_law = settings(max_examples=25, deadline=None)
_randoms = st.randoms(use_true_random=False)
_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300)
# No NUL: no result can have one.
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2)
_lists = st.lists(st.integers(-3, 3) | st.floats(-2, 2) | _texts | st.booleans() | st.none(), max_size=4)


def _values(name: str) -> st.SearchStrategy[list[Any]]:
    return st.lists(_lists if name == "union" else _numbers, min_size=1, max_size=6)


def _fold(name: str, values: Sequence[Any]) -> Any:
    function = built_in(name)
    assert function is not None
    return function([*values])


def _bytes(name: str, values: Sequence[Any]) -> bytes:
    """The fold to the byte: 1, 1.0 and True are three results, though Python calls them equal."""
    return encode_payload(_fold(name, values))


def _outcome(name: str, values: Sequence[Any]) -> bytes | str:
    """The fold, or how it fails: a sum may be more than a result can be."""
    try:
        return _bytes(name, values)
    except Exception as error:
        return type(error).__name__


def test_every_built_in_fold_is_one_or_the_other() -> None:
    assert sorted((*MERGES, *NEED_THE_REGISTER)) == sorted(NAMES)


# The folds themselves.


@pytest.mark.parametrize("name", MERGES)
@_law
@given(data=st.data())
def test_a_merge_is_commutative_associative_and_idempotent(name: str, data: st.DataObject) -> None:
    a, b, c = (data.draw(_lists if name == "union" else _numbers) for _ in range(3))

    def merge(x: Any, y: Any) -> Any:
        return _fold(name, [x, y])

    def same(x: Any, y: Any) -> bool:
        # A union lists its items in the order of their first appearance, so it is a join of sets, not of lists.
        if name == "union":
            return {encode_payload(item) for item in x} == {encode_payload(item) for item in y}
        return bool(x == y)

    assert same(merge(a, b), merge(b, a))
    assert same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert same(merge(a, a), a)
    assert same(_fold(name, [a, b, c, b]), merge(merge(a, b), c))


@pytest.mark.parametrize(
    ("name", "once", "twice"),
    [("collect", [1], [1, 1]), ("count", 1, 2), ("sum", 1, 2), ("first:2", [1], [1, 1])],
)
def test_what_is_no_merge_would_count_a_result_twice(name: str, once: Any, twice: Any) -> None:
    assert name in NEED_THE_REGISTER
    assert _fold(name, [1]) == once
    assert _fold(name, [1, 1]) == twice


@pytest.mark.parametrize("name", ["count", "sum", "min", "max"])
@_law
@given(values=st.lists(_numbers, max_size=12), random=_randoms)
def test_a_fold_of_numbers_does_not_depend_on_any_order(name: str, values: list[Any], random: Random) -> None:
    shuffled = random.sample(values, len(values))
    assert _fold(name, shuffled) == _fold(name, values)


def test_a_sum_of_floats_is_rounded_once() -> None:
    # Rounded at each step, as `sum` does up to Python 3.11, the first is 0.9999999999999999, the next are
    # 0.6000000000000001 and 0.6, and the last is 0.0.
    assert _fold("sum", [0.1] * 10) == 1.0
    assert _fold("sum", [0.1, 0.2, 0.3]) == _fold("sum", [0.3, 0.2, 0.1]) == 0.6
    assert _fold("sum", [1e100, 1.0, -1e100]) == 1.0


def test_a_sum_of_integers_stays_one() -> None:
    assert _bytes("sum", [2**53, 1]) == encode_payload(2**53 + 1)


# The register.


@pytest.fixture(scope="module")
def store(postgres_server: Server, migrated_template: str) -> Iterator[tuple[Worker, Tables]]:
    with own_database(postgres_server, migrated_template) as connection:
        yield Worker(connection), Tables(connection)


def _read(connection: psycopg.Connection[Any], fan_out_id: str, page: int) -> list[Any]:
    """The values of a fan-out in index order, read a page at a time, as a member does for a fold."""
    values: list[Any] = []
    last = -1
    while True:
        rows = connection.execute(
            "select index, payload from fanfold.read_results(%s, %s::int4, %s::int4)", (fan_out_id, last, page)
        ).fetchall()
        values += [decode_payload(payload) for _, payload in rows if payload is not None]
        if len(rows) < page:
            return values
        last = rows[-1][0]


def _deliver(worker: Worker, results: list[Finished], random: Random) -> None:
    """In any order, some of them again, in batches of any size."""
    arriving = [*results, *random.choices(results, k=random.randint(0, len(results)))]
    random.shuffle(arriving)
    while arriving:
        size = random.randint(1, len(arriving))
        worker.commit(arriving[:size])
        arriving = arriving[size:]


@pytest.mark.parametrize("name", NAMES)
@_law
@given(data=st.data(), random=_randoms)
def test_a_fold_of_what_is_stored_is_that_of_the_results_in_index_order(
    name: str, store: tuple[Worker, Tables], data: st.DataObject, random: Random
) -> None:
    values = data.draw(_values(name))
    worker, tables = store
    with worker.connection.transaction(force_rollback=True):
        spec = FanOutSpec(size=len(values), fold=name)
        results = [spec.result(index, payload=encode_payload(value)) for index, value in enumerate(values)]
        _deliver(worker, results, random)
        stored = _read(worker.connection, spec.id, random.randint(1, len(values) + 1))
        assert _outcome(name, stored) == _outcome(name, values)
        assert tables.queued_folds() == [(spec.id, 1)]


@_law
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=8, unique=True),
    st.lists(st.booleans(), min_size=9, max_size=9),
    st.lists(_randoms, min_size=2, max_size=2),
)
def test_the_register_ends_in_the_same_state_whatever_the_order_of_its_writes(
    store: tuple[Worker, Tables], writes: list[tuple[int, int]], failing: list[bool], randoms: list[Random]
) -> None:
    """Writes are (index, run); what is written is a function of both, as it is for a handler that is deterministic."""
    worker, tables = store
    spec = FanOutSpec(size=3)
    results = [
        spec.result(index, run=run, payload=None if failing[3 * index + run - 1] else b"%d/%d" % (index, run))
        for index, run in writes
    ]
    ends = []
    for random in randoms:
        with worker.connection.transaction(force_rollback=True):
            _deliver(worker, results, random)
            rows = tables.rows("select index, run, status, payload from fanfold.result order by index")
            ends.append((rows, tables.fan_out(), tables.queued_folds()))
    assert ends[0] == ends[1]
    highest = {index: max(run for other, run in writes if other == index) for index, _ in writes}
    assert {row[0]: row[1] for row in ends[0][0]} == highest


def test_of_two_writers_of_one_run_the_first_stays_so_a_handler_that_is_not_deterministic_is_decided_once(
    store: tuple[Worker, Tables],
) -> None:
    worker, tables = store
    spec = FanOutSpec(size=1)
    one, other = spec.result(0, payload=b"one"), spec.result(0, payload=b"other")
    for first, second in ((one, other), (other, one)):
        with worker.connection.transaction(force_rollback=True):
            for batch in ([first], [second], [second, first]):
                worker.commit(batch)
                assert tables.status(spec.task(0).task_id) == (1, "done", first.payload)


def test_what_a_quorum_takes_does_depend_on_the_order(store: tuple[Worker, Tables]) -> None:
    worker, _ = store
    spec = FanOutSpec(size=2, quorum=1)
    for first, second in ((0, 1), (1, 0)):
        with worker.connection.transaction(force_rollback=True):
            worker.commit([spec.result(first, payload=encode_payload(first))])
            worker.commit([spec.result(second, payload=encode_payload(second))])
            assert _read(worker.connection, spec.id, 10) == [first]


# Completion.


@_law
@given(size=st.integers(1, 5), random=_randoms)
def test_completion_is_reached_once_with_the_last_distinct_result_and_stays(
    store: tuple[Worker, Tables], size: int, random: Random
) -> None:
    worker, tables = store
    spec = FanOutSpec(size=size)
    arriving = [random.randrange(size) for _ in range(3 * size)] + [*range(size)]
    with worker.connection.transaction(force_rollback=True):
        seen: set[int] = set()
        completed = []
        for index in arriving:
            reply = worker.commit([spec.result(index)])
            seen.add(index)
            completed += [len(seen)] * len(reply.completed)
            state = tables.fan_out()
            assert state is not None
            assert state["complete"] == (len(seen) == size)
            assert state["remaining"] == size - len(seen)
        assert completed == [size]
