"""A node that exits the interpreter fails like any other.

LangGraph runs nodes in asyncio tasks of its own, and asyncio hands `SystemExit` and `KeyboardInterrupt` of a task to
the loop: the member would end with each attempt, and nobody would hear why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig


class Guarded(Runnable[Any, Any]):
    """A node's body whose exits are errors."""

    def __init__(self, body: Runnable[Any, Any]) -> None:
        self._body = body

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with _no_exit():
            return self._body.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with _no_exit():
            return await self._body.ainvoke(input, config, **kwargs)


@contextmanager
def _no_exit() -> Iterator[None]:
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the node raised {type(error).__name__}: {error}") from error
