"""The claim store: where large values lie that records and results only have a claim check for.

An object is named by its fan-out and the hash of its bytes, so putting it twice is harmless, nothing is ever changed,
and whoever reads it can tell whether it is what was put there. It lives for as long as its fan-out: `sweep`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from fanfold_producer.errors import ClaimCheckBroken, ClaimStoreNeeded, ClaimStoreRefused, ClaimStoreUnavailable
from fanfold_producer.loop_worker import LoopWorker
from fanfold_schemas import ClaimCheck, SchemaError, claim_check_for, decode_value, object_key, pack_value
from fanfold_schemas.claim_check import fan_out_of_key
from fanfold_schemas.limits import CLAIM_CHECK_BYTES_MAX

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ENV_CLAIM_STORE = "FANFOLD_CLAIM_STORE"
CLAIM_CHECK_BYTES_MIN = 256 * 1024
PUTS_AT_ONCE = 4
GETS_AT_ONCE = 8
PAGE_OBJECTS = 1000
CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 60
RETRIES = 3
"""Within a call, against a lost connection. What takes longer is the caller's to repeat."""
RETRY_S = 10

_SCHEMES = ("s3", "gs", "az", "file")
_FORMS = "s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix or file:///folder"

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Swept:
    """Objects that no fan-out needs any more, and their bytes."""

    objects: int = 0
    bytes: int = 0


class ClaimStore:
    """An object store as Fanfold uses it. Belongs to no event loop; safe to share.

    Every method that asks the store raises `ClaimStoreUnavailable`, also for a bucket that is not there and for
    credentials that are refused: no value is to blame for those.

    Attributes:
        name: its URL, for messages.
        bytes_min: an encoded value of more bytes goes behind a claim check, and so does one that does not fit into a
            record or a result. Publishing again under the same fan_out_id with another `bytes_min` is a conflict for
            those tasks that it makes a difference to.
    """

    def __init__(self, objects: ObjectStore, *, name: str = "", bytes_min: int = CLAIM_CHECK_BYTES_MIN) -> None:
        if not 0 <= bytes_min <= CLAIM_CHECK_BYTES_MAX:
            raise ClaimStoreRefused(f"claim_check_bytes_min {bytes_min} is outside 0 .. {CLAIM_CHECK_BYTES_MAX}")
        self._objects = objects
        self.name = name
        self.bytes_min = bytes_min

    @classmethod
    def open(cls, url: str, *, bytes_min: int = CLAIM_CHECK_BYTES_MIN) -> ClaimStore:
        """The store at a URL. Nothing is asked yet; a folder is made.

        Credentials, region and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...) or from
        where the program runs, as obstore finds them.

        Args:
            url: s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix, or for development
                file:///folder. No two databases may share one, because `sweep` deletes what its own does not know.

        Raises:
            ClaimStoreRefused: it is none of these, or obstore is not installed.
        """
        scheme, netloc = urlsplit(url)[:2]
        if "@" in netloc:
            # Not repeated: messages and logs name the store.
            raise ClaimStoreRefused("the claim store's URL has credentials in it; they belong in the environment")
        if scheme not in _SCHEMES:
            raise ClaimStoreRefused(f"{url[:60]!r} is no claim store: give {_FORMS}")
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise ClaimStoreRefused(
                f"the claim store {url} needs obstore, which is not installed: pip install 'fanfold[claim-check]'"
            ) from error
        try:
            if scheme == "file":
                objects = from_url(url, mkdir=True, automatic_cleanup=True)
            else:
                objects = from_url(
                    url,
                    client_options={
                        # Given any options, obstore asks the environment for none of them.
                        "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on"),
                        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
                    },
                    retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
                )
        except (BaseError, OSError, ValueError) as error:
            raise ClaimStoreRefused(f"the claim store {url} cannot be opened: {_first_line(error)}") from error
        return cls(objects, name=url, bytes_min=bytes_min)

    async def probe(self) -> None:
        """Return if the store answers."""
        async with self._asking("list"):
            async for _ in self._objects.list(chunk_size=1):
                return

    async def put(self, fan_out_id: str, data: bytes) -> ClaimCheck:
        """Keep an encoded value. Always writes, so that what is needed anew is as young as its latest need."""
        check = await asyncio.to_thread(claim_check_for, data)
        key = object_key(fan_out_id, check)
        async with self._asking(f"put {key}"):
            # In one request: what a crash leaves of several is kept, unseen, until a lifecycle rule ends it.
            await self._objects.put_async(key, data, use_multipart=False)
        return check

    async def put_all(
        self,
        fan_out_id: str,
        values: Mapping[ClaimCheck, Any],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        """Put all values of a fan-out; encoded anew, so that few of them are in memory at once."""

        async def put(item: tuple[ClaimCheck, Any]) -> None:
            check, value = item
            if await self.put(fan_out_id, await asyncio.to_thread(pack_value, value)) != check:
                raise RuntimeError(f"an arg of fan-out {fan_out_id} was changed while it was published")

        try:
            async with asyncio.timeout(timeout):
                await at_once(values.items(), put, PUTS_AT_ONCE)
        except TimeoutError as error:
            raise ClaimStoreUnavailable(f"{self.name} did not take {len(values)} args in {timeout} s") from error

    def put_all_blocking(self, fan_out_id: str, values: Mapping[ClaimCheck, Any]) -> None:
        """`put_all` for callers without an event loop, or with one that they block anyway."""
        if values:
            worker = LoopWorker("fanfold-claim-store")
            try:
                worker.submit(self.put_all(fan_out_id, values)).result()
            finally:
                worker.close()

    async def get(self, fan_out_id: str, check: ClaimCheck) -> Any:
        """The value behind a claim check: its size is compared before it is read, its hash before it is decoded.

        Raises:
            ClaimCheckBroken: it is missing, of another size, other bytes, or no value.
        """
        key = object_key(fan_out_id, check)
        data = await self._read(key, check)
        if data is None:
            # A bucket that is gone says the same about each of its objects, and is no task's fault.
            await self.probe()
            raise ClaimCheckBroken(
                f"{self.name} has no object {key} ({check.bytes} bytes): it was pruned, was deleted, or was put into "
                "another claim store"
            )
        return await asyncio.to_thread(_verified, key, check, data)

    async def sweep(
        self,
        before: datetime,
        existing: Callable[[Sequence[str]], Awaitable[set[str]]],
        *,
        delete: bool = True,
    ) -> Swept:
        """Delete objects older than `before` whose fan-outs are not there. Keeps no state: repeat it as you like.

        Args:
            existing: which of these fan-outs are there.
            delete: False: only count.
        """
        objects, size = 0, 0
        pages = self._objects.list(chunk_size=PAGE_OBJECTS)
        while True:
            async with self._asking("list"):
                page = await anext(pages, None)
            if page is None:
                return Swept(objects, size)
            old: dict[str, list[tuple[str, int]]] = {}
            for entry in page:
                fan_out_id = fan_out_of_key(entry["path"])
                if fan_out_id is not None and entry["last_modified"] < before:
                    old.setdefault(fan_out_id, []).append((entry["path"], entry["size"]))
            there = await existing(list(old)) if old else set()
            garbage = [entry for fan_out_id, entries in old.items() if fan_out_id not in there for entry in entries]
            if delete:
                await self._delete([path for path, _ in garbage])
            objects += len(garbage)
            size += sum(found for _, found in garbage)

    async def _read(self, key: str, check: ClaimCheck) -> bytes | None:
        async with self._asking(f"get {key}"):
            try:
                found = await self._objects.get_async(key)
            except FileNotFoundError:
                return None
            if found.meta["size"] != check.bytes:
                raise _broken(key, f"has {found.meta['size']} bytes, its claim check says {check.bytes}")
            data = bytearray()
            async for chunk in found.stream():
                data += chunk
                if len(data) > check.bytes:
                    raise _broken(key, f"goes on after the {check.bytes} bytes of its claim check")
        if len(data) < check.bytes:
            raise ClaimStoreUnavailable(f"{self.name} broke off object {key} after {len(data)} of {check.bytes} bytes")
        return bytes(data)

    async def _delete(self, paths: list[str]) -> None:
        if not paths:
            return
        try:
            async with self._asking(f"delete {len(paths)} objects"):
                await self._objects.delete_async(paths)
        except ClaimStoreUnavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # Somebody else sweeps too, and stores differ in what they say to that: each for itself.
            for path in paths:
                async with self._asking(f"delete {path}"):
                    try:
                        await self._objects.delete_async(path)
                    except FileNotFoundError:
                        continue

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise ClaimStoreUnavailable(f"{self.name} did not {what}: {_first_line(error)}") from error


def needed(store: ClaimStore | None, check: ClaimCheck) -> ClaimStore:
    """The store that `check` is for, or `ClaimStoreNeeded` if none was named."""
    if store is None:
        raise ClaimStoreNeeded(
            f"a value of {check.bytes} bytes is behind a claim check, and no claim store was named: pass "
            f"--claim-store or {ENV_CLAIM_STORE}, in Python claim_store=ClaimStore.open(...)"
        )
    return store


async def fill_in(values: list[Any], get: Callable[[ClaimCheck], Awaitable[Any]]) -> None:
    """Put values in the place of the claim checks in a list, a few at once."""

    async def fill(place: int) -> None:
        values[place] = await get(values[place])

    await at_once([at for at, value in enumerate(values) if isinstance(value, ClaimCheck)], fill, GETS_AT_ONCE)


async def at_once(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], limit: int) -> None:
    """Do it for all items, `limit` of them at a time. After an error the others are cancelled."""
    gate = asyncio.Semaphore(limit)

    async def one(item: Item) -> None:
        async with gate:
            await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _verified(key: str, check: ClaimCheck, data: bytes) -> Any:
    found = claim_check_for(data)
    if found != check:
        raise _broken(key, f"has other bytes than its claim check says: their SHA-256 is {found.sha256}")
    try:
        return decode_value(data)
    except SchemaError as error:
        raise _broken(key, f"is no value: {error}") from None


def _broken(key: str, why: str) -> ClaimCheckBroken:
    return ClaimCheckBroken(f"object {key} {why}; it was changed, or made by a program of another kind")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
