"""The calls that scenarios are made of: SQL that answers with one JSON value, and how an answer is said in a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from psycopg import sql

from fanfold_schemas import derive_task_id
from fanfold_sql import CommitBatch, DeadLetter, Finished, OutboxRecord, PartitionCommit
from fanfold_sql.arrays import Column
from fanfold_sql.commit import CHECK_TASKS, COMMIT_RESULTS, check_parameters, commit_parameters
from tests.property.interleave.scenario import Answer, Transaction
from tests.sql.support import CLUSTER, TOPIC, TOPIC_ID

ALICE, BOB = UUID(int=1), UUID(int=2)
"""Owners of partitions."""

READ_COMMITTED = "read committed"
_LEASE_MS = 600_000


def rendered(query: str, parameters: Sequence[Any]) -> str:
    """A query with its parameters written into it: all of them are ours, and libpq is called without psycopg."""
    pieces = query.split("%s")
    values = [list(given.values) if isinstance(given, Column) else given for given in parameters]
    literals = [sql.Literal(value).as_string(None) for value in values]
    return "".join(piece + literal for piece, literal in zip(pieces, [*literals, ""], strict=True))


def _row(query: str, parameters: Sequence[Any]) -> str:
    return f"select to_jsonb(reply) from ({rendered(query, parameters)}) reply"


def _rows(query: str, parameters: Sequence[Any]) -> str:
    return f"select coalesce(jsonb_agg(reply), '[]') from ({rendered(query, parameters)}) reply"


def held(partition: int, owner: UUID = ALICE, *, next_offset: int | None = None) -> str:
    """For a setup: a partition that somebody holds under epoch 1. Its progress_id is made its number, for short."""
    claimed = rendered("select fanfold.claim_partition('g', %s, %s, %s, %s::int4, %s)", _of(partition, owner))
    stored = rendered(
        "update fanfold.partition_progress set progress_id = partition, next_offset = %s where partition = %s",
        (next_offset, partition),
    )
    return f"{claimed}; {stored}"


def _of(partition: int, *rest: Any) -> tuple[Any, ...]:
    return CLUSTER, TOPIC, TOPIC_ID, partition, *rest


def at(partition: int, next_offset: int, *, epoch: int = 1, commit_seq: int = 0) -> PartitionCommit:
    """What a holder commits of a partition."""
    return PartitionCommit(partition, epoch, commit_seq, next_offset, ())


def commit_sql(
    results: Iterable[Finished] = (),
    *,
    partitions: Sequence[PartitionCommit] = (),
    dead_letters: Sequence[DeadLetter] = (),
    outbox: Sequence[OutboxRecord] = (),
    owner: UUID = ALICE,
    lease_ms: int = _LEASE_MS,
) -> str:
    batch = CommitBatch(list(results), list(partitions), list(dead_letters), list(outbox), owner)
    return _row(COMMIT_RESULTS, commit_parameters(batch, lease_ms))


def commit(
    *results: Finished,
    partitions: Sequence[PartitionCommit] = (),
    dead_letters: Sequence[DeadLetter] = (),
    outbox: Sequence[OutboxRecord] = (),
    owner: UUID = ALICE,
    lease_ms: int = _LEASE_MS,
    ends: str = "commit",
    isolation: str = READ_COMMITTED,
) -> Transaction:
    """`applied`, `duplicate`, … per result; `completes` if it completed a fan-out; `sends` if it queued records."""
    statement = commit_sql(
        results, partitions=partitions, dead_letters=dead_letters, outbox=outbox, owner=owner, lease_ms=lease_ms
    )
    return Transaction("commit_results", statement, _commit_word, ends, isolation, _progress(partitions))


def commit_if_needed(result: Finished) -> Transaction:
    """What a member does after `check`: it commits the result if the handler had to run."""
    statement = commit_sql([result])
    return Transaction("commit_results", lambda answers: statement if answers[-1] == "run" else None, _commit_word)


def commit_after_claim(result: Finished, partition: int, next_offset: int, owner: UUID) -> Transaction:
    """The first commit of a new holder, with the epoch that the claim gave it."""

    def statement(answers: Sequence[Answer]) -> str | None:
        claimed = answers[-1]
        if not isinstance(claimed, dict):
            return None
        progress = at(partition, next_offset, epoch=claimed["epoch"], commit_seq=claimed["commit_seq"])
        return commit_sql([result], partitions=[progress], owner=owner)

    return Transaction("commit_results", statement, _commit_word, progress={partition: next_offset})


def _progress(partitions: Sequence[PartitionCommit]) -> dict[int, int]:
    return {partition.progress_id: partition.next_offset for partition in partitions}


def _commit_word(answer: Answer) -> str:
    words = ["+".join(answer["outcomes"] or ["applied"])]
    words += ["completes"] if answer["completed_fan_out_ids"] else []
    words += ["sends"] if any(answer["outbox_ids"]) else []
    return " ".join(words)


def check(result: Finished) -> Transaction:
    """`run`, or why the handler need not."""
    query = f"select coalesce(({CHECK_TASKS})[1], 'run') as verdict"
    return Transaction("check_tasks", _scalar(query, check_parameters([result.task], [result.arg_hash])))


def claim(partition: int, owner: UUID) -> Transaction:
    """`epoch 2 from 5`: the epoch that was given, and where to go on."""
    query = "select epoch, next_offset, islands, commit_seq from fanfold.claim_partition('g', %s, %s, %s, %s::int4, %s)"
    statement = _row(query, _of(partition, owner))
    return Transaction(
        "claim_partition", statement, lambda answer: f"epoch {answer['epoch']} from {answer['next_offset']}"
    )


def renew(owner: UUID, *partitions: int, epoch: int = 1) -> Transaction:
    """The partitions that were lost."""
    query = "select progress_id, vacant from fanfold.renew_partitions(%s, %s::int8[], %s::int8[]) order by 1"
    statement = _rows(query, (owner, list(partitions), [epoch] * len(partitions)))
    return Transaction("renew_partitions", statement, lambda rows: f"lost {len(rows)}")


def release(owner: UUID, *partitions: int, epoch: int = 1) -> Transaction:
    query = "select fanfold.release_partitions(%s, %s::int8[], %s::int8[])::text as reply"
    statement = _scalar(query, (owner, list(partitions), [epoch] * len(partitions)))
    return Transaction("release_partitions", statement, _silent("released"))


def reset(partition: int, next_offset: int, *, epoch: int = 1) -> Transaction:
    """`reset`, or `refused` if somebody claimed it since `epoch` was seen."""
    query = "select fanfold.reset_partition('g', %s, %s, %s, %s::int4, %s::int8, %s::int8)"
    statement = _scalar(query, _of(partition, epoch, next_offset))
    return Transaction("reset_partition", statement, lambda done: "reset" if done else "refused")


def reopen(fan_out_id: str, *indexes: int) -> Transaction:
    """The run that the tasks were enqueued with, in the same transaction."""
    task_ids = [derive_task_id(fan_out_id, index) for index in indexes]
    query = (
        "select reopened.run, fanfold.enqueue(array[%s], array[null::bytea], array['rerun'::bytea],"
        " array[null::bytea], array[0])::text from fanfold.reopen_fan_out(%s, %s::text[]) as reopened (run)"
    )
    statement = _row(query, (TOPIC, fan_out_id, task_ids))
    return Transaction("reopen_fan_out", statement, lambda answer: f"run {answer['run']}")


def cancel(fan_out_id: str, thread_id: str | None = None) -> Transaction:
    """`cancelled`, `done` or `unknown`."""
    return Transaction("cancel_fan_out", _scalar("select fanfold.cancel_fan_out(%s, %s)", (fan_out_id, thread_id)))


def cancel_thread(thread_id: str) -> Transaction:
    """What was cancelled."""
    statement = _row("select clock, fan_out_ids from fanfold.cancel_thread(%s)", (thread_id,))
    return Transaction("cancel_thread", statement, lambda answer: f"cancelled {len(answer['fan_out_ids'])}")


def advance(thread_id: str, clock: str) -> Transaction:
    statement = _scalar("select fanfold.advance_thread(%s, %s::jsonb)", (thread_id, clock))
    return Transaction("advance_thread", statement, _silent("advanced"))


def expire() -> Transaction:
    """How many fan-outs their deadline ended."""
    query = "select fan_out_id, folds from fanfold.expire_fan_outs(100)"
    return Transaction("expire_fan_outs", _rows(query, ()), lambda rows: f"expired {len(rows)}")


def results(fan_out_id: str) -> Transaction:
    """How many results a reader finds."""
    query = "select count(*) from fanfold.read_results(%s, -1, 100)"
    return Transaction("read_results", _scalar(query, (fan_out_id,)), lambda count: f"{count} stored")


def prune() -> Transaction:
    """How many fan-outs and dead letters are gone; everything that is finished is old enough."""
    statement = _row("select * from fanfold.prune(now() + interval '1 hour', 100)", ())
    return Transaction("prune", statement, lambda answer: f"pruned {answer['fan_outs']}+{answer['dead_letters']}")


def relay(limit: int) -> Transaction:
    """What a relay got hold of."""
    query = "select value, fan_out_id, run from fanfold.claim_outbox(%s, %s)"
    return Transaction("claim_outbox", _rows(query, (limit, _LEASE_MS)), lambda rows: f"took {len(rows)}")


def enqueued(*values: str) -> str:
    """For a setup: records that are due."""
    return "; ".join(
        rendered("insert into fanfold.outbox (topic, value) values (%s, convert_to(%s, 'UTF8'))", (TOPIC, value))
        for value in values
    )


def _scalar(query: str, parameters: Sequence[Any]) -> str:
    return f"select to_jsonb(({rendered(query, parameters)}))"


def _silent(word: str) -> Callable[[Answer], str]:
    return lambda _: word
