"""Handlers for both ways to run: `name` in the member itself, `name-process` in a process of its own.

Importable, as handlers with isolation="process" must be; a process imports this module and finds `registry`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fanfold_consumer import Registry, Send, Sends, TaskContext
from fanfold_consumer.retry import RetryAfter
from fanfold_schemas import VectorClock
from tests.support.wait import eventually

registry = Registry()
FRAME_GARBAGE = (b"\0\0\0\x05hello", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x03\x81\xa1t")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 2


def both(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a handler twice, without retries unless it says so."""
    settings = {"retries": 0} | settings

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        registry.task(name, **settings)(function)
        registry.task(f"{name}-process", isolation="process", **settings)(function)
        return function

    return declare


def alone(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a handler that must not run in the member: it would end it."""
    return registry.task(name, isolation="process", **{"retries": 0, "timeout": 60.0, **settings})


@both("echo")
def echo(value: Any) -> Any:
    return value


@both("echo-async")
async def echo_async(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


@both("of-point")
def of_point(point: Point) -> Point:
    assert isinstance(point, Point)
    return Point(point.y, point.x)


@both("context")
def context_of(_: Any, context: TaskContext) -> dict[str, Any]:
    assert isinstance(context.base, VectorClock)
    assert isinstance(context.failed, tuple)
    return {"text": repr(context)}


@both("sends")
def sends(what: str) -> Sends:
    shared = {"n": [1, 2.5, None, b"\xff", True]}
    return {
        "all": Sends(
            [Send("a", shared), Send("b", shared, "mine"), ("c", Point(1))], "sum", {"v": 1}, VectorClock({"m": 3})
        ),
        "none": Sends([], value=5),
        "only-fold": Sends([], fold="sum"),
        "iterator": Sends(cast("Any", iter([("a", 1)]))),
        "no-send": Sends([("a", 1), 7]),
        "text": Sends("ab"),
        "bad-arg": Sends([("a", 1), ("b", {"x": [1, {2}]})]),
        "bad-node": Sends([("a b", 1)]),
        "bad-fold": Sends([("a", 1)], fold="a b"),
        "bad-base": Sends([("a", 1)], base={"m": -1}),  # type: ignore[arg-type]
        "same-id": Sends([Send("a", 1, "i"), Send("a", 2, "i")]),
        "raises": Sends(cast("Any", _interrupted())),
    }[what]


def _interrupted() -> Iterator[object]:
    yield ("a", 1)
    raise KeyError("half")


@both("raise")
def raises(what: str) -> None:
    raise {
        "value": ValueError("boom"),
        "none": ValueError(),
        "key": KeyError("k"),
        "unprintable": Unprintable(),
        "surrogate": OSError("no file \udcff\0"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt("c"),
        "stop": StopIteration(1),
        "group": ExceptionGroup("some", [ValueError("a")]),
        "base-group": BaseExceptionGroup("some", [SystemExit()]),
        "timeout": TimeoutError("a socket's"),
        "later": RetryAfter(7, "rate limit"),
    }[what]


@both("raise-long")
def raise_long(size: int) -> None:
    raise ValueError("x" * size)


@both("raise-async")
async def raise_async(what: str) -> None:
    raise {"value": ValueError("boom"), "cancelled": asyncio.CancelledError("by itself")}[what]


@both("unstorable")
def unstorable(what: str) -> Any:
    return {
        "object": object(),
        "set": {1},
        "nan": float("nan"),
        "large-int": 2**70,
        "uint64": 2**63,
        "nul": {"a": ["x\0"]},
        "int-key": {1: 2},
        "long": "x" * 300_000,
        "huge": b"x" * (17 * 1024 * 1024),
        "deep": _nested(100),
        "deeper": _nested(10_000),
    }[what]


def _nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


@registry.task("picky-process", isolation="process", retry_on=(KeyError, OSError), retries=1, backoff=0)
def picky(path: str) -> int:
    """Fails once with a KeyError, then with a ValueError."""
    with Path(path).open("a") as calls:
        calls.write("x")
    if len(Path(path).read_text()) == 1:
        raise KeyError("again")
    raise ValueError("for good")


@registry.fold("total-process", isolation="process")
def total(values: list[int], context: TaskContext) -> list[Any]:
    return [sum(values), list(context.failed), os.getpid()]


@alone("pid")
def pid(_: Any) -> int:
    return os.getpid()


@alone("where")
def where(_: Any) -> list[Any]:
    return [str(Path.cwd()), sys.path, os.environ.get("FANFOLD_TEST_WHERE"), os.getsid(0) == os.getpid()]


@alone("die")
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))


@alone("crash-process", retries=2, backoff=0.01)
def crash(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@alone("split-process")
def split(n: int) -> Sends:
    return Sends([("echo", i) for i in range(n)], "sum", f"sent {n}")


@alone("spin", timeout=0.2)
def spin(path: str) -> None:
    """Computes for ever, once its pid is in the file."""
    note_pids(path, os.getpid())
    while True:
        pass


@alone("hold")
def hold(path: str) -> None:
    """Waits for ever, and so does a child of its own."""
    note_pids(path, os.getpid(), _a_child().pid)
    time.sleep(600)


def _a_child() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)


@alone("deaf")
def deaf(path: str) -> None:
    """Waits for ever and ignores the kernel's signal that the member is gone."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    note_pids(path, os.getpid())
    time.sleep(600)


@alone("explode")
def explode(path: str) -> None:
    """Computes for hours without letting go of the interpreter."""
    note_pids(path, os.getpid())
    re.match(r"(a+)+$", "a" * 60 + "b")


@alone("hang-async", timeout=0.2)
async def hang_async(path: str) -> None:
    note_pids(path, os.getpid())
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue


@alone("garbage")
def garbage(which: int) -> None:
    os.write(int(sys.argv[1]), FRAME_GARBAGE[which])
    time.sleep(600)


@alone("print")
def prints(text: str) -> str:
    print(text)
    sys.stdout.buffer.write(text.encode())
    return text


@alone("repeat")
def repeat(mebibytes: int) -> list[bytes]:
    return [bytes(1024 * 1024)] * mebibytes


@alone("echo-quick", timeout=0.1)
def echo_quick(value: Any) -> Any:
    return value


@alone("at-exit")
def at_exit(path: str) -> None:
    atexit.register(Path(path).write_text, "bye")


@alone("close-all")
def close_all(_: Any) -> None:
    os.closerange(3, 256)


@alone("fork")
def forks(path: str) -> int:
    """Leaves a child behind that holds whatever this process has open."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    note_pids(path, child)
    return os.getpid()


@alone("leave-behind")
def leave_behind(path: str) -> None:
    """Dies, and leaves a program that runs for ever."""
    note_pids(path, _a_child().pid)
    os._exit(1)


def note_pids(path: str, *pids: int) -> None:
    written = Path(f"{path}.part")
    written.write_text(" ".join(map(str, pids)))
    written.rename(path)


def read_pids(path: Path) -> list[int]:
    """Those of a handler that has begun; empty: it has not."""
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def await_begun(path: Path) -> list[int]:
    """Wait for a handler to say its pids."""
    return eventually(lambda: read_pids(path), what=f"pids in {path.name}")


def await_end(pids: list[int]) -> None:
    """Wait until none of these processes runs; there must have been some."""
    assert pids
    eventually(lambda: not any(map(_is_running, pids)), what=f"an end of the processes {pids}")


def _is_running(pid: int) -> bool:
    """Not so if it has ended and waits to be noticed."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")
