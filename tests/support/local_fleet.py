"""A fleet without servers, for what graphs do rather than what fleets do: handlers run here, each task twice, shuffled.

Args and results go through their bytes. Retries, dead letters, commits and everything else that can fail are not here.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fanfold_consumer import Registry, Sends, TaskContext
from fanfold_consumer.retry import HandlerFailed, describe
from fanfold_producer import FanOutUnknown
from fanfold_schemas import (
    Send,
    VectorClock,
    decode_payload,
    derive_fold_task_id,
    encode_payload,
    to_send,
)
from fanfold_sql import DeadLetterFilter


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter says, as far as a graph asks."""

    task_id: str
    error: str


@dataclass
class _FanOut:
    thread_id: str
    sends: list[Send]
    fold: str
    base: VectorClock
    outcome: asyncio.Future[Any]
    letters: list[Letter] = field(default_factory=list)


class LocalFleet:
    """Stands for a publisher, a store and members at once.

    Attributes:
        registry: its handlers.
        published: how often each fan-out was published.
        hold: fan-outs are taken in, but not run until `release`.
    """

    def __init__(self, *, seed: int = 1) -> None:
        self.registry = Registry()
        self.published: Counter[str] = Counter()
        self.args: dict[str, Any] = {}
        self.hold = False
        self._random = random.Random(seed)
        self._fan_outs: dict[str, _FanOut] = {}
        self._running: set[asyncio.Task[None]] = set()

    # A publisher.

    async def afan_out(self, thread_id: str, sends: Any, *, fan_out_id: str, fold: str, base: Any) -> Any:
        self.published[fan_out_id] += 1
        checked = [to_send(send) for send in sends]
        for send in checked:
            assert send.task_id is not None
            packed = encode_payload(send.arg)
            # The fleet's commit would find a conflict.
            assert self.args.setdefault(send.task_id, (fan_out_id, packed)) == (fan_out_id, packed)
        if fan_out_id not in self._fan_outs:
            outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._fan_outs[fan_out_id] = _FanOut(thread_id, checked, fold, VectorClock(base), outcome)
            if not self.hold:
                self._start(fan_out_id)
        return _Handle(self._fan_outs[fan_out_id])

    async def ahandle(self, fan_out_id: str) -> Any:
        if fan_out_id not in self._fan_outs:
            raise FanOutUnknown(fan_out_id)
        return _Handle(self._fan_outs[fan_out_id])

    def sends(self) -> list[list[Send]]:
        """Of every fan-out, in the order of their first publishing."""
        return [fan_out.sends for fan_out in self._fan_outs.values()]

    # A store.

    async def list_dead_letters(self, where: DeadLetterFilter, *, limit: int) -> list[Letter]:
        assert where.fan_out_id is not None
        return self._fan_outs[where.fan_out_id].letters[:limit]

    # Members.

    def release(self) -> None:
        self.hold = False
        for fan_out_id, fan_out in self._fan_outs.items():
            if not fan_out.outcome.done():
                self._start(fan_out_id)

    async def settle(self) -> None:
        """Wait until nothing runs any more."""
        while self._running:
            await asyncio.gather(*self._running)

    async def run_tasks(self, fan_out_id: str) -> list[Any]:
        """Only the tasks of a fan-out: their results, in index order."""
        fan_out = self._fan_outs[fan_out_id]
        results = [await self._task(fan_out_id, fan_out, index) for index in range(len(fan_out.sends))]
        return [decode_payload(result) for result in results if result is not None]

    def _start(self, fan_out_id: str) -> None:
        running = asyncio.get_running_loop().create_task(self._run(fan_out_id))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _run(self, fan_out_id: str) -> None:
        fan_out = self._fan_outs[fan_out_id]
        results: dict[int, bytes] = {}
        deliveries = [*range(len(fan_out.sends)), *range(len(fan_out.sends))]
        self._random.shuffle(deliveries)
        for index in deliveries:
            result = await self._task(fan_out_id, fan_out, index)
            if result is not None:
                results.setdefault(index, result)
        failed = tuple(index for index in range(len(fan_out.sends)) if index not in results)
        for _ in range(2):
            try:
                await self._fold(fan_out_id, fan_out, results, failed)
            except Exception as error:
                if not fan_out.outcome.done():
                    fan_out.outcome.set_exception(error)
                return

    async def _task(self, fan_out_id: str, fan_out: _FanOut, index: int) -> bytes | None:
        send = fan_out.sends[index]
        assert send.task_id is not None
        handler = self.registry.get(send.node)
        assert handler is not None, send.node
        context = self._context(fan_out_id, fan_out, send.task_id, index, send.node)
        try:
            return encode_payload(await handler.function(decode_payload(encode_payload(send.arg)), context))
        except Exception as error:
            text = str(error) if isinstance(error, HandlerFailed) else describe(error)
            fan_out.letters.append(Letter(send.task_id, text))
            return None

    async def _fold(
        self, fan_out_id: str, fan_out: _FanOut, results: dict[int, bytes], failed: tuple[int, ...]
    ) -> None:
        handler = self.registry.get(fan_out.fold)
        assert handler is not None
        context = self._context(fan_out_id, fan_out, derive_fold_task_id(fan_out_id), -1, fan_out.fold, failed)
        value = await handler.function([decode_payload(results[index]) for index in sorted(results)], context)
        if isinstance(value, Sends):
            assert value.fan_out_id is not None
            await self.afan_out(
                fan_out.thread_id, value.sends, fan_out_id=value.fan_out_id, fold=value.fold or "", base=value.base
            )
            value = value.value
        if not fan_out.outcome.done():
            fan_out.outcome.set_result(decode_payload(encode_payload(value)))

    def _context(
        self, fan_out_id: str, fan_out: _FanOut, task_id: str, index: int, node: str, failed: tuple[int, ...] = ()
    ) -> TaskContext:
        return TaskContext(task_id, fan_out.thread_id, fan_out_id, index, node, 1, 1, fan_out.base, failed)


class _Handle:
    def __init__(self, fan_out: _FanOut) -> None:
        self._fan_out = fan_out
        self.ended = fan_out.outcome.done()
        self.remaining = 0 if self.ended else len(fan_out.sends)

    async def aresult(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        return await asyncio.wait_for(asyncio.shield(self._fan_out.outcome), timeout)

    async def aprogress(self) -> _Handle:
        return self
