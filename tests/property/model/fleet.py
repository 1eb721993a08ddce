"""A log and the members that read it, on a store whose every answer is compared with what was predicted.

Members do what the product's do, in the same order of calls; only here each call can be the last before a crash, its
reply can be lost, and the database can become an older copy of itself between any two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from uuid import UUID

import msgspec

from fanfold_consumer.offsets import Tracker
from fanfold_consumer.relay import fold_record, row_record
from fanfold_producer.fan_out import BuiltFanOut
from fanfold_producer.record import Record
from fanfold_schemas import FanOut, Task, arg_hash, encode_payload, encode_task, pack_headers, task_headers
from fanfold_schemas.limits import RUN_MAX
from fanfold_sql import (
    CommitBatch,
    CommitReply,
    Conflict,
    Fenced,
    Finished,
    FoldOf,
    OutboxRecord,
    OutboxRow,
    Rewound,
    StoreError,
)
from tests.property.model.checked import CheckedStore, Violation
from tests.property.model.members import (
    Completion,
    Holding,
    Log,
    Logged,
    Member,
    Publication,
    Sent,
    Work,
    batch_of,
    park,
    run,
)
from tests.sql.support import TOPIC

MEMBERS = 3
LATE_COPIES = 6
BATCH_MAX = 5
"""Results in a commit. The oracle may have to try every order of them."""


class Fate(Enum):
    """Of a call."""

    ANSWERED = "answered"
    REPLY_LOST = "reply lost"
    REQUEST_LOST = "request lost"

    def __repr__(self) -> str:
        return f"Fate.{self.name}"


class Fleet:
    def __init__(self, store: CheckedStore) -> None:
        self.store = store
        self.log = Log()
        self.published: list[BuiltFanOut] = []
        self._owners = 0
        self.members = [self._new_member() for _ in range(MEMBERS)]
        # Commits that were sent: the network may deliver a copy of one at any time.
        self.copies: list[CommitBatch] = []
        self._progress_ids: dict[int, int] = {}
        self._number = 0

    # Assignment

    def claim(self, member: Member, partition: int) -> Holding:
        """Take a partition, whoever has it: whoever had it does not hear of it."""
        claim = self.store.claim(partition, member.owner)
        old = member.holdings.get(partition)
        if old is not None:
            member.lose(old)
        self._progress_ids[partition] = claim.progress_id
        tracker = Tracker(claim.next_offset, claim.islands)
        position = claim.next_offset or 0
        holding = Holding(partition, claim.progress_id, claim.epoch, claim.commit_seq, tracker, position)
        member.holdings[partition] = holding
        return holding

    def release(self, member: Member, holding: Holding) -> None:
        self.store.release(member.owner, holding.progress_id, holding.epoch)
        member.lose(holding)

    def renew(self, member: Member) -> None:
        """Hear what was taken from us; claim at once what nobody else has."""
        held = list(member.holdings.values())
        lost = self.store.renew(member.owner, [(h.progress_id, h.epoch, h.commit_seq) for h in held])
        for holding in held:
            if holding.progress_id in lost:
                member.lose(holding)
                if lost[holding.progress_id]:
                    self.claim(member, holding.partition)

    def crash(self, number: int) -> None:
        self.members[number] = self._new_member()

    def reset(self, partition: int, epoch_seen: int, back: int) -> None:
        """Let the group read a partition again, as an operator who saw `epoch_seen` epochs ago."""
        progress_id = self._progress_ids.get(partition)
        held = None if progress_id is None else self.store.ledger.partitions.get(progress_id)
        if progress_id is None or held is None:
            return
        self.store.reset(partition, progress_id, held.epoch - epoch_seen, max(0, (held.next_offset or 0) - back))

    # Records

    def poll(self, member: Member, holding: Holding, count: int) -> None:
        """Take up to `count` records in, and ask about the tasks among them before any handler runs."""
        records = [r for r in self.log.partitions[holding.partition] if r.offset >= holding.position][:count]
        work: list[Work] = []
        for logged in records:
            holding.position = logged.offset + 1
            if not holding.tracker.deliver(logged.offset):
                continue
            if logged.task is None:
                member.finished.append(park(holding, logged, "E_FRAME", None))
            else:
                work.append(Work(holding, logged, logged.task))
        if len(records) < count:
            holding.tracker.reach_end(self.log.ends[holding.partition])
        if not work:
            return
        deadlines = [w.task for w in work if w.task.fan_out.deadline_ms is not None and not w.task.is_fold]
        if deadlines:
            self.store.open(deadlines)
        verdicts = self.store.check([w.task for w in work], [arg_hash(w.task) for w in work])
        for item, verdict in zip(work, verdicts, strict=True):
            if verdict is None:
                member.running.append(item)
            elif verdict == "conflict":
                member.finished.append(park(holding, item.logged, "E_CONFLICT", item.task))
            else:
                self._settle(item)
                member.finished.append(Completion(holding, item.logged))

    def finish(self, member: Member, work: Work, *, fails: bool) -> None:
        """End a handler, in whatever order. A failure is parked, and counted by its fan-out."""
        member.running.remove(work)
        self._number += 1
        if work.task.is_fold:
            member.finished.append(self._fold(work, fails=fails))
        elif fails:
            member.finished.append(park(work.holding, work.logged, "E_HANDLER", work.task, counts=True))
        else:
            member.finished.append(run(work, self._number))

    def running(self) -> list[tuple[Member, Work]]:
        return [(member, work) for member in self.members for work in member.running]

    def _fold(self, work: Work, *, fails: bool) -> Completion:
        values = self.store.read_results(work.task.fan_out.id)
        if any(value.status == "pending" for value in values):
            self._settle(work)  # reopened meanwhile: a fold of a later run follows
            return Completion(work.holding, work.logged)
        if fails:
            return park(work.holding, work.logged, "E_HANDLER", work.task, counts=True)
        payload = encode_payload([value.payload for value in values])
        return Completion(work.holding, work.logged, Finished(work.task, payload, arg_hash(work.task), TOPIC))

    def _settle(self, work: Work) -> None:
        self.store.ledger.settled.add((work.holding.progress_id, work.logged.offset))

    # Commits

    def commit(self, member: Member, count: int, fate: Fate = Fate.ANSWERED) -> None:
        """Commit the oldest `count` completions, or send again what went unanswered."""
        if member.sent is None:
            live, member.finished = member.finished[:count], member.finished[count:]
            for completion in live:
                completion.holding.tracker.finish(completion.logged.offset)
            self._prepare(member, live, list(member.holdings.values()))
        while member.sent is not None:
            if fate is Fate.REQUEST_LOST:
                return
            sent = member.sent
            answer = self._send(sent.batch)
            if fate is Fate.REPLY_LOST:
                return
            member.sent = None
            self._hear(member, sent, answer)

    def _prepare(self, member: Member, live: Sequence[Completion], moved: Iterable[Holding]) -> None:
        live = [completion for completion in live if not completion.holding.lost]
        holdings = {id(h): h for h in moved if not h.lost and h.tracker.next_offset is not None}
        holdings |= {id(completion.holding): completion.holding for completion in live}
        if live or holdings:
            member.sent = Sent(batch_of(member, live, list(holdings.values())), live, list(holdings.values()))

    def _send(self, batch: CommitBatch) -> CommitReply | StoreError:
        self.copies = [*self.copies, batch][-LATE_COPIES:]
        return self.store.commit(batch)

    def deliver_late_copy(self, number: int) -> None:
        self.store.commit(self.copies[number])

    def _hear(self, member: Member, sent: Sent, answer: CommitReply | StoreError) -> None:
        """What a member makes of an answer: it goes on with what is left, or has committed."""
        match answer:
            case CommitReply():
                self._note(member, sent, answer)
            case Fenced() | Rewound():
                for holding in sent.holdings:
                    if holding.progress_id in answer.progress_ids and not holding.lost:
                        member.lose(holding)
                        if isinstance(answer, Rewound):
                            self.claim(member, holding.partition)
                self._prepare(member, sent.live, sent.holdings)
            case Conflict():
                results = [completion for completion in sent.live if completion.result is not None]
                bad = {id(results[position]) for position in answer.positions}
                live = [
                    park(c.holding, c.logged, "E_CONFLICT", c.logged.task) if id(c) in bad else c for c in sent.live
                ]
                self._prepare(member, live, sent.holdings)
            case _:
                raise Violation(f"a member's own commit was refused: {answer}")

    def _note(self, member: Member, sent: Sent, reply: CommitReply) -> None:
        for holding, commit_seq in zip(sent.holdings, reply.commit_seqs, strict=True):
            holding.commit_seq = commit_seq
        for record, outbox_id in zip(sent.batch.outbox, reply.outbox_ids, strict=True):
            if outbox_id is not None:
                member.leased.append(Publication(outbox_id, row_record(record)))
        tasks = {result.task.fan_out.id: result.task for result in sent.batch.results}
        for done in reply.completed:
            task = tasks[done.fan_out_id]
            if done.outbox_id is not None:
                fold = _fold_of(task.fan_out, task.thread_id, task.base, done.run)
                member.leased.append(Publication(done.outbox_id, fold_record(TOPIC, fold)))

    # The relay

    def lease(self, member: Member, limit: int) -> None:
        """Take over outbox rows whose lease ended or that nobody had."""
        for row in self.store.claim_outbox(limit):
            record = row_record(row) if row.fold_of is None else fold_record(row.topic, row.fold_of)
            self._check_row(row, record)
            member.leased.append(Publication(row.outbox_id, record))

    def _check_row(self, row: OutboxRow, record: Record) -> None:
        queued = self.store.ledger.outbox[row.outbox_id]
        value = queued.value
        if queued.fold_of is not None:
            name, run = queued.fold_of
            barrier = self.store.ledger.oracle.barriers[name]
            assert barrier.declared is not None
            fan_out, base = barrier.declared
            value = fold_record(TOPIC, _fold_of(fan_out, barrier.thread_id, base.to_dict(), run)).value
        if record.value != value:
            raise Violation(f"outbox row {row} is not {queued}")

    def publish(self, member: Member) -> None:
        for publication in member.leased:
            self.log.publish(publication.record)
            member.published.append(publication.outbox_id)
        member.leased = []

    def acknowledge(self, member: Member) -> None:
        self.store.ack_outbox(member.published)
        member.published = []

    # Operators and others

    def rerun(self, tasks: Sequence[Task]) -> None:
        """Let tasks of the log run again and overwrite, as `fanfold replay --rerun`."""
        unique = list({task.task_id: task for task in tasks if not task.is_fold}.values())
        again = [msgspec.structs.replace(task, run=RUN_MAX) for task in unique]
        verdicts = self.store.check(again, [arg_hash(task) for task in again])
        chosen: dict[str, list[Task]] = {}
        for task, verdict in zip(unique, verdicts, strict=True):
            if verdict not in ("stale", "conflict"):
                chosen.setdefault(task.fan_out.id, []).append(task)
        if chosen:
            self.store.rerun(chosen, _rerun_record)

    def fail_over(self, *, promoted: bool) -> None:
        """The database becomes the copy. Members, relays and the log go on as they are.

        A promoted standby is on a new timeline, which voids every claim. A restored snapshot is not; there commit_seq
        alone tells what was lost, and two things are not promised: that a call which was on its way does no harm, and
        that a verdict of check_tasks, not committed yet, outlives the database that gave it.
        """
        self.store.fail_over(promoted=promoted)
        if promoted:
            return
        self.copies = []
        for member in self.members:
            waiting = [*member.finished, *(member.sent.live if member.sent is not None else [])]
            for completion in waiting:
                if completion.result is None and completion.logged.task is not None:
                    member.lose(completion.holding)
            if member.sent is not None and any(holding.lost for holding in member.sent.holdings):
                sent, member.sent = member.sent, None
                self._prepare(member, sent.live, sent.holdings)

    # What must hold

    def verify(self) -> None:
        """After each step; guarantee 5 is here, because only the log knows what there is below an offset."""
        self.store.verify()
        for partition, progress_id in self._progress_ids.items():
            held = self.store.ledger.partitions.get(progress_id)
            if held is None:
                continue
            for logged in self.log.partitions[partition]:
                passed = logged.offset < (held.next_offset or 0) or any(
                    low <= logged.offset < high for low, high in held.islands
                )
                if passed and (progress_id, logged.offset) not in self.store.ledger.settled:
                    self._check_settled(progress_id, logged)

    def _check_settled(self, progress_id: int, logged: Logged) -> None:
        ledger = self.store.ledger
        if (progress_id, logged.offset) not in ledger.letters:
            alone = None
            if logged.task is not None:
                alone = self.store.alone(Finished(logged.task, b"", arg_hash(logged.task)))
            if alone not in ("duplicate", "stale", "closed"):
                raise Violation(
                    f"guarantee broken: 5 nothing became of {logged}, which progress has passed: it would be {alone}"
                )
        ledger.settled.add((progress_id, logged.offset))

    def _new_member(self) -> Member:
        self._owners += 1
        return Member(UUID(int=self._owners))


def _fold_of(fan_out: FanOut, thread_id: str, base: dict[str, int], run: int) -> FoldOf:
    return FoldOf(fan_out, run, thread_id, base)


def _rerun_record(task: Task, run: int | None) -> OutboxRecord:
    again = msgspec.structs.replace(task, run=task.run if run is None else run, attempt=1)
    return OutboxRecord(TOPIC, task.task_id.encode(), encode_task(again), pack_headers(task_headers(again)))
