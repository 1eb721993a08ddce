"""What handlers get, what they may return, and what becomes of each way to fail. One member serves the whole module."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from fanfold_consumer import Registry, Send, Sends, TaskContext
from fanfold_producer import FanOutFailed, FanOutHandle, TaskFailure
from fanfold_schemas import derive_child_fan_out_id, derive_fold_task_id
from fanfold_sql import DeadLetterFilter
from tests.support.database import Database, Server
from tests.support.kafka import Broker, Topic, create_topic, delete_topic, unique_name
from tests.support.members import LocalMember
from tests.support.rig import Rig, rig_for
from tests.support.wait import eventually

registry = Registry()
hung = threading.Event()
attempts: Counter[str] = Counter()
contexts: dict[str, TaskContext] = {}


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 2


class Box(msgspec.Struct):
    corner: Point
    label: str


class Order(BaseModel):
    sku: str
    count: int


@registry.task("echo")
async def echo(value: Any) -> Any:
    return value


@registry.task("echo-sync")
def echo_sync(value: Any) -> Any:
    return [threading.current_thread().name.startswith("fanfold-handler"), value]


@registry.task("of-dataclass")
async def of_dataclass(point: Point) -> int:
    assert isinstance(point, Point)
    return point.x * 10 + point.y


@registry.task("of-msgspec")
def of_msgspec(box: Box) -> Box:
    assert isinstance(box, Box)
    return Box(Point(box.corner.y, box.corner.x), box.label.upper())


@registry.task("of-pydantic")
async def of_pydantic(order: Order) -> Order:
    assert isinstance(order, Order)
    return Order(sku=order.sku, count=order.count + 1)


@registry.task("of-int", retries=5)
async def of_int(n: int, context: TaskContext) -> int:
    attempts[context.task_id] += 1
    return n


@registry.task("context")
async def context_of(_: Any, context: TaskContext) -> int:
    contexts[context.task_id] = context
    return context.index


@registry.task("unstorable")
async def unstorable(what: str) -> Any:
    return {"set": {1, 2}, "object": object(), "nan": float("nan"), "big": 2**70, "nul": "\0", "half": "\ud800"}[what]


@registry.task("third-time", retries=3, backoff=0.01)
async def third_time(_: Any, context: TaskContext) -> list[int]:
    attempts[context.task_id] += 1
    if context.attempt < 3:
        raise ConnectionError("not yet")
    return [context.attempt, attempts[context.task_id]]


@registry.task("never", retries=2, backoff=0.01)
def never(_: Any, context: TaskContext) -> None:
    attempts[context.task_id] += 1
    raise RuntimeError("no luck with \0 and \udcff")


@registry.task("picky", retries=5, backoff=0.01, retry_on=ConnectionError)
async def picky(_: Any, context: TaskContext) -> None:
    attempts[context.task_id] += 1
    raise KeyError("a mistake, not the weather")


@registry.task("sleepy", timeout=0.2, retries=1, backoff=0.01)
async def sleepy(_: Any, context: TaskContext) -> None:
    attempts[context.task_id] += 1
    await asyncio.sleep(60)


@registry.task("hung", timeout=0.2, retries=0)
def hang(_: Any) -> None:
    hung.wait(30)


@registry.task("brief", timeout=2.0, retries=0)
def brief(s: float) -> float:
    time.sleep(s)
    return s


@registry.task("own-timeout", retries=0)
async def own_timeout(_: Any) -> None:
    raise TimeoutError("the other service was slow")


@registry.task("cancels-itself", retries=0)
async def cancels_itself(_: Any) -> None:
    waiting = asyncio.ensure_future(asyncio.sleep(60))
    waiting.cancel()
    await waiting


@registry.task("exits", retries=0)
async def exits(_: Any) -> None:
    sys.exit(3)


@registry.task("exits-sync", retries=0)
def exits_sync(_: Any) -> None:
    sys.exit(3)


@registry.task("tree")
async def tree(depth: int) -> Any:
    if depth == 0:
        return 1
    return Sends([Send("tree", depth - 1), ("tree", depth - 1)], fold="sum", value=depth)


@registry.task("bad-sends")
async def bad_sends(_: Any) -> Sends:
    return Sends([("not an id!", 1)])


@registry.fold("spread")
async def spread(values: list[int], context: TaskContext) -> dict[str, Any]:
    return {"span": max(values) - min(values), "failed": list(context.failed), "index": context.index}


@registry.fold("typed-fold")
def typed_fold(points: list[Point]) -> int:
    return sum(point.x for point in points)


@registry.fold("bad-fold", retries=0)
def bad_fold(values: list[int]) -> int:
    raise RuntimeError("cannot fold")


@pytest.fixture(scope="module")
def rig(
    broker: Broker,
    postgres_server: Server,
    migrated_template: str,
    worker_login: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    topic: Topic,
) -> Iterator[Rig]:
    del topic  # it goes after the members that read it
    user, password = worker_login
    with postgres_server.temporary_database(migrated_template) as name:
        worker_dsn = postgres_server.dsn_for(name, user=user, password=password)
        database = Database(name, postgres_server.dsn_for(name), worker_dsn)
        with rig_for(broker.config, database, tmp_path_factory.mktemp("rig"), atomic=broker.is_real_kafka) as rig:
            yield rig


@pytest.fixture(scope="module")
def topic(broker: Broker) -> Iterator[Topic]:
    name = unique_name("handlers")
    yield create_topic(broker, name, 2)
    delete_topic(broker, name)


@pytest.fixture(scope="module", autouse=True)
def member(rig: Rig, topic: Topic) -> Iterator[LocalMember]:
    member = rig.start_here(topic, registry=registry, sync_workers=2)
    yield member
    hung.set()
    assert member.alive
    rig.assert_sound()


def run(rig: Rig, topic: Topic, node: str, *args: Any, **options: Any) -> FanOutHandle:
    return rig.publish(topic, [(node, arg) for arg in args], **options)


def failure_of(handle: FanOutHandle) -> str:
    """The error of a fan-out of one task that failed."""
    (failure,) = handle.result(20, return_failures=True)
    assert isinstance(failure, TaskFailure)
    return failure.error


def codes_of(rig: Rig, handle: FanOutHandle) -> list[str]:
    """Codes of a fan-out's dead letters."""
    where = DeadLetterFilter(fan_out_id=handle.fan_out_id)
    letters = rig.store(lambda store: store.list_dead_letters(where))
    return [letter.code for letter in letters]


@pytest.mark.parametrize(
    "value", [None, True, -(2**63), 0.1, "text 🦉", b"\0bytes", [1, [2]], {"a": {"b": [None]}}], ids=repr
)
def test_a_value_comes_back_as_it_went(rig: Rig, topic: Topic, value: Any) -> None:
    assert run(rig, topic, "echo", value).result(20) == [value]


def test_a_sync_handler_runs_on_a_thread_of_its_own(rig: Rig, topic: Topic) -> None:
    assert run(rig, topic, "echo-sync", 7).result(20) == [[True, 7]]


def test_results_stand_in_index_order_whatever_order_they_came_in(rig: Rig, topic: Topic) -> None:
    handle = rig.publish(topic, [("brief", 0.2), ("echo", 2), ("brief", 0.0), ("echo", 4)])
    assert handle.result(20) == [0.2, 2, 0.0, 4]


def test_an_arg_becomes_a_dataclass(rig: Rig, topic: Topic) -> None:
    assert run(rig, topic, "of-dataclass", {"x": 4}, {"x": 1, "y": 3}).result(20) == [42, 13]


def test_an_arg_becomes_a_msgspec_struct_and_back(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "of-msgspec", {"corner": {"x": 1, "y": 5}, "label": "a"})
    assert handle.result(20) == [{"corner": {"x": 5, "y": 1}, "label": "A"}]


def test_an_arg_becomes_a_pydantic_model_and_back(rig: Rig, topic: Topic) -> None:
    assert run(rig, topic, "of-pydantic", {"sku": "s", "count": 1}).result(20) == [{"sku": "s", "count": 2}]


@pytest.mark.parametrize(
    ("node", "arg", "path"),
    [
        ("of-dataclass", {"x": "4"}, "$.x"),
        ("of-msgspec", {"corner": {"x": 1}}, "label"),
        ("of-pydantic", {"sku": "s", "count": "many"}, "count"),
        ("of-int", "4", "int"),
    ],
)
def test_an_arg_of_another_type_is_parked_and_counted_as_failed_without_a_call(
    rig: Rig, topic: Topic, node: str, arg: Any, path: str
) -> None:
    handle = run(rig, topic, node, arg)

    error = failure_of(handle)
    assert path in error
    assert codes_of(rig, handle) == ["E_ARG"]
    state = handle.progress()
    assert state is not None
    assert (state.failed, state.remaining) == (1, 0)
    assert not attempts[handle.task_ids[0]]


def test_the_context_says_what_the_task_is(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "context", "a", "b", thread_id="context-thread", base={"main": 3})
    assert handle.result(20) == [0, 1]

    context = contexts[handle.task_ids[1]]
    assert context.task_id == handle.task_ids[1]
    assert (context.thread_id, context.fan_out_id) == ("context-thread", handle.fan_out_id)
    assert (context.index, context.node, context.run, context.attempt) == (1, "context", 1, 1)
    assert dict(context.base) == {"main": 3}
    assert (context.failed, context.missing) == ((), ())


@pytest.mark.parametrize(
    ("fold", "args", "value"),
    [
        ("collect", [3, "x", None], [3, "x", None]),
        ("count", [3, "x", None], 3),
        ("sum", [3, 0.5, -1], 2.5),
        ("min", [3, 0.5, -1], -1),
        ("max", [3, 0.5, -1], 3),
        ("union", [[1, 2], [2, {"a": 1}], [{"a": 1}, 3]], [1, 2, {"a": 1}, 3]),
        ("first:2", ["a", "b", "c"], ["a", "b"]),
    ],
)
def test_built_in_folds_need_no_code(rig: Rig, topic: Topic, fold: str, args: list[Any], value: Any) -> None:
    assert run(rig, topic, "echo", *args, fold=fold).result(20) == value


def test_a_fold_handler_gets_the_successes_and_the_indexes_that_failed(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "of-int", 10, "no", 30, "neither", 5, fold="spread")
    assert handle.result(20) == {"span": 25, "failed": [1, 3], "index": -1}


def test_a_fold_of_typed_items_converts_each(rig: Rig, topic: Topic) -> None:
    assert run(rig, topic, "echo", {"x": 1}, {"x": 5}, fold="typed-fold").result(20) == 6


def test_a_fold_that_fails_is_parked_and_the_fan_out_says_so(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "echo", 1, fold="bad-fold")
    eventually(lambda: codes_of(rig, handle) == ["E_HANDLER"])
    state = rig.fan_out(handle.fan_out_id)
    assert state is not None
    assert state.state == "failed"


def test_a_built_in_fold_of_wrong_values_is_parked(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "echo", 1, "two", fold="sum")
    where = DeadLetterFilter(fan_out_id=handle.fan_out_id)
    letters = eventually(lambda: rig.store(lambda store: store.list_dead_letters(where)))
    assert "wants numbers; result 1 is a str" in letters[0].error


def test_sends_of_sends_are_published_and_folded_at_every_level(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "tree", 3, thread_id="tree-thread")
    assert handle.result(20) == [3]

    # Each task that is no leaf opened a fan-out of its own: one of depth 2, two of depth 1, four of leaves. The leaves
    # are 1, the others their own depth.
    def folded() -> list[Any]:
        found = rig.store(lambda store: store.list_fan_outs(thread_id="tree-thread", state="done"))
        return [rig.fold_value(fan_out.fan_out_id) for fan_out in found if fan_out.fold is not None]

    eventually(lambda: sorted(folded()) == [2, 2, 2, 2, 2, 2, 4])
    child = rig.fan_out(derive_child_fan_out_id(handle.task_ids[0], 1))
    assert child is not None
    assert (child.size, child.fold, child.state) == (2, "sum", "done")
    assert rig.values(child.fan_out_id) == {0: 2, 1: 2}


def test_sends_that_break_the_contract_fail_their_task_and_publish_nothing(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "bad-sends", 1)
    assert "$.sends[0].node" in failure_of(handle)
    assert codes_of(rig, handle) == ["E_RESULT"]
    assert rig.fan_out(derive_child_fan_out_id(handle.task_ids[0], 1)) is None


def test_an_unknown_node_is_parked_and_names_the_known_ones(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "nobody", 1)
    error = failure_of(handle)
    assert "'nobody'" in error
    assert "of-dataclass" in error
    assert codes_of(rig, handle) == ["E_NODE"]


def test_an_unknown_fold_is_parked(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "echo", 1, fold="nobody")
    eventually(lambda: codes_of(rig, handle) == ["E_NODE"])


@pytest.mark.parametrize("node", ["spread", "sum"])
def test_a_fold_is_no_handler_of_tasks(rig: Rig, topic: Topic, node: str) -> None:
    handle = run(rig, topic, node, 1)
    failure_of(handle)
    assert codes_of(rig, handle) == ["E_NODE"]


@pytest.mark.parametrize("what", ["set", "object", "nan", "big", "nul", "half"])
def test_a_result_that_cannot_be_stored_fails_its_task_and_no_other(rig: Rig, topic: Topic, what: str) -> None:
    handle = rig.publish(topic, [("unstorable", what), ("echo", 2)])
    failure, value = handle.result(20, return_failures=True)
    assert isinstance(failure, TaskFailure)
    assert value == 2
    assert codes_of(rig, handle) == ["E_RESULT"]


def test_a_failing_handler_is_tried_again_and_sees_which_attempt_it_is(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "third-time", 1)
    assert handle.result(20) == [[3, 3]]
    assert codes_of(rig, handle) == []


def test_a_handler_that_fails_every_time_is_parked_with_its_last_error(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "never", 1)
    error = failure_of(handle)
    assert "RuntimeError: no luck" in error
    assert "attempt 3" in error
    assert codes_of(rig, handle) == ["E_HANDLER"]
    assert attempts[handle.task_ids[0]] == 3


def test_an_error_that_is_not_worth_a_retry_gets_none(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "picky", 1)
    assert "KeyError" in failure_of(handle)
    assert attempts[handle.task_ids[0]] == 1


def test_a_failed_task_without_a_fold_is_an_error_for_who_waits(rig: Rig, topic: Topic) -> None:
    with pytest.raises(FanOutFailed) as caught:
        run(rig, topic, "of-int", 1, "two").result(20)
    assert [failure.index for failure in caught.value.failures] == [1]


def test_an_async_handler_that_takes_too_long_times_out_at_each_attempt(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "sleepy", 1)
    assert "within 0.2 s" in failure_of(handle)
    assert codes_of(rig, handle) == ["E_TIMEOUT"]
    assert attempts[handle.task_ids[0]] == 2


def test_sync_handlers_that_hang_time_out_and_keep_no_others_from_running(rig: Rig, topic: Topic) -> None:
    # As many as there are workers, and more behind them: each takes a worker with it, for good.
    handle = rig.publish(topic, [*(("hung", n) for n in range(5)), ("brief", 0.0), ("echo-sync", 1)])
    *failures, brief_value, echoed = handle.result(20, return_failures=True)
    assert [type(failure) for failure in failures] == [TaskFailure] * 5
    assert codes_of(rig, handle) == ["E_TIMEOUT"] * 5
    assert (brief_value, echoed) == (0.0, [True, 1])


def test_waiting_for_a_free_worker_is_no_part_of_a_handlers_timeout(rig: Rig, topic: Topic) -> None:
    # 10 x 0.5 s by 2 workers: the last one waits longer than its handler's 2 s.
    assert run(rig, topic, "brief", *[0.5] * 10).result(20) == [0.5] * 10


def test_a_timeout_of_the_handlers_own_is_an_error_like_any_other(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "own-timeout", 1)
    assert "the other service was slow" in failure_of(handle)
    assert codes_of(rig, handle) == ["E_HANDLER"]


@pytest.mark.parametrize("node", ["cancels-itself", "exits", "exits-sync"])
def test_a_handler_that_breaks_out_of_everything_fails_only_its_task(rig: Rig, topic: Topic, node: str) -> None:
    handle = rig.publish(topic, [(node, 1), ("echo", 2)])
    failure, value = handle.result(20, return_failures=True)
    assert isinstance(failure, TaskFailure)
    assert value == 2
    assert codes_of(rig, handle) == ["E_HANDLER"]


def test_a_fold_has_one_result_under_its_own_id(rig: Rig, topic: Topic) -> None:
    handle = run(rig, topic, "echo", 1, 2, fold="sum")
    assert handle.result(20) == 3
    own = rig.store(lambda store: store.read_results(handle.fan_out_id, after=-2))
    assert [result.task_id for result in own] == [derive_fold_task_id(handle.fan_out_id), *handle.task_ids]
