"""Dead letters without a member: each parked in a commit with the progress past it, as a member does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanfold_schemas import Task, arg_hash, encode_task, pack_headers, task_headers
from fanfold_sql import CommitBatch, DeadLetter, Finished, PartitionCommit
from tests.support.kafka import Topic
from tests.support.operator import Operator

HeaderPairs = Sequence[tuple[str, bytes | None]]


class Parker:
    """Parks records of partition 0 of a topic, for group `g`. In a new database the letters' ids count from 1."""

    def __init__(self, operator: Operator, topic: Topic) -> None:
        held = operator.claim(topic)
        self._operator = operator
        self._topic = topic
        self._owner = held.owner
        self._claim = held.claim
        self._parked = 0

    def fail(self, task: Task, code: str = "E_HANDLER", error: str = "ValueError: no") -> int:
        """Park a task that failed for good, and that its fan-out counts as failed. Returns the letter's id."""
        result = Finished(task, None, arg_hash(task), self._topic.name)
        return self.park(encode_task(task), code, error, task=task, headers=task_headers(task), results=[result])

    def park(
        self,
        value: bytes | None,
        code: str = "E_FRAME",
        error: str = "no msgpack",
        *,
        task: Task | None = None,
        key: bytes | None = b"key",
        headers: HeaderPairs = (),
        results: Sequence[Finished] = (),
    ) -> int:
        """Park a record. Returns the letter's id."""
        claim, offset = self._claim, self._parked
        letter = DeadLetter(claim.progress_id, offset, key, value, pack_headers(headers), code, error, task)
        progress = PartitionCommit(claim.progress_id, claim.epoch, claim.commit_seq, offset + 1, ())
        batch = CommitBatch(list(results), [progress], [letter], owner=self._owner)
        reply = self._operator.store(lambda store: store.commit(batch))
        self._claim = replace(claim, commit_seq=reply.commit_seqs[0])
        self._parked += 1
        return self._parked
