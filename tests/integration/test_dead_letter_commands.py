"""`fanfold dead-letters` against a real broker and a real database, run as a worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fanfold_schemas import (
    Task,
    VectorClock,
    arg_hash,
    decode_task,
    encode_task,
    header_text,
    pack_headers,
    unpack_headers,
)
from fanfold_schemas.headers import RUN
from fanfold_sql import Finished
from tests.support.database import Database
from tests.support.kafka import Broker, Topic
from tests.support.operator import Operator, Ran, finished, make_tasks
from tests.support.parking import Parker

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u009b31m\u202e\nsecond line"


@pytest.fixture
def operator(
    broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(broker, database, monkeypatch, capsys)


@pytest.fixture
def parker(operator: Operator, topic: Topic) -> Parker:
    return Parker(operator, topic)


Run = Callable[..., Ran]


@pytest.fixture
def dead(operator: Operator) -> Run:
    """`dead("list", ...)`: `fanfold dead-letters list ...`."""
    return lambda *arguments: operator.run("dead-letters", *arguments)


def lines(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def queued(operator: Operator) -> list[tuple[Any, ...]]:
    """Records in the outbox, folds left out."""
    return operator.rows("select topic, key, value, headers from fanfold.outbox where value is not null order by 1, 2")


def resolutions(operator: Operator) -> list[str | None]:
    return [row[0] for row in operator.rows("select resolution from fanfold.dead_letter order by dead_letter_id")]


def test_a_list_shows_every_letter_on_a_line_and_counts_them_by_code(parker: Parker, dead: Run, topic: Topic) -> None:
    (task,) = make_tasks(1)
    parker.park(b"\xc1")
    parker.fail(task)
    parker.fail(make_tasks(1, thread_id="t2")[0])

    ran = dead("list")

    assert ran.status == 0
    head, first, second, _third, _, counts, *by_code = [line.split() for line in ran.out.splitlines()]
    assert head == ["ID", "AGE", "CODE", "GROUP", "RECORD", "THREAD", "TASK", "ERROR"]
    assert [first[0], *first[2:6]] == ["1", "E_FRAME", "g", f"{topic}-0@0", "-"]
    assert [second[0], *second[2:]] == ["2", "E_HANDLER", "g", f"{topic}-0@1", "t1", task.task_id, "ValueError:", "no"]
    assert (counts, by_code) == (["CODE", "COUNT"], [["E_HANDLER", "2"], ["E_FRAME", "1"]])


def test_a_list_is_paged_and_says_how_to_go_on(parker: Parker, dead: Run) -> None:
    for _ in range(3):
        parker.park(b"\xc1")
    page = dead("list", "--limit", 2, "--json").json
    assert [letter["dead_letter_id"] for letter in page["dead_letters"]] == [1, 2]
    assert (page["counts"], page["total"], page["next_after"]) == ({"E_FRAME": 3}, 3, 2)
    rest = dead("list", "--limit", 2, "--after", 2, "--json").json
    assert [letter["dead_letter_id"] for letter in rest["dead_letters"]] == [3]
    assert rest["next_after"] is None
    assert "--after 2" in dead("list", "--limit", 2).err


def test_the_filters_of_a_list(parker: Parker, dead: Run, topic: Topic) -> None:
    first, second = *make_tasks(1), *make_tasks(1, thread_id="t2")
    parker.park(b"\xc1")
    parker.fail(first)
    parker.fail(second, "E_ARG")

    def ids(*options: object) -> list[int]:
        return [letter["dead_letter_id"] for letter in dead("list", *options, "--json").json["dead_letters"]]

    assert ids("--topic", topic, "--group", "g") == [1, 2, 3]
    assert ids("--topic", "other") == ids("--group", "other") == []
    assert ids("--code", "E_FRAME", "--code", "E_ARG") == [1, 3]
    assert ids("--thread", "t2") == ids("--fan-out", second.fan_out.id) == ids("--task", second.task_id) == [3]
    assert ids("--since", "1h") == ids("--since", "PT1H") == ids("--until", "2999-01-01T00:00") == [1, 2, 3]
    assert ids("--since", "2999-01-01") == ids("--until", "1h") == []


def test_what_was_resolved_is_listed_with_all_only(parker: Parker, dead: Run) -> None:
    parker.park(b"\xc1")
    dead("drop", 1, "--execute")
    assert dead("list").out.strip() == "no dead letters"
    (letter,) = dead("list", "--all", "--json").json["dead_letters"]
    assert letter["resolution"] == "dropped"
    assert "RESOLUTION" in dead("list", "--all").out


def test_a_letter_is_shown_with_everything_that_is_known_of_it(parker: Parker, dead: Run, topic: Topic) -> None:
    tasks = make_tasks(5)
    parker.fail(tasks[3], error="ValueError: three")

    ran = dead("show", 1)

    assert ran.status == 0
    shown = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if not line.startswith(("dead", "header")))
    assert shown["code"] == "E_HANDLER"
    assert shown["error"] == "ValueError: three"
    assert shown["record"].startswith(f"{topic}-0@0 ")
    assert shown["fan-out"] == f"{tasks[3].fan_out.id} (open, run 1: 0 done, 1 failed, 4 outstanding of 5)"
    assert (shown["node"], shown["index"], shown["arg"]) == ("work", "3", '{"n": 3}')
    assert shown["redrive"].startswith("would redrive it: its task runs again")
    assert "ce_id: " + tasks[3].task_id in ran.out


def test_a_record_that_does_not_decode_is_shown_in_hex(parker: Parker, dead: Run) -> None:
    parker.park(b"\xc1\x00" * 500, key=None)
    shown = dict(line.split(maxsplit=1) for line in dead("show", 1).out.splitlines())
    assert shown["value"].startswith("c100c100 c100c100 ")
    assert shown["value"].endswith(" ... and 744 bytes more")


def test_the_json_of_a_letter_has_its_bytes_and_a_file_gets_the_value(
    parker: Parker, dead: Run, tmp_path: Path
) -> None:
    file = tmp_path / "value.bin"
    parker.park(b"\xc1\xff\x00", key=b"\xfe", headers=[("a", b"\x80"), ("a", None)])

    shown = dead("show", 1, "--value-to", file, "--json").json

    assert file.read_bytes() == base64.b64decode(shown["value"]) == b"\xc1\xff\x00"
    assert (base64.b64decode(shown["key"]), shown["headers"]) == (b"\xfe", [["a", "gA=="], ["a", None]])
    assert (shown["task"], shown["redrive"]["action"]) == (None, "resend")
    again = dead("show", 1, "--value-to", file)
    assert (again.status, "exists" in again.err) == (1, True)


def test_a_letter_that_is_not_there_is_one_paragraph_and_status_1(dead: Run) -> None:
    ran = dead("show", 7)
    assert (ran.status, "there is no dead letter 7" in ran.err) == (1, True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_in_a_record_reaches_the_terminal_as_a_control_character(
    parker: Parker, dead: Run, options: list[str]
) -> None:
    (task,) = make_tasks(1)
    task = msgspec.structs.replace(task, arg={HOSTILE: HOSTILE}, base={HOSTILE: 1})
    parker.park(
        encode_task(task),
        "E_HANDLER",
        HOSTILE,
        task=task,
        key=HOSTILE.encode(),
        headers=[(HOSTILE, HOSTILE.encode())],
        results=[Finished(task, None, arg_hash(task))],
    )
    parker.park(HOSTILE.encode(), error=HOSTILE, key=HOSTILE.encode(), headers=[(HOSTILE, HOSTILE.encode())])

    outputs = [dead("list", *options), dead("show", 1, *options), dead("show", 2, *options)]
    outputs += [dead("redrive", 1, 2, "--execute", *options), dead("list", "--all", *options)]

    for ran in outputs:
        assert ran.status == 0
        unsafe = {c for c in ran.out + ran.err if not c.isprintable()} - {"\n"}
        assert unsafe == set()
    assert "owned" in outputs[0].out
    # A line break of theirs begins no line of ours.
    assert not any(line.startswith("second line") for ran in outputs for line in ran.out.splitlines())


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(parker: Parker, operator: Operator, dead: Run) -> None:
    parker.fail(make_tasks(1)[0])
    parker.park(b"\xc1")

    ran = dead("redrive", "--group", "g")

    assert ran.status == 0
    first, second = ran.out.splitlines()
    assert first.startswith("would redrive 1 (E_HANDLER, ")
    assert "its task runs again" in first
    assert "byte for byte" in second
    assert "--execute" in ran.err
    assert queued(operator) == []
    assert resolutions(operator) == [None, None]


def test_a_failed_task_is_queued_under_a_new_run_with_its_fan_out_reopened(
    parker: Parker, operator: Operator, dead: Run, topic: Topic
) -> None:
    tasks = make_tasks(3)
    operator.commit([finished(task, topic) for task in tasks[:2]])
    parker.fail(msgspec.structs.replace(tasks[2], attempt=7))

    ran = dead("redrive", 1, "--execute", "--json")

    assert ran.status == 0
    (line,) = lines(ran)
    assert (line["action"], line["run"], line["why"], line["executed"]) == ("rerun", 2, None, True)
    ((to, _, value, headers),) = queued(operator)
    again = decode_task(value)
    assert (to, again.task_id, again.run, again.attempt) == (topic.name, tasks[2].task_id, 2, 1)
    assert header_text(unpack_headers(headers), RUN) == "2"
    assert operator.rows("select remaining, failed, completed_at from fanfold.fan_out") == [(1, 0, None)]
    assert resolutions(operator) == ["redriven"]


def test_several_tasks_of_one_fan_out_get_the_same_run(parker: Parker, operator: Operator, dead: Run) -> None:
    for task in make_tasks(3):
        parker.fail(task)
    assert {line["run"] for line in lines(dead("redrive", "--thread", "t1", "--execute", "--json"))} == {2}
    assert operator.rows("select remaining, failed, run from fanfold.fan_out") == [(3, 0, 2)]


@pytest.mark.parametrize("code", ["E_FRAME", "E_CONFLICT"])
def test_what_counts_nowhere_is_queued_byte_for_byte(
    parker: Parker, operator: Operator, dead: Run, topic: Topic, code: str
) -> None:
    headers = [("a", b"\xff\x00"), ("a", b""), ("b", None)]
    task = None if code == "E_FRAME" else make_tasks(1)[0]
    value = b"\xc1\xff" if task is None else encode_task(task)
    parker.park(value, code, task=task, key=b"\x00k", headers=headers)

    (line,) = lines(dead("redrive", 1, "--execute", "--json"))

    assert (line["action"], line["run"]) == ("resend", None)
    assert queued(operator) == [(topic.name, b"\x00k", value, pack_headers(headers))]


def test_a_redriven_letter_is_left_alone_from_then_on(parker: Parker, operator: Operator, dead: Run) -> None:
    parker.fail(make_tasks(1)[0])
    dead("redrive", 1, "--execute")

    ran = dead("redrive", 1, "--execute", "--json")

    assert ran.status == 0
    assert [(line["action"], line["why"]) for line in lines(ran)] == [(None, "redriven")]
    assert len(queued(operator)) == 1


def test_a_limit_takes_the_oldest(parker: Parker, operator: Operator, dead: Run) -> None:
    for task in make_tasks(3):
        parker.fail(task)
    dead("redrive", "--code", "E_HANDLER", "--limit", 2, "--execute")
    assert resolutions(operator) == ["redriven", "redriven", None]


def _cancelled(operator: Operator, task: Task) -> None:
    operator.store(lambda store: store.cancel_fan_out(task.fan_out.id))


def _moved_on(operator: Operator, task: Task) -> None:
    operator.store(lambda store: store.advance_thread(task.thread_id, VectorClock({"main": 2})))


def _pruned(operator: Operator, _task: Task) -> None:
    with operator.database.connect() as connection:
        connection.execute("delete from fanfold.result")
        connection.execute("delete from fanfold.fan_out")


def _done(operator: Operator, task: Task) -> None:
    operator.commit([finished(msgspec.structs.replace(task, run=2))])


def _reopened(operator: Operator, task: Task) -> None:
    operator.rows(f"select fanfold.reopen_fan_out('{task.fan_out.id}', '{{{task.task_id}}}')")


def _dropped(operator: Operator, _task: Task) -> None:
    operator.run("dead-letters", "drop", 1, "--execute")


@pytest.mark.parametrize(
    ("then", "why", "status"),
    [
        (_cancelled, "cancelled", 1),
        (_moved_on, "stale", 1),
        (_pruned, "pruned", 1),
        (_dropped, "dropped", 1),
        (_done, "done", 0),
        (_reopened, "running", 0),
    ],
)
def test_a_letter_is_left_alone_with_a_reason(
    parker: Parker,
    operator: Operator,
    dead: Run,
    then: Callable[[Operator, Task], None],
    why: str,
    status: int,
) -> None:
    task = make_tasks(2, base={"main": 1})[0]
    parker.fail(task)
    then(operator, task)

    ran = dead("redrive", 1, "--execute", "--json")

    (line,) = lines(ran)
    assert (line["action"], line["why"], ran.status) == (None, why, status)
    assert queued(operator) == []


def test_only_the_newest_letter_of_a_task_is_redriven(parker: Parker, operator: Operator, dead: Run) -> None:
    (task,) = make_tasks(1)
    parker.fail(task)
    _reopened(operator, task)
    parker.fail(msgspec.structs.replace(task, run=2))

    ran = dead("redrive", "--task", task.task_id, "--execute", "--json")

    assert ran.status == 0
    assert [(line["why"], line["run"]) for line in lines(ran)] == [("superseded", None), (None, 3)]
    assert "dead letter 2" in lines(ran)[0]["text"]


def test_a_letter_of_a_topic_that_is_gone_is_left_alone_and_says_so(
    parker: Parker, operator: Operator, dead: Run
) -> None:
    parker.park(b"\xc1")
    operator.rows("update fanfold.dead_letter set topic = 'gone.tasks.v1' returning 1")
    ran = dead("redrive", 1, "--execute")
    assert ran.status == 1
    assert "there is no topic gone.tasks.v1 any more: create it" in ran.out
    assert queued(operator) == []


def test_a_record_without_a_value_and_one_that_no_broker_takes_are_left_alone(parker: Parker, dead: Run) -> None:
    parker.park(None)
    parker.park(b"\xc1" * 1_048_588, "E_LIMIT")
    ran = dead("redrive", "--group", "g", "--execute", "--json")
    assert (ran.status, [line["why"] for line in lines(ran)]) == (1, ["no_value", "too_large"])


def test_an_id_that_is_not_there_fails_and_the_others_are_redriven(
    parker: Parker, operator: Operator, dead: Run
) -> None:
    parker.park(b"\xc1")
    ran = dead("redrive", 1, 99, "--execute", "--json")
    assert (ran.status, [line["why"] for line in lines(ran)]) == (1, [None, "unknown"])
    assert resolutions(operator) == ["redriven"]


def test_dropping_marks_letters_and_leaves_their_fan_outs_alone(parker: Parker, operator: Operator, dead: Run) -> None:
    parker.fail(make_tasks(2)[0])
    before = operator.rows("select remaining, failed, run from fanfold.fan_out")

    dry = dead("drop", "--code", "E_HANDLER")
    assert (dry.status, resolutions(operator)) == (0, [None])
    assert dry.out.startswith("would drop 1 (E_HANDLER, ")
    ran = dead("drop", "--code", "E_HANDLER", "--execute")

    assert (ran.status, ran.out.startswith("dropped 1 (E_HANDLER, ")) == (0, True)
    assert resolutions(operator) == ["dropped"]
    assert operator.rows("select remaining, failed, run from fanfold.fan_out") == before
    assert operator.rows("select octet_length(value) > 0 from fanfold.dead_letter") == [(True,)]


@pytest.mark.parametrize("command", ["redrive", "drop"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "say which"),
        ([1, "--code", "E_ARG"], "not both"),
        ([1, "--limit", 5], "--limit"),
        (["--since", "yesterday"], "no time"),
        (["--since", "P999999W"], "before all time"),
        ([0], "ID"),
    ],
)
def test_a_wrong_command_line_is_refused_with_status_2(
    dead: Run, command: str, arguments: list[object], complaint: str
) -> None:
    ran = dead(command, *arguments, "--execute")
    assert (ran.status, complaint in ran.err) == (2, True), ran.err
