"""Results of 1 KB to 1 MB, text and random bytes: how many a second one connection commits, and how much WAL each
costs, against the same rows inserted raw; and large ones behind claim checks, in a folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pydoc_data.topics import topics
from typing import Any

import psycopg

from fanfold_consumer.config import FleetConfig
from fanfold_consumer.devstack import temporary_folder
from fanfold_producer.claim_store import PUTS_AT_ONCE, ClaimStore, at_once
from fanfold_producer.errors import ClaimStoreRefused
from fanfold_schemas import encode_check
from fanfold_sql import Finished
from tests.benchmarks.commits import (
    RAW_TABLE,
    WARM_UP,
    Opener,
    Writer,
    committing,
    fan_outs,
    in_batches,
    inserting,
    make_raw_table,
    repeated,
    wal_bytes,
    write_all,
)
from tests.benchmarks.measure import interleave, ratio
from tests.benchmarks.report import Figure, Ratio, telling
from tests.benchmarks.servers import BenchStack

NAME = "size"

_SIZES = {"1 KB": 1_000, "4 KB": 4_000, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000}
_QUICK = ("1 KB", "100 KB")
_CLAIM_CHECKED = ("100 KB", "1 MB")
_RESULTS = "fanfold.result"
_COMMITS = 3
_VARIANTS = 7
_DEFAULTS = signature(FleetConfig).parameters
_RESULTS_MAX: int = _DEFAULTS["batch_results_max"].default
_BYTES_MAX: int = _DEFAULTS["batch_bytes_max"].default


@dataclass(slots=True)
class _Case:
    """One contender with payloads of one size and kind, in batches as a member makes them."""

    dsn: str
    table: str
    opener: Opener
    payloads: Sequence[bytes]
    connection: psycopg.Connection[Any]
    wal_per_result: list[float] = field(default_factory=list)
    stored_per_result: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Results per second."""
        size = min(_RESULTS_MAX, -(-_BYTES_MAX // len(self.payloads[0])))
        results = (_COMMITS + WARM_UP) * size
        batches = in_batches(fan_outs(repeated(self.payloads, results), 100), size)
        wal_before, stored_before = wal_bytes(self.connection), self._stored_bytes()
        passed_s, _ = write_all(self.opener, self.dsn, batches)
        self.wal_per_result.append((wal_bytes(self.connection) - wal_before) / results)
        self.stored_per_result.append((self._stored_bytes() - stored_before) / results)
        return _COMMITS * size / passed_s

    def _stored_bytes(self) -> int:
        """Of the table with its indexes and TOAST."""
        row = self.connection.execute("select pg_total_relation_size(%s::regclass)", (self.table,)).fetchone()
        assert row is not None
        return int(row[0])


def run(
    stack: BenchStack, *, quick: bool, repetitions: int, say: Callable[[str], None]
) -> Iterator[Figure | Ratio | str]:
    dsn = stack.fresh_database()
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        make_raw_table(connection)
        storage = connection.execute(
            "select attcompression, attstorage from pg_attribute"
            " where attrelid = 'fanfold.result'::regclass and attname = 'payload'"
        ).fetchone()
        if storage != ("l", "x"):
            yield f"{NAME}: this server has no lz4: payloads are not compressed, and text costs what random bytes do"
        store = _claim_store()
        if store is None:
            yield f"{NAME}: claim checks were skipped: obstore is not installed"
        else:
            yield f"{NAME}: the claim store is a folder, whose files nobody flushes; what Postgres stores is flushed"
        cases: dict[str, _Case] = {}
        for size in _QUICK if quick else _SIZES:
            for kind in ("text", "random bytes"):
                payloads = _payloads(kind, _SIZES[size])
                cases[f"commit, {size} of {kind}"] = _Case(dsn, _RESULTS, committing, payloads, connection)
                cases[f"raw insert, {size} of {kind}"] = _Case(dsn, RAW_TABLE, inserting, payloads, connection)
                if store is not None and size in _CLAIM_CHECKED:
                    opener = partial(_claim_checking, store)
                    cases[f"claim checks, {size} of {kind}"] = _Case(dsn, _RESULTS, opener, payloads, connection)
        rates = interleave(
            {name: case.run for name, case in cases.items()},
            repetitions,
            telling(say, NAME, repetitions, "results/s"),
        )
    for name, case in cases.items():
        yield Figure(NAME, name, "results/s", rates[name])
        yield Figure(NAME, f"{name}, payload", "MB/s", [rate * len(case.payloads[0]) / 1e6 for rate in rates[name]])
        yield Figure(NAME, f"{name}, WAL", "bytes/result", case.wal_per_result)
        yield Figure(NAME, f"{name}, stored", "bytes/result", case.stored_per_result)
    for name in cases:
        contender, _, parameters = name.partition(", ")
        limit = f"raw insert, {parameters}"
        if name != limit:
            yield Ratio(NAME, f"{contender} ÷ raw insert, {parameters}", ratio(rates[name], rates[limit]), None, False)
    stack.drop_database(dsn)


def _payloads(kind: str, size: int) -> list[bytes]:
    if kind == "random bytes":
        return [os.urandom(size) for _ in range(_VARIANTS)]
    # The reference manual that comes with Python: prose, tables and code, as language models write them.
    text = "\n".join(topics.values()).encode()
    rotated = (text[len(text) * n // _VARIANTS :] + text for n in range(_VARIANTS))
    return [(part * (size // len(part) + 1))[:size] for part in rotated]


def _claim_store() -> ClaimStore | None:
    try:
        return ClaimStore.open(temporary_folder("bench-claim-checks").as_uri(), bytes_min=0)
    except ClaimStoreRefused:
        return None


class _ClaimChecking:
    """Puts the payloads into the claim store, as many at once as a member does, and commits their claim checks."""

    def __init__(self, store: ClaimStore, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    async def write(self, results: Sequence[Finished]) -> None:
        checked: list[Finished] = list(results)

        async def put(place: int) -> None:
            result = results[place]
            assert result.payload is not None
            check = await self._store.put(result.task.fan_out.id, result.payload)
            checked[place] = Finished(result.task, encode_check(check), result.arg_hash, result.topic)

        await at_once(range(len(results)), put, PUTS_AT_ONCE)
        await self._writer.write(checked)


@asynccontextmanager
async def _claim_checking(store: ClaimStore, dsn: str, number: int = 0) -> AsyncIterator[Writer]:
    async with committing(dsn, number) as writer:
        yield _ClaimChecking(store, writer)
