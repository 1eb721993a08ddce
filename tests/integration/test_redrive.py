"""Redriving dead letters: what was mended completes its fan-out, once, whoever redrives and whatever breaks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from fanfold_consumer import Registry, TaskContext
from fanfold_consumer.redrive import Action, Why, chunks, preview, redrive
from fanfold_consumer.redrive.chunks import CHUNK_BYTES_MAX
from fanfold_producer import Record
from fanfold_schemas import FanOut, derive_task_id, new_fan_out_id, pack_headers
from fanfold_sql import DeadLetterFilter, Store, StoreRejected
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator, finished, fold_task, make_tasks
from tests.support.parking import Parker
from tests.support.rig import Rig
from tests.support.wait import eventually


class Handlers:
    """A task that fails for 3, and a fold that fails, until they are mended; and what they were called with."""

    def __init__(self) -> None:
        self.task_mended = False
        self.fold_mended = True
        self.calls: Counter[int] = Counter()
        self.folded: list[tuple[list[int], tuple[int, ...]]] = []
        self.registry = Registry()

        @self.registry.task("square", retries=1, backoff=0.001)
        async def square(n: int) -> int:
            self.calls[n] += 1
            if n == 3 and not self.task_mended:
                raise ValueError(f"no {n}")
            return n * n

        @self.registry.fold("gather", retries=0)
        def gather(values: list[int], context: TaskContext) -> list[int]:
            self.folded.append((values, context.failed))
            if not self.fold_mended:
                raise ValueError("no fold")
            return values


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


@pytest.fixture
def parker(operator: Operator, topic: Topic) -> Parker:
    return Parker(operator, topic)


def folded_anew(rig: Rig, fan_out_id: str, run: int) -> Callable[[], bool]:
    """Whether a fan-out has the fold of a run."""

    def look() -> bool:
        state = rig.fan_out(fan_out_id)
        return state is not None and (state.state, state.run) == ("done", run)

    return look


def test_a_redriven_task_completes_its_fan_out_which_folds_again_with_all_results(
    rig: Rig, topic: Topic, handlers: Handlers, operator: Operator
) -> None:
    rig.start_here(topic, registry=handlers.registry)
    handle = rig.publish(topic, [("square", n) for n in range(5)], fold="gather")
    eventually(folded_anew(rig, handle.fan_out_id, 1), what="the first fold")
    assert handlers.folded == [([0, 1, 4, 16], (3,))]
    (letter,) = rig.await_dead_letters(1)

    handlers.task_mended = True
    ran = operator.run("dead-letters", "redrive", letter.dead_letter_id, "--execute")

    assert ran.status == 0, ran.err
    eventually(folded_anew(rig, handle.fan_out_id, 2), what="the second fold")
    assert handlers.folded == [([0, 1, 4, 16], (3,)), ([0, 1, 4, 9, 16], ())]
    assert handle.result(20) == [0, 1, 4, 9, 16]
    # Once each, and 3 twice in vain and once more.
    assert handlers.calls == {0: 1, 1: 1, 2: 1, 3: 3, 4: 1}
    assert len(rig.dead_letters()) == 1
    rig.assert_sound()


def test_a_task_that_dies_again_is_a_new_dead_letter_which_can_be_redriven(
    rig: Rig, topic: Topic, handlers: Handlers, operator: Operator
) -> None:
    rig.start_here(topic, registry=handlers.registry)
    handle = rig.publish(topic, [("square", n) for n in range(4)], fold="gather")
    (first,) = rig.await_dead_letters(1)
    operator.run("dead-letters", "redrive", first.dead_letter_id, "--execute")
    eventually(folded_anew(rig, handle.fan_out_id, 2), what="the second fold")
    (_, second) = rig.await_dead_letters(2)
    assert (second.code, second.task_id, second.resolution) == ("E_HANDLER", first.task_id, None)
    assert second.offset != first.offset or second.partition != first.partition

    handlers.task_mended = True
    operator.run("dead-letters", "redrive", "--fan-out", handle.fan_out_id, "--execute")

    eventually(folded_anew(rig, handle.fan_out_id, 3), what="the third fold")
    assert handle.result(20) == [0, 1, 4, 9]
    assert [letter.resolution for letter in rig.dead_letters()] == ["redriven", "redriven"]
    rig.assert_sound()


def test_a_fold_that_failed_runs_again_over_the_same_results(
    rig: Rig, topic: Topic, handlers: Handlers, operator: Operator
) -> None:
    handlers.fold_mended = False
    rig.start_here(topic, registry=handlers.registry)
    handle = rig.publish(topic, [("square", 1), ("square", 2)], fold="gather")
    (letter,) = rig.await_dead_letters(1)
    assert rig.store(lambda store: preview(store, [letter.dead_letter_id]))[0].outlook.action is Action.REFOLD

    handlers.fold_mended = True
    ran = operator.run("dead-letters", "redrive", letter.dead_letter_id, "--execute")

    assert ran.status == 0, ran.err
    eventually(folded_anew(rig, handle.fan_out_id, 2), what="the second fold")
    assert handle.result(20) == [1, 4]
    assert handlers.folded == [([1, 4], ()), ([1, 4], ())]
    assert handlers.calls == {1: 1, 2: 1}
    rig.assert_sound()


def test_an_undecodable_record_arrives_again_byte_for_byte(
    rig: Rig, topic: Topic, handlers: Handlers, operator: Operator
) -> None:
    headers: list[tuple[str, bytes | None]] = [("a", b"\x00\xff"), ("a", None), ("traceparent", b"")]
    poison = Record(topic.name, b"\xfekey", b"\x00no msgpack\xff", headers)
    rig.write([poison], partition=1)
    rig.start_here(topic, registry=handlers.registry)
    (letter,) = rig.await_dead_letters(1)

    assert operator.run("dead-letters", "redrive", letter.dead_letter_id, "--execute").status == 0

    # It does not decode this time either.
    _, again = rig.await_dead_letters(2)
    assert (again.key, again.value, again.headers) == (poison.key, poison.value, pack_headers(headers))
    for record in topic.records(2):
        assert (record.key(), record.value(), record.headers()) == (poison.key, poison.value, headers)


def test_a_result_that_postgres_refuses_counts_as_failed_and_can_be_redriven(
    rig: Rig, topic: Topic, handlers: Handlers, operator: Operator
) -> None:
    handlers.task_mended = True
    with rig.database.connect() as connection:
        connection.execute("alter table fanfold.result add constraint no_nine check (payload <> '\\x09')")
    rig.start_here(topic, registry=handlers.registry)
    handle = rig.publish(topic, [("square", n) for n in range(5)], fold="gather")
    (letter,) = rig.await_dead_letters(1)
    assert (letter.code, letter.task_id) == ("E_COMMIT", derive_task_id(handle.fan_out_id, 3))
    eventually(folded_anew(rig, handle.fan_out_id, 1), what="the first fold")
    assert handlers.folded == [([0, 1, 4, 16], (3,))]

    with rig.database.connect() as connection:
        connection.execute("alter table fanfold.result drop constraint no_nine")
    assert operator.run("dead-letters", "redrive", letter.dead_letter_id, "--execute").status == 0

    eventually(folded_anew(rig, handle.fan_out_id, 2), what="the second fold")
    assert handle.result(20) == [0, 1, 4, 9, 16]
    rig.assert_sound()


def test_a_task_of_which_postgres_takes_nothing_is_parked_and_counts_nowhere(
    rig: Rig, topic: Topic, handlers: Handlers, operator: Operator
) -> None:
    with rig.database.connect() as connection:
        connection.execute("alter table fanfold.fan_out add constraint no_seven check (size <> 7)")
    rig.start_here(topic, registry=handlers.registry)
    handle = rig.publish(topic, [("square", n) for n in range(10, 17)], fold="gather")
    letters = rig.await_dead_letters(7)
    assert {letter.code for letter in letters} == {"E_COMMIT"}
    assert rig.fan_out(handle.fan_out_id) is None

    with rig.database.connect() as connection:
        connection.execute("alter table fanfold.fan_out drop constraint no_seven")
    assert operator.run("dead-letters", "redrive", "--code", "E_COMMIT", "--execute").status == 0

    assert handle.result(20) == [n * n for n in range(10, 17)]
    rig.assert_sound()


# Without a fleet.


async def redriven_by_two(store: Store, ids: list[int]) -> list[int]:
    """Which letters two who redrive them at once did something with."""
    runs = await asyncio.gather(redrive(store, ids), redrive(store, ids[::-1]))
    return sorted(d.letter.dead_letter_id for run in runs for d in run if d.outlook.action is not None)


def test_two_who_redrive_the_same_tasks_at_once_publish_each_once(operator: Operator, parker: Parker) -> None:
    ids = [parker.fail(task) for task in (*make_tasks(4), *make_tasks(4, thread_id="t2"))]
    assert operator.store(lambda store: redriven_by_two(store, ids)) == ids
    assert operator.rows("select count(*) from fanfold.outbox where value is not null") == [(8,)]
    assert operator.rows("select remaining, failed, run from fanfold.fan_out") == [(4, 0, 2), (4, 0, 2)]


def test_two_who_redrive_the_same_bytes_at_once_publish_each_once(operator: Operator, parker: Parker) -> None:
    ids = [parker.park(b"\xc1") for _ in range(4)]
    assert operator.store(lambda store: redriven_by_two(store, ids)) == ids
    assert operator.rows("select count(*) from fanfold.outbox") == [(4,)]


def test_a_redrive_that_is_cut_off_before_its_commit_has_changed_nothing(operator: Operator, parker: Parker) -> None:
    dead = parker.fail(make_tasks(3)[0])
    with operator.database.connect() as connection:
        connection.execute("alter table fanfold.dead_letter add constraint cut check (resolution is null)")

    with pytest.raises(StoreRejected, match="cut"):
        operator.store(lambda store: redrive(store, [dead]))

    assert operator.rows("select count(*) from fanfold.outbox") == [(0,)]
    assert operator.rows("select remaining, failed, run from fanfold.fan_out") == [(2, 1, 1)]


def test_a_redrive_whose_backend_is_killed_is_repeated_and_publishes_once(operator: Operator, parker: Parker) -> None:
    dead = parker.fail(make_tasks(3)[0])
    with operator.database.connect() as connection:
        connection.execute("create sequence public.cuts")
        connection.execute(
            "create function public.cut() returns trigger language plpgsql security definer as $$ begin"
            " if nextval('public.cuts') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;"
            " return new; end $$"
        )
        connection.execute(
            "create trigger cut before update on fanfold.dead_letter for each row execute function public.cut()"
        )

    (again,) = operator.store(lambda store: redrive(store, [dead]))

    assert (again.outlook.action, again.run) == (Action.RERUN, 2)
    assert operator.rows("select last_value from public.cuts") == [(2,)]
    assert operator.rows("select count(*) from fanfold.outbox") == [(1,)]
    assert operator.rows("select remaining, failed, run from fanfold.fan_out") == [(3, 0, 2)]


def test_a_fold_whose_tasks_are_redriven_with_it_is_left_to_follow_by_itself(
    operator: Operator, parker: Parker, topic: Topic
) -> None:
    first, second = make_tasks(2)
    operator.commit([finished(first, topic)])
    task_letter = parker.fail(second)
    fold_letter = parker.fail(fold_task(first))
    decisions = operator.store(lambda store: redrive(store, [task_letter, fold_letter]))
    assert [(d.outlook.action, d.outlook.why) for d in decisions] == [(Action.RERUN, None), (None, "running")]
    assert operator.rows("select count(*) from fanfold.outbox where fan_out_id is not null") == [(1,)]


def test_what_dies_again_meanwhile_is_not_redriven_in_the_same_go(operator: Operator, parker: Parker) -> None:
    parker.park(b"\xc1")
    parker.park(b"\xc1")

    async def walk(store: Store) -> list[int]:
        seen: list[int] = []
        async for letters in chunks(store, DeadLetterFilter(unresolved=True)):
            seen += [letter.dead_letter_id for letter in letters]
            await asyncio.to_thread(parker.park, b"\xc1")
        return seen

    assert operator.store(walk) == [1, 2]


def test_letters_are_gone_through_in_pieces_that_fit_into_memory(operator: Operator, parker: Parker) -> None:
    for size in (CHUNK_BYTES_MAX // 2, CHUNK_BYTES_MAX // 2, 1, CHUNK_BYTES_MAX + 1, 1):
        parker.park(b"\xc1" * size)

    async def walk(store: Store, limit: int | None) -> list[list[int]]:
        return [[x.dead_letter_id for x in chunk] async for chunk in chunks(store, DeadLetterFilter(), limit=limit)]

    assert operator.store(lambda store: walk(store, None)) == [[1, 2], [3], [4], [5]]
    assert operator.store(lambda store: walk(store, 3)) == [[1, 2], [3]]


def test_a_fan_out_that_ended_by_too_many_failures_goes_on_and_what_else_it_lacks_is_said(
    operator: Operator, parker: Parker, topic: Topic
) -> None:
    fan_out = FanOut(new_fan_out_id(), 3, "collect", max_failures=0)
    tasks = [msgspec.structs.replace(task, fan_out=fan_out, task_id=f"task-{task.index}") for task in make_tasks(3)]
    operator.commit([finished(tasks[0], topic)])
    dead = parker.fail(tasks[1])
    assert operator.rows("select cancelled_by from fanfold.fan_out") == [("failures",)]

    (decision,) = operator.store(lambda store: redrive(store, [dead]))

    assert (decision.outlook.action, decision.run) == (Action.RERUN, 2)
    assert "1 more of its tasks were refused" in decision.outlook.text
    reply = operator.commit([finished(msgspec.structs.replace(tasks[1], run=2), topic), finished(tasks[2], topic)])
    assert [(done.fan_out_id, done.run) for done in reply.completed] == [(fan_out.id, 2)]


def test_a_letter_of_a_fan_out_that_ended_at_its_deadline_is_left_alone_but_for_its_fold(
    operator: Operator, parker: Parker, topic: Topic
) -> None:
    fan_out = FanOut(new_fan_out_id(), 3, "collect", deadline_ms=1, on_deadline="fold")
    tasks = [msgspec.structs.replace(task, fan_out=fan_out, task_id=f"task-{task.index}") for task in make_tasks(3)]
    operator.commit([finished(tasks[0], topic)])
    task_letter = parker.fail(tasks[1])
    operator.rows("select * from fanfold.expire_fan_outs(10)")
    fold_letter = parker.fail(fold_task(tasks[0]))

    decisions = operator.store(lambda store: redrive(store, [task_letter, fold_letter]))

    assert [(d.outlook.action, d.outlook.why) for d in decisions] == [(None, Why.EXPIRED), (Action.REFOLD, None)]
    assert operator.rows("select run from fanfold.outbox where fan_out_id is not null order by 1") == [(1,), (2,)]
