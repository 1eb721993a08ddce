"""The inside of a handler process: takes calls from its member, one at a time, until there is no member any more."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO

import msgspec

from fanfold_consumer.context import Sends, TaskContext
from fanfold_consumer.dead_letters import ERROR_CHARS_MAX
from fanfold_consumer.events import configure_logging
from fanfold_consumer.process_messages import (
    LENGTH_BYTES,
    Began,
    Call,
    Failed,
    FrameTooLarge,
    Returned,
    Sent,
    decode_call,
    decode_start,
    frame,
)
from fanfold_consumer.registry import ArgumentError, Handler, Registry, default_registry
from fanfold_consumer.retry import RetryAfter, describe
from fanfold_producer.fan_out import check_sends, pack_arg
from fanfold_schemas import SchemaError, check_id, pack_value
from fanfold_schemas.clock import check_clock


def main() -> None:
    """Serve the member at the other end of the two file descriptors that are named."""
    connection_fd, lifeline_fd = map(int, sys.argv[1:3])
    _end_with_member(lifeline_fd)
    # A handler that starts a program does not give it these.
    os.set_inheritable(connection_fd, False)
    os.set_inheritable(lifeline_fd, False)
    with suppress(OSError), socket.socket(fileno=connection_fd) as connection, connection.makefile("rb") as incoming:
        _serve(connection, incoming)


def _serve(connection: socket.socket, incoming: BinaryIO) -> None:
    if (data := _next(incoming)) is None:
        return
    start = decode_start(data)
    # After our own imports, as in the member: a module of the user's may have the name of one of them.
    sys.path[:] = start.path
    if start.logs is not None:
        configure_logging(json=start.logs[0], level=start.logs[1])
    while (data := _next(incoming)) is not None:
        _serve_call(connection, decode_call(data))
        del data  # while it waits for the next call, it holds nothing of this one


def _next(incoming: BinaryIO) -> bytes | None:
    """The next message; None: the member has closed the connection."""
    length = incoming.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "big")
    data = incoming.read(size)
    return data if len(data) == size else None


def _serve_call(connection: socket.socket, call: Call) -> None:
    handler: Handler | None = None
    try:
        handler = _find(call)
    except BaseException as error:
        unfound = _raised(error, (Exception,))
    connection.sendall(frame(Began()))
    answer = frame(unfound) if handler is None else _answer(handler, call)
    with suppress(Exception):
        sys.stdout.flush()  # killed, it would not write what it holds back
    connection.sendall(answer)


def _answer(handler: Handler, call: Call) -> bytearray:
    argument = call.arg
    if handler.convert is not None:
        try:
            argument = handler.convert(argument)
        except ArgumentError as error:
            return frame(Failed("E_ARG", _shown(str(error))))
    try:
        value = _run(handler, argument, call.context)
    except BaseException as error:
        return frame(_raised(error, handler.retry.on))
    try:
        return frame(_returned(value))
    except BaseException as error:
        # Of any kind: reading what the handler returned runs its code.
        text = str(error) if isinstance(error, SchemaError | FrameTooLarge) else describe(error)
        return frame(Failed("E_RESULT", _shown(text)))


def _find(call: Call) -> Handler:
    module = importlib.import_module(call.module)
    registries = [default_registry, *(value for value in vars(module).values() if isinstance(value, Registry))]
    for registry in registries:
        handler = registry.get(call.name)
        if handler is not None and _is_of(handler, call):
            return handler
    raise LookupError(
        f"importing {call.module} declares no handler {call.name!r} of {call.qualname}; for isolation='process' "
        "declare it in the module that defines its function, with @task, @fold or a Registry that is a name there"
    )


def _is_of(handler: Handler, call: Call) -> bool:
    return (handler.function.__module__, handler.function.__qualname__) == (call.module, call.qualname)


def _run(handler: Handler, argument: Any, context: TaskContext | None) -> Any:
    arguments = (argument,) if context is None else (argument, context)
    if handler.is_async:
        return asyncio.run(handler.function(*arguments))
    return handler.function(*arguments)


def _returned(value: Any) -> Returned:
    sent = None
    if isinstance(value, Sends):
        sent = _sent(value) if value.sends or value.fold is not None else None
        value = value.value
    return Returned(pack_value(value), sent)


def _sent(asked: Sends) -> Sent:
    if asked.fold is not None:
        check_id(asked.fold, "$.fold")
    base = None if asked.base is None else dict(check_clock(asked.base, "$.base"))
    sends: list[tuple[str, int, str | None]] = []
    args: list[msgspec.Raw] = []
    places: dict[int, int] = {}
    checked = check_sends(asked.sends)
    for index, send in enumerate(checked):
        place = places.get(id(send.arg))
        if place is None:
            place = places[id(send.arg)] = len(args)
            args.append(msgspec.Raw(pack_arg(send.arg, index)))
        sends.append((send.node, place, send.task_id))
    return Sent(sends, args, asked.fold, base, asked.quorum, asked.max_failures)


def _raised(error: BaseException, retry_on: tuple[type[Exception], ...]) -> Failed:
    """A failure as the member would have seen it, had the handler run there."""
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        error = RuntimeError(f"the handler raised {describe(error)}")
    if isinstance(error, RetryAfter):
        return Failed("E_HANDLER", _shown(str(error.why)), after_s=error.seconds)
    return Failed("E_HANDLER", _shown(describe(error)), _shown(type(error).__name__), isinstance(error, retry_on))


def _shown(text: str) -> str:
    """As much of it as a dead letter keeps, without what UTF-8 cannot hold."""
    return text[:ERROR_CHARS_MAX].encode("utf-8", "backslashreplace").decode()


def _end_with_member(lifeline: int) -> None:
    """See to it that this process, and what its handlers start, ends when the member is gone, however it went.

    The member holds the other end of this pipe and never writes, so what there is to read is its end. A thread alone
    would not do: a handler that computes in C without letting go of the interpreter (a regular expression that
    explodes, say) would keep it from noticing. So on Linux the kernel itself ends the process group, by a signal that
    nobody handles; the thread is for other systems, and for a member that was gone before this was set up.
    """
    if sys.platform == "linux":
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch, args=(lifeline,), name="fanfold-lifeline", daemon=True).start()


def _watch(lifeline: int) -> None:
    with suppress(OSError):
        os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
