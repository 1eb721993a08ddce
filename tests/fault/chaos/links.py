"""A TCP proxy of ours between clients and one server, with network faults that are switched on and off at run time."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from fanfold_consumer.devstack.ports import LOOPBACK

Kind = Literal[
    "cut_before_request", "cut_after_request", "cut_mid_reply", "delay", "one_way_up", "one_way_down", "refuse"
]
KINDS: tuple[Kind, ...] = (
    "cut_before_request",
    "cut_after_request",
    "cut_mid_reply",
    "delay",
    "one_way_up",
    "one_way_down",
    "refuse",
)
_CHUNK_BYTES = 65_536
_STOP_S = 10.0
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a link does to the bytes that pass.

    Attributes:
        kind: `cut_before_request`: a request is not forwarded, its connection is reset. `cut_after_request`: it is
            forwarded, and the connection reset before a byte of the reply reaches the client, so that the client
            cannot know what became of it. `cut_mid_reply`: the client gets the beginning of the reply. `delay`: both
            directions. `one_way_*`: what goes that way vanishes; connections that lost something are reset when the
            fault ends, as by a firewall that has forgotten them. `refuse`: no new connections.
        marker: only requests with these bytes in them are cut.
        chance: of each such request to be cut.
        delay_s, jitter_s: each chunk waits `delay_s` plus up to `jitter_s`.
    """

    kind: Kind
    marker: bytes = b""
    chance: float = 1.0
    delay_s: float = 0.0
    jitter_s: float = 0.0


class _Connection:
    """One client's, and ours to the server for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        # The fault that its next reply meets; what it has lost one way.
        self.cut_reply: Fault | None = None
        self.lossy = False

    def reset(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Link:
    """Forwards a loopback port to whatever `target` says at the time of a connection.

    Every method may be called from any OS thread. `hits` counts, by kind, the requests, chunks or connections that a
    fault really met.
    """

    def __init__(
        self, listen_port: int, target: Callable[[], Address], rng: random.Random, *, name: str = "link"
    ) -> None:
        self.name = name
        self.port = listen_port
        self.hits: Counter[str] = Counter()
        self._target = target
        self._rng = rng
        self._faults: tuple[Fault, ...] = ()
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    def __enter__(self) -> Link:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """Apply a fault, besides those that others apply meanwhile."""
        with self._lock:
            self._faults = (*self._faults, fault)
        try:
            yield
        finally:
            with self._lock:
                left = list(self._faults)
                left.remove(fault)
                self._faults = tuple(left)
            self._call(self._reset_lossy)

    def cut_all(self) -> int:
        """Reset every connection there is; returns how many."""
        cut = self._call(lambda: self._reset(list(self._connections)))
        self.hits["cut_all"] += cut
        return cut

    def _call(self, function: Callable[[], int]) -> int:
        async def call() -> int:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_STOP_S)

    def _reset_lossy(self) -> int:
        return self._reset([connection for connection in self._connections if connection.lossy])

    @staticmethod
    def _reset(connections: list[_Connection]) -> int:
        for connection in connections:
            connection.reset()
        return len(connections)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(asyncio.start_server(self._accept, LOOPBACK, self.port, backlog=512))
        except OSError as error:
            self._failure = error
            return
        finally:
            self._listening.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._loop.run_until_complete(_end_all(asyncio.all_tasks(self._loop)))
            self._loop.close()

    def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        # A task of ours: what asyncio makes of a coroutine here complains about those that `stop` ends.
        task = self._loop.create_task(self._serve(client_reader, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if any(fault.kind == "refuse" for fault in self._faults):
            self.hits["refuse"] += 1
            client.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection(*self._target())
        except OSError:
            client.transport.abort()
            return
        connection = _Connection(client, server)
        self._connections.add(connection)
        pumps = [
            asyncio.create_task(self._pump_requests(connection, client_reader)),
            asyncio.create_task(self._pump_replies(connection, server_reader)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            # Closed, not aborted: what was written already, a last error or the half of a reply, still arrives.
            client.close()
            server.close()

    async def _pump_requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if await self._meet_request(connection, data):
                    continue
                connection.server.write(data)
                await connection.server.drain()

    async def _meet_request(self, connection: _Connection, data: bytes) -> bool:
        """Do to a chunk of a request what the faults say; True: it is not forwarded."""
        for fault in self._faults:
            if fault.kind == "delay":
                await self._delay(fault)
            elif fault.kind == "one_way_up":
                return self._lose(fault, connection)
            elif fault.kind == "cut_before_request" and self._strikes(fault, data):
                self.hits[fault.kind] += 1
                connection.reset()
                return True
            elif fault.kind in ("cut_after_request", "cut_mid_reply") and self._strikes(fault, data):
                connection.cut_reply = fault
        return False

    async def _pump_replies(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if connection.cut_reply is not None:
                    self._cut_reply(connection.cut_reply, connection, data)
                    return
                if await self._meet_reply(connection):
                    continue
                connection.client.write(data)
                await connection.client.drain()

    def _cut_reply(self, fault: Fault, connection: _Connection, data: bytes) -> None:
        self.hits[fault.kind] += 1
        if fault.kind == "cut_after_request":
            connection.reset()
        else:
            connection.client.write(data[: self._rng.randint(1, max(1, len(data) - 1))])

    async def _meet_reply(self, connection: _Connection) -> bool:
        """Do to a chunk of a reply what the faults say; True: it is not forwarded."""
        for fault in self._faults:
            if fault.kind == "delay":
                await self._delay(fault)
            elif fault.kind == "one_way_down":
                return self._lose(fault, connection)
        return False

    def _strikes(self, fault: Fault, data: bytes) -> bool:
        return fault.marker in data and self._rng.random() < fault.chance

    def _lose(self, fault: Fault, connection: _Connection) -> bool:
        self.hits[fault.kind] += 1
        connection.lossy = True
        return True

    async def _delay(self, fault: Fault) -> None:
        self.hits[fault.kind] += 1
        await asyncio.sleep(fault.delay_s + self._rng.uniform(0, fault.jitter_s))


async def _end_all(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
