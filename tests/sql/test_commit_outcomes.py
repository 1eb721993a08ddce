"""commit_results, one outcome at a time: applied and duplicate, the countdown, runs, batches."""

from __future__ import annotations

from tests.sql.support import APPLIED, DUPLICATE, FanOutSpec, Tables, Worker

F = FanOutSpec()


def test_a_first_result_is_applied_opens_its_fan_out_and_is_counted(worker: Worker, tables: Tables) -> None:
    reply = worker.commit([F.result(0)])
    assert reply.outcomes == [APPLIED]
    assert reply.completed == []
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 1, "complete": False}


def test_an_empty_commit_answers_with_nothing(worker: Worker) -> None:
    reply = worker.commit()
    assert (reply.outcomes, reply.completed, reply.outbox_ids, reply.commit_seqs) == ([], [], [], [])


def test_the_same_batch_again_is_all_duplicates_and_changes_nothing(worker: Worker, tables: Tables) -> None:
    results = F.results()
    assert worker.outcomes(*results) == [APPLIED] * 3
    before = tables.fingerprint()
    reply = worker.commit(results)
    assert reply.outcomes == [DUPLICATE] * 3
    assert reply.completed == []
    assert tables.fingerprint() == before


def test_the_same_run_never_replaces_a_payload(worker: Worker, tables: Tables) -> None:
    first = F.result(0, payload=b"first")
    worker.commit([first])
    assert worker.outcomes(F.result(0, payload=b"second")) == [DUPLICATE]
    assert tables.status(first.task.task_id) == (1, "done", b"first")


def test_a_higher_run_replaces_and_is_not_counted_again(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0, payload=b"old")])
    assert worker.outcomes(F.result(0, run=3, payload=b"new")) == [APPLIED]
    assert tables.status(F.task(0).task_id) == (3, "done", b"new")
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 1, "complete": False}


def test_a_lower_run_than_the_stored_one_is_a_duplicate(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0, run=3, payload=b"new")])
    assert worker.outcomes(F.result(0, run=2, payload=b"old")) == [DUPLICATE]
    assert tables.status(F.task(0).task_id) == (3, "done", b"new")


def test_a_result_twice_in_one_batch_is_applied_once(worker: Worker, tables: Tables) -> None:
    assert worker.outcomes(F.result(0), F.result(1), F.result(0)) == [APPLIED, APPLIED, DUPLICATE]
    assert tables.fan_out() == {"remaining": 1, "failed": 0, "run": 1, "complete": False}


def test_two_runs_of_a_task_in_one_batch_leave_the_higher_one(worker: Worker, tables: Tables) -> None:
    low, high = F.result(0, run=1, payload=b"low"), F.result(0, run=2, payload=b"high")
    assert worker.outcomes(low, high) == [APPLIED, APPLIED]
    assert tables.status(low.task.task_id) == (2, "done", b"high")
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 1, "complete": False}


def test_two_runs_in_one_batch_the_higher_first_make_the_lower_a_duplicate(worker: Worker, tables: Tables) -> None:
    low, high = F.result(0, run=1, payload=b"low"), F.result(0, run=2, payload=b"high")
    assert worker.outcomes(high, low) == [APPLIED, DUPLICATE]
    assert tables.status(low.task.task_id) == (2, "done", b"high")


def test_of_two_higher_runs_in_one_batch_only_the_highest_is_applied(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0, payload=b"1")])
    results = [F.result(0, run=2, payload=b"2"), F.result(0, run=3, payload=b"3"), F.result(0, run=3, payload=b"x")]
    assert worker.outcomes(*results) == [DUPLICATE, APPLIED, DUPLICATE]
    assert tables.status(F.task(0).task_id) == (3, "done", b"3")


def test_a_failed_result_counts_down_and_is_counted_as_failed(worker: Worker, tables: Tables) -> None:
    assert worker.outcomes(F.failure(0)) == [APPLIED]
    assert tables.fan_out() == {"remaining": 2, "failed": 1, "run": 1, "complete": False}
    assert tables.status(F.task(0).task_id) == (1, "failed", None)


def test_a_fan_out_of_failures_only_completes(worker: Worker, tables: Tables) -> None:
    reply = worker.commit([F.failure(index) for index in range(3)])
    assert [(done.fan_out_id, done.run) for done in reply.completed] == [("f1", 1)]
    assert tables.fan_out() == {"remaining": 0, "failed": 3, "run": 1, "complete": True}


def test_a_failure_becomes_a_success_by_a_higher_run(worker: Worker, tables: Tables) -> None:
    worker.commit([F.failure(0)])
    assert worker.outcomes(F.result(0, run=2)) == [APPLIED]
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 1, "complete": False}


def test_a_success_becomes_a_failure_by_a_higher_run(worker: Worker, tables: Tables) -> None:
    worker.commit([F.result(0)])
    assert worker.outcomes(F.failure(0, run=2)) == [APPLIED]
    assert tables.fan_out() == {"remaining": 2, "failed": 1, "run": 1, "complete": False}
    assert tables.status(F.task(0).task_id) == (2, "failed", None)


def test_a_failure_and_its_repair_in_one_batch_count_once(worker: Worker, tables: Tables) -> None:
    assert worker.outcomes(F.failure(0), F.result(0, run=2)) == [APPLIED, APPLIED]
    assert tables.fan_out() == {"remaining": 2, "failed": 0, "run": 1, "complete": False}


def test_the_last_result_completes_the_fan_out_and_only_it(worker: Worker, tables: Tables) -> None:
    assert worker.completed(F.result(0), F.result(1)) == []
    assert worker.completed(F.result(2)) == [("f1", 1)]
    assert worker.completed(F.result(2)) == []
    assert tables.queued_folds() == [("f1", 1)]


def test_a_batch_of_many_threads_and_fan_outs_completes_each_once(worker: Worker, tables: Tables) -> None:
    specs = [F.but(id=f"f{n}", thread_id=f"t{n % 7}", size=1 + n % 4) for n in range(40)]
    results = [result for index in range(4) for spec in specs if index < spec.size for result in [spec.result(index)]]
    reply = worker.commit(results)
    assert set(reply.outcomes) == {APPLIED}
    assert sorted(done.fan_out_id for done in reply.completed) == sorted(spec.id for spec in specs)
    assert len({done.outbox_id for done in reply.completed}) == 40
    assert worker.commit(results).completed == []
    assert len(tables.queued_folds()) == 40


def test_a_mixed_batch_answers_in_input_order(worker: Worker) -> None:
    worker.commit([F.result(1)])
    other = F.but(id="f2", thread_id="t2")
    results = [other.result(2), F.result(1), other.result(0), F.result(0), F.result(1, run=2), other.result(2)]
    assert worker.outcomes(*results) == [APPLIED, DUPLICATE, APPLIED, APPLIED, APPLIED, DUPLICATE]


def test_the_same_task_id_in_two_threads_is_two_tasks(worker: Worker, tables: Tables) -> None:
    other = F.but(id="f2", thread_id="t2")
    assert worker.outcomes(F.result(0, task_id="mine"), other.result(0, task_id="mine")) == [APPLIED, APPLIED]
    assert tables.value("select count(*) from fanfold.result where task_id = 'mine'") == 2


def test_a_result_whose_twin_of_another_fan_out_is_refused_is_still_applied(worker: Worker) -> None:
    worker.commit([F.but(id="mover", base=(("main", 5),)).result(0)])
    stale, fresh = F.but(id="old", base=(("main", 4),)), F.but(id="new", base=(("main", 5),))
    outcomes = worker.outcomes(stale.result(0, task_id="shared"), fresh.result(0, task_id="shared"))
    assert [outcome.value for outcome in outcomes] == ["stale", "applied"]


def test_one_result_is_committed_by_one_scalar_call_without_kafka(worker: Worker, tables: Tables) -> None:
    call = "select outcome, completed from fanfold.commit_result('t1', 'f1', 2, %s, %s, %s)"
    assert worker.one(call, ("a", 0, b"x")) == ("applied", False)
    assert worker.one(call, ("a", 0, b"x")) == ("duplicate", False)
    assert worker.one(call, ("b", 1, b"y")) == ("applied", True)
    assert tables.queued_folds() == []


def test_the_scalar_call_takes_every_option_the_batch_takes(worker: Worker, tables: Tables) -> None:
    row = worker.one(
        "select outcome, completed from fanfold.commit_result(p_thread_id => 't1', p_fan_out_id => 'f1',"
        " p_size => 3, p_task_id => 'a', p_index => 0, p_payload => null, p_base => '{\"main\": 4}',"
        " p_fold => 'sum', p_quorum => 2, p_deadline_ms => 99, p_topic => 'tasks', p_run => 2, p_failed => true,"
        " p_arg_hash => 5)"
    )
    assert row == ("applied", False)
    assert tables.clock() == {"main": 4}
    assert tables.rows("select fold, quorum, deadline_ms, topic, failed from fanfold.fan_out") == [
        ("sum", 2, 99, "tasks", 1)
    ]
    assert tables.rows("select run, status, arg_hash from fanfold.result") == [(2, "failed", 5)]
