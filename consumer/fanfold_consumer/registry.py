"""Handlers by name. `@task` and `@fold` put functions into the registry that `fanfold consume --handlers` reads."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from fanfold_consumer.errors import ConfigError
from fanfold_consumer.folds import built_in
from fanfold_schemas import SchemaError, check_id

Function = TypeVar("Function", bound=Callable[..., Any])
Convert = Callable[[Any], Any]
Isolation = Literal["process"]


class ArgumentError(ValueError):
    """A task's arg is not of the type its handler declares. Not retried: it would fail again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a failing handler is tried again.

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
    """A function with how to call it. `timeout_s` None: as long as it takes; `isolation` None: in the member itself."""

    name: str
    function: Callable[..., Any]
    is_fold: bool
    is_async: bool
    takes_context: bool
    convert: Convert | None
    timeout_s: float | None
    retry: Retry
    isolation: Isolation | None = None


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
        isolation: Isolation | None = None,
    ) -> Callable[[Function], Function]:
        """Declare the handler of a node: `async def` runs on the event loop, `def` on a worker of its own.

        The first parameter gets the task's arg, converted to its annotation (dataclass, pydantic model, msgspec
        struct, TypedDict or plain type) and checked before the handler runs; a second one gets the `TaskContext`.
        The return value is the result: anything msgpack can hold, or `Sends`.

        Args:
            name: the node, 1 to 200 of `[A-Za-z0-9._:-]`.
            timeout: seconds a single attempt may take.
            retries: tries after the first. Waits grow from `backoff` to `backoff_max` seconds, at random below that.
                A handler that knows better raises `RetryAfter`.
            retry_on: the exceptions worth another try.
            isolation: "process" runs it in a process of its own, which is killed when its timeout passes or nobody
                needs the task any more, and whose death (`ProcessDied`) fails the attempt and nothing else. It is for
                code that may hang or crash; each call costs a round trip. The process imports the module that
                declares the handler, calls it there, and is used again.
        """
        retry = Retry(retries, backoff, backoff_max, _as_tuple(retry_on))
        return self._declare(name, False, timeout, retry, isolation)

    def fold(
        self,
        name: str,
        *,
        timeout: float | None = None,
        retries: int = 3,
        backoff: float = 0.2,
        backoff_max: float = 5.0,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        isolation: Isolation | None = None,
    ) -> Callable[[Function], Function]:
        """Declare a fold: its first parameter gets the list of results in index order, failed tasks left out."""
        retry = Retry(retries, backoff, backoff_max, _as_tuple(retry_on))
        return self._declare(name, True, timeout, retry, isolation)

    def _declare(
        self, name: str, is_fold: bool, timeout_s: float | None, retry: Retry, isolation: Isolation | None
    ) -> Callable[[Function], Function]:
        if callable(name):
            # `@task` without its parentheses would be a declaration that never happens, without a word.
            kind, function_name = "fold" if is_fold else "task", getattr(name, "__name__", "name")
            raise ConfigError([f'a handler without a name; write @{kind}("{function_name}")'])

        def register(function: Function) -> Function:
            problems = [*self._name_problems(name, function), *_setting_problems(timeout_s, retry)]
            parameters = _parameters(function)
            convert = None
            problem = _function_problem(function, parameters) or _isolation_problem(function, isolation)
            if problem is None:
                try:
                    convert = _converter(function, parameters[0])
                except TypeError as error:
                    problem = str(error)
            if problem is not None:
                problems.append(problem)
            if problems:
                raise ConfigError([f"handler {name!r}: {problem}" for problem in problems])
            self._handlers[name] = Handler(
                name,
                function,
                is_fold,
                inspect.iscoroutinefunction(function),
                len(_positional(parameters)) > 1,
                convert,
                timeout_s,
                retry,
                isolation,
            )
            return function

        return register

    def _name_problems(self, name: str, function: Any) -> list[str]:
        try:
            check_id(name, "name")
        except SchemaError as error:
            return [error.detail]
        if built_in(name) is not None:
            return ["the name of a built-in fold; choose another"]
        known = self._handlers.get(name)
        if known is not None and _where(known.function) != _where(function):
            return [f"declared already by {_where(known.function)}"]
        return []


def load_handlers(modules: Sequence[str], registry: Registry | None = None) -> Registry:
    """Import modules (the working directory first, as `python -m` does) and return the registry they filled.

    Raises:
        ConfigError: a module cannot be imported, or no handler was declared. All problems at once.
    """
    found = default_registry if registry is None else registry
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    problems: list[str] = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ConfigError as error:
            problems += [f"--handlers {name}: {problem}" for problem in error.problems]
        except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` ends itself
            problems.append(f"--handlers {name}: {type(error).__name__}: {error}")
    if not problems and not len(found):
        problems.append(f"no @task or @fold is declared in {', '.join(modules) or 'any module (--handlers)'}")
    if problems:
        raise ConfigError(problems)
    return found


def _where(function: Any) -> str:
    """Where a function is declared; the same when its module is imported again."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"


def _setting_problems(timeout_s: float | None, retry: Retry) -> list[str]:
    problems = []
    if timeout_s is not None and not (_is_number(timeout_s) and timeout_s > 0):
        problems.append(f"timeout {timeout_s!r} s; it must be above 0, or None")
    numbers = (retry.retries, retry.backoff_s, retry.backoff_max_s)
    if not (all(map(_is_number, numbers)) and retry.retries >= 0 and 0 <= retry.backoff_s <= retry.backoff_max_s):
        problems.append("retries and backoff must not be negative, nor backoff above backoff_max")
    kinds: tuple[Any, ...] = retry.on
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        problems.append(f"retry_on {kinds!r}: name an exception class, or a tuple of them")
    return problems


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _positional(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _function_problem(function: Any, parameters: list[inspect.Parameter]) -> str | None:
    # Classes, partial() and objects with __call__ hide what they are: whether to await them, what types they take.
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__qualname__"):
        return f"{function!r:.60} is no function; declare one with def or async def"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "yields its results; return them, as a list"
    required = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if required or not 1 <= len(_positional(parameters)) <= 2:
        return "takes the arg and, if it wants it, a TaskContext: one or two positional parameters"
    return None


def _isolation_problem(function: Any, isolation: object) -> str | None:
    if isolation is None:
        return None
    if isolation != "process":
        return f"isolation {isolation!r:.40}; it can be 'process', or be left out"
    # The process finds the function by importing what declares it, and by its name there.
    if function.__module__ == "__main__":
        return "isolation='process' cannot import __main__; put the handler into a module of its own and import that"
    if "<locals>" in function.__qualname__:
        return "isolation='process' cannot find a function within a function; declare it at the top of its module"
    return None


def _converter(function: Callable[..., Any], parameter: inspect.Parameter) -> Convert | None:
    """How a decoded arg becomes what the annotation says; None where it says nothing.

    Raises:
        TypeError: no arg can be checked against the annotation.
    """
    try:
        wanted = typing.get_type_hints(function).get(parameter.name, Any)
    except Exception as error:
        raise TypeError(
            f"its annotations cannot be resolved ({error}); import what they name outside of `if TYPE_CHECKING`"
        ) from error
    if wanted in (Any, object):
        return None
    try:
        convert = _pydantic(wanted) if _has_model(wanted) else _msgspec(wanted)
    except Exception as error:
        raise TypeError(f"no arg can be checked against {wanted}: {error}") from error

    def checked(value: Any) -> Any:
        try:
            return convert(value)
        except Exception as error:
            # As a rule a ValidationError, which says where; but a type's own validation may raise anything.
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ArgumentError(text) from None

    return checked


def _has_model(wanted: Any) -> bool:
    """Whether pydantic is asked for, at any depth of `list[Model] | None`."""
    return hasattr(wanted, "model_validate") or any(map(_has_model, typing.get_args(wanted)))


def _pydantic(wanted: Any) -> Convert:
    from pydantic import TypeAdapter  # only those who use it have it

    return TypeAdapter(wanted).validate_python


def _msgspec(wanted: Any) -> Convert:
    # Bytes travel as bytes: text that is sent for them is a mistake, not base64.
    convert = functools.partial(msgspec.convert, type=wanted, builtin_types=(bytes, bytearray))
    # A first value, of no type at all, shows whether msgspec can work with the annotation.
    with contextlib.suppress(msgspec.ValidationError):
        convert(None)
    return convert


def _as_tuple(kinds: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


default_registry = Registry()
task = default_registry.task
fold = default_registry.fold
