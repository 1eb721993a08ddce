"""Processes for handlers with `isolation="process"`: a bounded number, and one that is not wanted any more is killed.

`concurrent.futures` and `multiprocessing` would pickle what goes in and out, and one process that dies or hangs breaks
the whole pool.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from fanfold_consumer.claim_check import Encoded
from fanfold_consumer.context import Sends
from fanfold_consumer.events import log, log_settings
from fanfold_consumer.process_messages import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    Answer,
    Began,
    Call,
    Failed,
    FrameTooLarge,
    Returned,
    Start,
    decode_answer,
    frame,
)
from fanfold_consumer.registry import Handler
from fanfold_consumer.retry import HandlerFailed, RaisedInProcess, RetryAfter
from fanfold_consumer.time_limit import within
from fanfold_schemas import Send, VectorClock

READY_S = 120.0
"""For a process to start, import the handler's module and take its call. Beyond it, it is killed."""
RETRY_S = 1.0
"""Until the next try, when the system starts no process."""
GRACE_S = 2.0
"""For a process that was told to end, or has closed its connection, to be gone."""
BUFFER_BYTES = 1024 * 1024
_NO_ANSWER = "what its process sent is no answer, so it was killed"


class ProcessDied(RuntimeError):
    """A handler's process ended under it: a crash, `os._exit`, the kernel's memory killer."""


class WorkerProcesses:
    """Runs handlers in up to `size` processes, started as they are needed and used again."""

    def __init__(self, size: int) -> None:
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Process] = []
        self._processes: set[_Process] = set()

    async def run(self, handler: Handler, arguments: Sequence[Any]) -> Any:
        """What the handler returned, its value `Encoded`. If nobody waits for it any more, its process is killed.

        Args:
            arguments: the arg as it was decoded, since it is converted in the process; and the context, if it is taken.

        Raises:
            OutOfTime: counted from when the handler has its call. Its process is killed.
            ProcessDied: its process did not live to answer.
            RaisedInProcess, RetryAfter: what the handler raised.
            HandlerFailed: the arg is not what it declares, or what it returned cannot be stored: not to be retried.
        """
        arg, *context = arguments
        function = handler.function
        call = Call(handler.name, function.__module__, function.__qualname__, arg, context[0] if context else None)
        async with self._slots:
            process = await self._begin(call)
            try:
                answer = await within(handler.timeout_s, process.answer())
            except BaseException:
                process.kill()
                raise
            self._idle.append(process)
        return _value(handler, answer)

    async def close(self) -> None:
        """End all processes: idle ones by themselves, so that what they registered with atexit is done."""
        for process in self._idle:
            process.dismiss()
        ends = [process.ended for process in self._processes]
        if ends:
            await asyncio.wait(ends, timeout=GRACE_S)
        for process in self._processes:
            process.kill()
        await asyncio.gather(*ends)

    async def _begin(self, call: Call) -> _Process:
        """A process that has taken the call. An idle one may have died meanwhile; that is no failure of this call."""
        try:
            data = frame(call)
        except FrameTooLarge as error:
            raise HandlerFailed("E_ARG", f"the arg of {call.name!r} does not fit: {error}") from None
        while True:
            was_idle = bool(self._idle)
            process = self._idle.pop() if was_idle else await self._start()
            try:
                async with asyncio.timeout(READY_S):
                    await process.begin(data)
                return process
            except ProcessDied:
                process.kill()
                if not was_idle:
                    raise
            except TimeoutError:
                process.kill()
                raise ProcessDied(f"its process had not imported {call.module} after {READY_S:g} s") from None
            except BaseException:
                process.kill()
                raise

    async def _start(self) -> _Process:
        while True:
            try:
                process = await _Process.start()
                break
            except OSError as error:
                # The system is short of memory, processes or files: no task's fault, so none fails over it.
                log.warning("process.unavailable", error=str(error))
                await asyncio.sleep(RETRY_S)
        self._processes.add(process)
        process.ended.add_done_callback(lambda _: self._forget(process))
        return process

    def _forget(self, process: _Process) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)


class _Process:
    """A child process and the connection to it.

    Attributes:
        ended: done when the process is gone, and what its handlers started with it.
    """

    def __init__(
        self,
        child: asyncio.subprocess.Process,
        lifeline: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._child = child
        self._lifeline = lifeline
        self._reader = reader
        self._writer = writer
        self.ended = asyncio.create_task(self._await_end())

    @classmethod
    async def start(cls) -> _Process:
        """Start the interpreter. Raises `OSError` if the system does not let us."""
        theirs_lifeline, lifeline = os.pipe()
        try:
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                # As much as the system allows. A large value crosses in fewer turns, each of which may wait for a core.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            with theirs:
                reader, writer = await asyncio.open_unix_connection(sock=ours, limit=BUFFER_BYTES)
                try:
                    child = await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-P",  # the working directory comes into its path when its own imports are done
                        "-m",
                        "fanfold_consumer.process_worker",
                        str(theirs.fileno()),
                        str(theirs_lifeline),
                        stdin=asyncio.subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(), theirs_lifeline),
                        # A Ctrl-C at the terminal is for the member, which lets handlers finish.
                        start_new_session=True,
                    )
                except BaseException:
                    writer.transport.abort()
                    raise
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(theirs_lifeline)
        writer.write(frame(Start([str(entry) for entry in sys.path], log_settings())))
        return cls(child, lifeline, reader, writer)

    async def begin(self, call: bytearray) -> None:
        """Hand the call over and wait until the handler has it. Raises `ProcessDied`."""
        try:
            self._writer.write(call)
            await self._writer.drain()
        except OSError:
            raise await self._death() from None
        if not isinstance(await self._receive(), Began):
            raise ProcessDied(_NO_ANSWER)

    async def answer(self) -> Returned | Failed:
        """Wait for what the handler comes to. Raises `ProcessDied`."""
        answer = await self._receive()
        if isinstance(answer, Began):
            raise ProcessDied(_NO_ANSWER)
        return answer

    def kill(self) -> None:
        """End it at once, with all that its handlers started. Harmless when it is gone."""
        if self._child.returncode is None:
            self._kill_group()
        self._writer.transport.abort()

    def dismiss(self) -> None:
        """Let it end by itself."""
        self._writer.close()

    async def _receive(self) -> Answer:
        try:
            length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
            if length > FRAME_BYTES_MAX:
                raise ProcessDied(_NO_ANSWER)
            return decode_answer(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            raise await self._death() from None
        except (msgspec.MsgspecError, RecursionError):
            raise ProcessDied(_NO_ANSWER) from None

    async def _death(self) -> ProcessDied:
        try:
            async with asyncio.timeout(GRACE_S):
                status = await self._child.wait()
        except TimeoutError:
            return ProcessDied("its process closed its connection to the member, so it was killed")
        return ProcessDied(f"its process {_end(status)}")

    async def _await_end(self) -> None:
        try:
            await self._child.wait()
        finally:
            # What its handlers started, and may hold the other end of the connection. Numbers of processes are given
            # out in turn, so nobody else can have got this one by now.
            self._kill_group()
            self._writer.transport.abort()
            os.close(self._lifeline)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)


def _value(handler: Handler, answer: Returned | Failed) -> Any:
    if isinstance(answer, Failed):
        raise _failure(handler, answer)
    value, sent = Encoded(answer.value), answer.sent
    if sent is None:
        return value
    sends = [Send(node, sent.args[place], task_id) for node, place, task_id in sent.sends]
    base = None if sent.base is None else VectorClock(sent.base)
    return Sends(sends, sent.fold, value, base, sent.quorum, sent.max_failures)


def _failure(handler: Handler, answer: Failed) -> Exception:
    if answer.code == "E_ARG":
        return HandlerFailed("E_ARG", f"the arg of {handler.name!r} is not what it declares: {answer.text}")
    if answer.code == "E_RESULT":
        return HandlerFailed("E_RESULT", f"the handler's result cannot be stored: {answer.text}")
    if answer.after_s is not None:
        return RetryAfter(answer.after_s, answer.text)
    return RaisedInProcess(answer.kind, answer.text, answer.again)


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:
        name = ""
    return f"died with signal {-status}{name}"
