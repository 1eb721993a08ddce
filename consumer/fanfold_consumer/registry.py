"""Handlers by name. `@task` and `@fold` put functions into the registry that `fanfold consume --handlers` reads."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fanfold_consumer.errors import ConfigError
from fanfold_consumer.folds import built_in
from fanfold_schemas import SchemaError, check_id

Function = TypeVar("Function", bound=Callable[..., Any])
Convert = Callable[[Any], Any]


class ArgumentError(ValueError):
    """A task's arg is not of the type its handler declares. Not retried: it would fail again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a failing handler is tried again, in place.

    Attributes:
        retries: tries after the first; 0: none.
        backoff_s: the first wait is random between 0 and this, then twice as much each time ("full jitter").
        backoff_max_s: no wait is longer.
        on: only these exceptions; any other fails at once.
    """

    retries: int = 3
    backoff_s: float = 0.2
    backoff_max_s: float = 5.0
    on: tuple[type[Exception], ...] = (Exception,)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function with how to call it. `timeout_s` None: as long as it takes."""

    name: str
    function: Callable[..., Any]
    is_fold: bool
    is_async: bool
    takes_context: bool
    convert: Convert | None
    timeout_s: float | None
    retry: Retry


class Registry:
    """Handlers of one fleet. The module-level `task` and `fold` fill a default one."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def __len__(self) -> int:
        return len(self._handlers)

    def get(self, name: str) -> Handler | None:
        return self._handlers.get(name)

    def names(self) -> list[str]:
        return sorted(self._handlers)

    def task(
        self,
        name: str,
        *,
        timeout: float | None = None,
        retries: int = 3,
        backoff: float = 0.2,
        backoff_max: float = 5.0,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> Callable[[Function], Function]:
        """Declare the handler of a node: `async def` runs on the event loop, `def` on a worker of its own.

        The first parameter gets the task's arg, converted to its annotation (dataclass, pydantic model, msgspec
        struct, TypedDict or plain type) and checked before the handler runs; a second one gets the `TaskContext`.
        The return value is the result: anything msgpack can hold, or `Sends`.

        Args:
            name: the node, 1 to 200 of `[A-Za-z0-9._:-]`.
            timeout: seconds a single attempt may take.
            retries: tries after the first. Waits grow from `backoff` to `backoff_max` seconds, at random below that.
            retry_on: the exceptions worth another try.
        """
        return self._declare(name, False, timeout, Retry(retries, backoff, backoff_max, _as_tuple(retry_on)))

    def fold(
        self,
        name: str,
        *,
        timeout: float | None = None,
        retries: int = 3,
        backoff: float = 0.2,
        backoff_max: float = 5.0,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> Callable[[Function], Function]:
        """Declare a fold: its first parameter gets the list of results in index order, failed tasks left out."""
        return self._declare(name, True, timeout, Retry(retries, backoff, backoff_max, _as_tuple(retry_on)))

    def _declare(
        self, name: str, is_fold: bool, timeout_s: float | None, retry: Retry
    ) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            problems = self._problems(name, function, timeout_s, retry)
            if problems:
                raise ConfigError([f"handler {name!r}: {problem}" for problem in problems])
            parameters = _parameters(function)
            self._handlers[name] = Handler(
                name,
                function,
                is_fold,
                inspect.iscoroutinefunction(function),
                len(parameters) > 1,
                _converter(function, parameters[0]),
                timeout_s,
                retry,
            )
            return function

        return register

    def _problems(self, name: str, function: Any, timeout_s: float | None, retry: Retry) -> list[str]:
        problems = []
        try:
            check_id(name, "name")
        except SchemaError as error:
            problems.append(error.detail)
        known = self._handlers.get(name)
        if known is not None and (known.function.__module__, known.function.__qualname__) != (
            getattr(function, "__module__", None),
            getattr(function, "__qualname__", None),
        ):
            problems.append(f"declared already by {known.function.__module__}.{known.function.__qualname__}")
        if built_in(name) is not None:
            problems.append("the name of a built-in fold; choose another")
        if not callable(function) or not 1 <= len(_parameters(function)) <= 2:
            problems.append(
                "takes the arg and, if it wants it, a TaskContext: one or two positional parameters"
            )
        if timeout_s is not None and timeout_s <= 0:
            problems.append(f"timeout {timeout_s} s; it must be above 0, or None")
        if retry.retries < 0 or retry.backoff_s < 0 or retry.backoff_max_s < retry.backoff_s:
            problems.append("retries and backoff must not be negative, nor backoff above backoff_max")
        return problems


def load_handlers(modules: Sequence[str], registry: Registry | None = None) -> Registry:
    """Import modules (the working directory first, as `python -m` does) and return the registry they filled.

    Raises:
        ConfigError: a module cannot be imported, or no handler was declared. All problems at once.
    """
    found = default_registry if registry is None else registry
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    problems = []
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            problems.append(f"--handlers {name}: {type(error).__name__}: {error}")
    if not problems and not len(found):
        problems.append(f"no @task or @fold is declared in {', '.join(modules) or 'any module (--handlers)'}")
    if problems:
        raise ConfigError(problems)
    return found


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        return [p for p in inspect.signature(function).parameters.values() if p.kind in positional]
    except (TypeError, ValueError):
        return []


def _converter(function: Callable[..., Any], parameter: inspect.Parameter) -> Convert | None:
    """How a decoded arg becomes what the annotation says; None where it says nothing."""
    try:
        wanted = typing.get_type_hints(function).get(parameter.name, Any)
    except Exception as error:
        raise ConfigError(
            [f"handler {function.__qualname__}: its annotations cannot be resolved: {error}"]
        ) from error
    if wanted in (Any, object, inspect.Parameter.empty):
        return None
    if hasattr(wanted, "model_validate"):
        return _pydantic(wanted.model_validate)
    args = typing.get_args(wanted)
    if typing.get_origin(wanted) is list and args and hasattr(args[0], "model_validate"):
        validate = args[0].model_validate
        return _pydantic(lambda values: [validate(value) for value in values])
    return _msgspec(wanted)


def _msgspec(wanted: Any) -> Convert:
    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            raise ArgumentError(str(error)) from None

    return convert


def _pydantic(validate: Callable[[Any], Any]) -> Convert:
    def convert(value: Any) -> Any:
        try:
            return validate(value)
        except ValueError as error:
            raise ArgumentError(str(error)) from None

    return convert


def _as_tuple(kinds: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


default_registry = Registry()
task = default_registry.task
fold = default_registry.fold
