"""Claim checks in a member: large args are fetched before their handler, large results are put before their commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fanfold_consumer.patience import Patience
from fanfold_producer.claim_store import PUTS_AT_ONCE, ClaimStore, fill_in, needed
from fanfold_schemas import ClaimCheck, SchemaError, Task, decode_value, encode_check, pack_value
from fanfold_schemas.codec import check_payload


@dataclass(frozen=True, slots=True)
class Encoded:
    """A handler's value that comes as msgpack: from another process, which need not be decoded here."""

    data: bytes


class ClaimChecks:
    """A member's side of the claim store. A store that is away is waited for, as Postgres is.

    Args:
        store: None: large results are refused, and so is whatever comes behind a claim check.
        bytes_max: fetched values whose handlers run, in encoded bytes; a single larger one goes alone.
    """

    def __init__(self, store: ClaimStore | None, patience: Patience, *, bytes_max: int) -> None:
        self._store = store
        self._patience = patience
        self._bytes_max = bytes_max
        self._held = 0
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._puts = asyncio.Semaphore(PUTS_AT_ONCE)

    @property
    def bytes_min(self) -> int | None:
        """Beyond it a value goes behind a claim check; None: it cannot."""
        return None if self._store is None else self._store.bytes_min

    @asynccontextmanager
    async def fetched(self, fan_out_id: str, values: list[Any]) -> AsyncIterator[None]:
        """Put the values in the place of their claim checks, for as long as the handler that wants them runs.

        Raises:
            ClaimCheckBroken, ClaimStoreNeeded: there is a claim check whose value cannot be had.
        """

        async def get(check: ClaimCheck) -> Any:
            store = needed(self._store, check)
            return await self._patience.call("get", partial(store.get, fan_out_id, check))

        async with self._room(sum(value.bytes for value in values if isinstance(value, ClaimCheck))):
            await fill_in(values, get)
            yield

    async def payload(self, task: Task, value: Any) -> bytes:
        """What is stored as a task's result: the value, or the claim check for it once it is in the claim store.

        Raises:
            SchemaError: it cannot be stored in either way.
        """
        data = value.data if isinstance(value, Encoded) else pack_value(value)
        if self._store is None or len(data) <= self._store.bytes_min:
            try:
                check_payload(data)
                return data
            except SchemaError as error:
                if error.code != "E_LIMIT":
                    raise
                if self._store is None:
                    raise await _without_store(error, data) from None
        async with self._puts:
            try:
                await asyncio.to_thread(decode_value, data)
            except SchemaError as error:
                if error.code != "E_LIMIT":
                    raise
                # In line there may be more values: a claim store must not refuse what could be stored without it.
                await asyncio.to_thread(check_payload, data)
                return data
            put = partial(self._store.put, task.fan_out.id, data)
            return encode_check(await self._patience.call("put", put))

    async def put_all(self, fan_out_id: str, values: Mapping[ClaimCheck, Any]) -> None:
        """Put the large args of a fan-out that a handler asked for."""
        if self._store is not None and values:
            await self._patience.call("put", partial(self._store.put_all, fan_out_id, values))

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        # In turn: a large one that waits for room would otherwise be passed by small ones for ever.
        async with self._turn:
            while self._held and self._held + size > self._bytes_max:
                self._freed.clear()
                await self._freed.wait()
            self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._freed.set()


async def _without_store(error: SchemaError, data: bytes) -> SchemaError:
    """What to say of a result that is too large without a claim store."""
    if not await asyncio.to_thread(_fits_store, data):
        return error
    return SchemaError(error.code, error.path, f"{error.detail}; a claim store takes it (--claim-store)")


def _fits_store(data: bytes) -> bool:
    try:
        decode_value(data)
    except SchemaError:
        return False
    return True
