"""Declaring handlers: what their arg becomes, and what cannot be declared."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
import pydantic
import pytest

from fanfold_consumer import ConfigError, Registry, TaskContext
from fanfold_consumer.registry import ArgumentError, Handler, Retry

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


@dataclass
class Page:
    url: str
    depth: int = 0


@dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError(f"{self.n} is odd")


@dataclass
class Broken:
    n: int

    def __post_init__(self) -> None:
        raise LookupError("the validation itself broke")


class Struct(msgspec.Struct):
    url: str
    depth: int = 0


class Model(pydantic.BaseModel):
    url: str
    depth: int = 0


class BrokenModel(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        raise LookupError("the validation itself broke")


class Mapped(TypedDict):
    url: str
    depth: int


def takes_page(arg: Page) -> None: ...
def takes_struct(arg: Struct) -> None: ...
def takes_model(arg: Model) -> None: ...
def takes_typed_dict(arg: Mapped) -> None: ...
def takes_numbers(arg: list[int]) -> None: ...
def takes_pages(arg: list[Page]) -> None: ...
def takes_models(arg: list[Model]) -> None: ...
def takes_models_by_name(arg: dict[str, Model]) -> None: ...
def takes_a_model_or_nothing(arg: Model | None) -> None: ...
def takes_bytes(value: bytes) -> None: ...
def takes_text(arg: str) -> None: ...
def takes_untyped(arg) -> None: ...  # type: ignore[no-untyped-def]
def takes_any(arg: Any) -> None: ...
def takes_object(arg: object) -> None: ...
def takes_even(arg: Even) -> None: ...
def takes_broken(arg: Broken) -> None: ...
def takes_broken_model(arg: BrokenModel) -> None: ...


_FIELDS = {"url": "a", "depth": 2}


def _declared(function: Callable[..., Any], name: str = "work", **settings: Any) -> Handler:
    registry = Registry()
    assert registry.task(name, **settings)(function) is function, "the function stays what it was"
    handler = registry.get(name)
    assert handler is not None
    return handler


def _convert(function: Callable[..., Any], value: Any) -> Any:
    convert = _declared(function).convert
    assert convert is not None
    return convert(value)


def _problems(name: Any, function: Any, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Registry().task(name, **settings)(function)
    return "\n".join(caught.value.problems)


class TestArguments:
    @pytest.mark.parametrize(
        ("function", "value", "expected"),
        [
            (takes_page, _FIELDS, Page("a", 2)),
            (takes_page, {"url": "a"}, Page("a")),
            (takes_struct, _FIELDS, Struct("a", 2)),
            (takes_model, _FIELDS, Model(url="a", depth=2)),
            (takes_typed_dict, _FIELDS, _FIELDS),
            (takes_numbers, [1, 2], [1, 2]),
            (takes_pages, [_FIELDS], [Page("a", 2)]),
            (takes_models, [_FIELDS], [Model(url="a", depth=2)]),
            (takes_models, [], []),
            (takes_models_by_name, {"x": _FIELDS}, {"x": Model(url="a", depth=2)}),
            (takes_a_model_or_nothing, None, None),
            (takes_a_model_or_nothing, _FIELDS, Model(url="a", depth=2)),
            (takes_text, "a", "a"),
            (takes_bytes, b"a", b"a"),
            (takes_even, {"n": 2}, Even(2)),
        ],
    )
    def test_an_arg_becomes_what_its_handler_declares(
        self, function: Callable[..., Any], value: Any, expected: Any
    ) -> None:
        assert _convert(function, value) == expected

    @pytest.mark.parametrize(
        ("function", "value"),
        [
            (takes_page, {"url": 5}),
            (takes_page, {"depth": 1}),
            (takes_page, "a"),
            (takes_page, None),
            (takes_struct, {"url": "a", "depth": "2"}),
            (takes_model, {"depth": 2}),
            (takes_model, None),
            (takes_typed_dict, {"url": "a"}),
            (takes_numbers, [1, "2"]),
            (takes_numbers, 1),
            (takes_pages, [{"url": None}]),
            (takes_models, [_FIELDS, {}]),
            (takes_models, 5),
            (takes_models, None),
            (takes_models_by_name, {"x": {}}),
            (takes_a_model_or_nothing, 5),
            (takes_text, b"a"),
            (takes_bytes, "YQ=="),
            (takes_even, {"n": 1}),
        ],
    )
    def test_an_arg_of_another_type_is_refused(self, function: Callable[..., Any], value: Any) -> None:
        with pytest.raises(ArgumentError):
            _convert(function, value)

    def test_a_refusal_says_where_in_the_arg(self) -> None:
        with pytest.raises(ArgumentError, match=r"\$\[1\]\.url"):
            _convert(takes_pages, [_FIELDS, {"url": 5}])

    @pytest.mark.parametrize("function", [takes_broken, takes_broken_model])
    def test_a_type_whose_validation_breaks_refuses_the_arg_and_does_not_break_its_worker(
        self, function: Callable[..., Any]
    ) -> None:
        with pytest.raises(ArgumentError, match="LookupError"):
            _convert(function, {"n": 1})

    @pytest.mark.parametrize("function", [takes_untyped, takes_any, takes_object])
    def test_an_arg_without_a_type_is_handed_on_as_it_is(self, function: Callable[..., Any]) -> None:
        assert _declared(function).convert is None


class TestDeclarations:
    def test_one_parameter_is_the_arg_alone(self) -> None:
        assert not _declared(takes_page).takes_context

    def test_a_second_parameter_gets_the_context(self) -> None:
        def work(arg: Any, context: TaskContext) -> None: ...

        assert _declared(work).takes_context

    def test_a_keyword_with_a_default_is_the_handlers_own(self) -> None:
        def work(arg: Any, *, limit: int = 3) -> None: ...

        assert not _declared(work).takes_context

    def test_a_coroutine_function_runs_on_the_loop_and_a_function_does_not(self) -> None:
        async def on_the_loop(arg: Any) -> None: ...

        assert _declared(on_the_loop).is_async
        assert not _declared(takes_any).is_async

    def test_a_bound_method_is_a_handler(self) -> None:
        class Service:
            def work(self, arg: Page) -> str:
                return arg.url

        handler = _declared(Service().work)
        assert not handler.takes_context
        assert handler.convert is not None

    def test_settings_of_a_declaration_are_kept(self) -> None:
        handler = _declared(takes_any, timeout=2.5, retries=1, backoff=0.1, backoff_max=0.4, retry_on=OSError)
        assert handler.timeout_s == 2.5
        assert handler.retry == Retry(1, 0.1, 0.4, (OSError,))

    def test_several_exceptions_may_be_worth_a_retry(self) -> None:
        assert _declared(takes_any, retry_on=(OSError, KeyError)).retry.on == (OSError, KeyError)

    def test_a_fold_is_declared_as_one(self) -> None:
        registry = Registry()
        registry.fold("merge", retries=0)(takes_pages)
        handler = registry.get("merge")
        assert handler is not None
        assert handler.is_fold
        assert handler.retry.retries == 0
        assert handler.convert is not None

    def test_names_are_listed_in_order(self) -> None:
        registry = Registry()
        for name in ("b", "a:1", "c.d-e_f"):
            registry.task(name)(takes_any)
        assert registry.names() == ["a:1", "b", "c.d-e_f"]
        assert len(registry) == 3
        assert registry.get("z") is None


class TestBadDeclarations:
    def test_every_problem_of_a_declaration_is_named_at_once(self) -> None:
        def work() -> None: ...

        problems = _problems("no name", work, timeout=0, retries=-1, retry_on="OSError")
        for what in ("'no name'", "one or two", "timeout 0", "retries", "retry_on"):
            assert what in problems
        assert len(problems.splitlines()) == 5

    def test_problems_are_told_with_the_handlers_name(self) -> None:
        assert "handler 'work'" in _problems("work", takes_any, timeout=-1)

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 201, "ä", "first:²"])
    def test_a_name_that_is_no_id_is_refused(self, name: str) -> None:
        assert "characters" in _problems(name, takes_any)

    @pytest.mark.parametrize("name", ["count", "sum", "collect", "first:3", "first:0"])
    def test_the_name_of_a_built_in_fold_is_refused(self, name: str) -> None:
        assert "built-in" in _problems(name, takes_any)

    def test_a_decorator_without_a_name_is_refused_where_it_stands(self) -> None:
        registry = Registry()
        bare: Any = registry.task
        with pytest.raises(ConfigError, match=r'@task\("takes_any"\)'):
            bare(takes_any)
        bare = registry.fold
        with pytest.raises(ConfigError, match=r'@fold\("takes_any"\)'):
            bare(takes_any)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5"])
    def test_a_timeout_that_is_no_time_is_refused(self, timeout: Any) -> None:
        assert "timeout" in _problems("work", takes_any, timeout=timeout)

    @pytest.mark.parametrize(
        "settings",
        [
            {"retries": -1},
            {"backoff": -0.1},
            {"backoff": 2, "backoff_max": 1},
            {"backoff": float("nan")},
            {"retries": None},
            {"backoff": "1"},
        ],
    )
    def test_a_retry_policy_that_cannot_be_followed_is_refused(self, settings: dict[str, Any]) -> None:
        assert "retries and backoff" in _problems("work", takes_any, **settings)

    @pytest.mark.parametrize("retry_on", ["OSError", [OSError], OSError(), (OSError, 5), int, KeyboardInterrupt])
    def test_what_is_no_exception_class_is_not_worth_a_retry(self, retry_on: Any) -> None:
        assert "retry_on" in _problems("work", takes_any, retry_on=retry_on)

    def test_a_handler_of_no_or_too_many_parameters_is_refused(self) -> None:
        def none() -> None: ...
        def three(a: Any, b: Any, c: Any) -> None: ...
        def keywords(arg: Any, *, limit: int) -> None: ...
        def star(*args: Any) -> None: ...

        for function in (none, three, keywords, star):
            assert "one or two positional parameters" in _problems("work", function), function

    def test_a_generator_is_refused(self) -> None:
        def items(arg: Any) -> Any:
            yield arg

        async def items_on_the_loop(arg: Any) -> Any:
            yield arg

        assert "yields" in _problems("work", items)
        assert "yields" in _problems("work", items_on_the_loop)

    @pytest.mark.parametrize("thing", [None, 5, "work", Page, functools.partial(takes_any), sys])
    def test_what_is_no_function_is_refused(self, thing: Any) -> None:
        assert "no function" in _problems("work", thing)

    def test_a_callable_object_is_refused(self) -> None:
        class Service:
            async def __call__(self, arg: Any) -> None: ...

        assert "no function" in _problems("work", Service())

    def test_an_annotation_that_cannot_be_resolved_is_one_of_the_problems(self) -> None:
        def work(arg: OnlyForCheckers) -> None: ...

        problems = _problems("work", work, timeout=0)
        assert "OnlyForCheckers" in problems
        assert "TYPE_CHECKING" in problems
        assert "timeout" in problems

    def test_a_type_that_no_arg_can_be_checked_against_is_refused_at_once(self) -> None:
        def work(arg: list[int] | list[str]) -> None: ...

        assert "list[int] | list[str]" in _problems("work", work)

    def test_a_refused_declaration_leaves_nothing_behind(self) -> None:
        registry = Registry()
        with pytest.raises(ConfigError):
            registry.task("work", timeout=0)(takes_any)
        assert len(registry) == 0


class TestRedeclaration:
    def test_the_same_function_may_be_declared_again_as_by_a_second_import(self) -> None:
        source = "def handler(arg): return {}"
        registry = Registry()
        results = []
        for answer in (1, 2):
            namespace: dict[str, Any] = {"__name__": "users_module"}
            exec(source.format(answer), namespace)
            registry.task("work")(namespace["handler"])
            handler = registry.get("work")
            assert handler is not None
            results.append(handler.function(None))
        assert results == [1, 2], "the later import counts"

    def test_another_function_under_the_same_name_is_refused(self) -> None:
        registry = Registry()
        registry.task("work")(takes_any)
        with pytest.raises(ConfigError, match=r"declared already by .*takes_any"):
            registry.task("work")(takes_page)
        with pytest.raises(ConfigError, match=r"declared already by .*takes_any"):
            registry.fold("work")(takes_pages)
        handler = registry.get("work")
        assert handler is not None
        assert handler.function is takes_any

    def test_one_function_may_have_several_names(self) -> None:
        registry = Registry()
        registry.task("a")(takes_any)
        registry.task("b")(takes_any)
        assert registry.names() == ["a", "b"]


def test_annotations_are_those_of_the_handlers_own_module() -> None:
    assert sys.modules[__name__].Page is Page
    assert isinstance(_convert(takes_page, _FIELDS), Page)
