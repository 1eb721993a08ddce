"""What the database holds besides threads, fan-outs and results, in plain Python: partitions, outbox, dead letters.

With the oracle of tests/sql it predicts every table after every call. One call at a time: what crossing calls may do is
not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from fanfold_sql import CommitBatch, CommitReply, Islands, PartitionCommit
from tests.sql.oracle import Oracle


@dataclass(frozen=True, slots=True)
class Progress:
    """A partition's row. `current`: it was claimed on the timeline that the database is on."""

    epoch: int
    owner: UUID | None
    next_offset: int | None = None
    islands: Islands = ()
    commit_seq: int = 0
    current: bool = True


@dataclass(frozen=True, slots=True)
class Queued:
    """An outbox row: a record's bytes, or the fold of (fan_out_id, run). `due`: when, in ticks; none: it is leased."""

    value: bytes | None
    fold_of: tuple[str, int] | None
    due: int | None


@dataclass(frozen=True, slots=True)
class Letter:
    code: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that stores nothing: `fenced` and `rewound` name partitions, `backwards` none."""

    why: str
    progress_ids: frozenset[int] = frozenset()


@dataclass(slots=True)
class Ledger:
    """Every table. Partitions by progress_id, dead letters by (progress_id, offset), the outbox by outbox_id.

    `settled`: records, by (progress_id, offset), that have a result, a refusal or a dead letter. `replaying`: how far
    partitions were that an operator has set back. `given`: every outbox_id of every history.
    """

    oracle: Oracle = field(default_factory=Oracle)
    partitions: dict[int, Progress] = field(default_factory=dict)
    outbox: dict[int, Queued] = field(default_factory=dict)
    letters: dict[tuple[int, int], Letter] = field(default_factory=dict)
    settled: set[tuple[int, int]] = field(default_factory=set)
    replaying: dict[int, int] = field(default_factory=dict)
    given: set[int] = field(default_factory=set)

    def copy(self) -> Ledger:
        return Ledger(
            self.oracle.copy(),
            dict(self.partitions),
            dict(self.outbox),
            dict(self.letters),
            set(self.settled),
            dict(self.replaying),
            self.given,
        )

    def claim(self, progress_id: int, owner: UUID, epoch: int) -> Progress:
        """The next epoch; or, on a new timeline, one that no history can have given out: `epoch`, which was chance."""
        held = self.partitions.get(progress_id, Progress(0, None))
        if held.current:
            epoch = held.epoch + 1
        else:
            assert epoch > held.epoch + 1, f"epoch {epoch} of {progress_id} may have been given out on a lost timeline"
        self.partitions[progress_id] = replace(held, epoch=epoch, owner=owner, current=True)
        return self.partitions[progress_id]

    def release(self, progress_id: int, epoch: int, owner: UUID) -> None:
        held = self.partitions.get(progress_id)
        if held is not None and (held.epoch, held.owner) == (epoch, owner):
            self.partitions[progress_id] = replace(held, owner=None)

    def lost(self, owner: UUID, claims: Sequence[tuple[int, int, int]]) -> dict[int, bool]:
        """What renewing (progress_id, epoch, commit_seq) answers: {what is lost: whether it may be claimed at once}."""
        answer = {}
        for progress_id, epoch, commit_seq in claims:
            held = self.partitions.get(progress_id)
            if held is None:
                answer[progress_id] = True
            elif (held.epoch, held.owner) != (epoch, owner) or held.commit_seq < commit_seq or not held.current:
                answer[progress_id] = held.owner in (None, owner)
        return answer

    def reset(self, progress_id: int, epoch: int, next_offset: int) -> bool:
        held = self.partitions.get(progress_id)
        if epoch < 0 and held is None:
            self.partitions[progress_id] = Progress(1, None, next_offset)
            return True
        if held is None or held.epoch != epoch:
            return False
        self.partitions[progress_id] = replace(held, epoch=epoch + 1, owner=None, next_offset=next_offset, islands=())
        reached = max([held.next_offset or 0, *(high for _, high in held.islands)])
        self.replaying[progress_id] = max(reached, self.replaying.get(progress_id, 0))
        return True

    def refusal(self, batch: CommitBatch) -> Refused | None:
        """What the fence says of a commit."""
        fenced, rewound = set(), set()
        for part in batch.partitions:
            held = self.partitions.get(part.progress_id)
            if held is None or held.epoch < part.epoch:
                rewound.add(part.progress_id)
            elif (held.epoch, held.owner) != (part.epoch, batch.owner):
                fenced.add(part.progress_id)
            elif held.commit_seq < part.commit_seq or not held.current:
                rewound.add(part.progress_id)
        if fenced:
            return Refused("fenced", frozenset(fenced))
        return Refused("rewound", frozenset(rewound)) if rewound else None

    def goes_back(self, batch: CommitBatch) -> bool:
        return any(part.next_offset < (self.partitions[part.progress_id].next_offset or 0) for part in batch.partitions)

    def store(self, batch: CommitBatch, oracle: Oracle, reply: CommitReply) -> None:
        """Take over a commit whose results made `oracle` of ours. Outbox ids are chance: those of the reply count."""
        self.oracle = oracle
        for done in reply.completed:
            barrier = oracle.barriers[done.fan_out_id]
            if barrier.declared is not None and barrier.declared[0].fold is not None:
                assert done.outbox_id is not None, f"{done.fan_out_id} is complete and no fold was queued"
                self.queue(done.outbox_id, fold_of=(done.fan_out_id, done.run))
            else:
                assert done.outbox_id is None, f"a fold was queued for {done.fan_out_id}, which has none"
        for record, outbox_id in zip(batch.outbox, reply.outbox_ids, strict=True):
            wanted = record.result is None or reply.outcomes[record.result] == "applied"
            assert wanted == (outbox_id is not None), f"{record} is {'not ' if wanted else ''}queued"
            if outbox_id is not None:
                self.queue(outbox_id, value=record.value)
        for letter in batch.dead_letters:
            self.letters.setdefault((letter.progress_id, letter.offset), Letter(letter.code, letter.value))
        for part, commit_seq in zip(batch.partitions, reply.commit_seqs, strict=True):
            self.move(part)
            assert commit_seq == self.partitions[part.progress_id].commit_seq, f"commit_seq {commit_seq} of {part}"

    def move(self, part: PartitionCommit) -> None:
        held = self.partitions[part.progress_id]
        self.partitions[part.progress_id] = replace(
            held, next_offset=part.next_offset, islands=part.islands, commit_seq=held.commit_seq + 1
        )
        if part.next_offset >= self.replaying.get(part.progress_id, 0):
            self.replaying.pop(part.progress_id, None)

    def queue(
        self,
        outbox_id: int,
        *,
        value: bytes | None = None,
        fold_of: tuple[str, int] | None = None,
        due: int | None = None,
    ) -> None:
        assert outbox_id not in self.given, f"outbox row {outbox_id} was given out twice"
        self.given.add(outbox_id)
        self.outbox[outbox_id] = Queued(value, fold_of, due)

    def lease(self, limit: int) -> list[int]:
        """The rows that a relay gets next."""
        due = sorted((row.due, outbox_id) for outbox_id, row in self.outbox.items() if row.due is not None)
        taken = [outbox_id for _, outbox_id in due[:limit]]
        for outbox_id in taken:
            self.outbox[outbox_id] = replace(self.outbox[outbox_id], due=None)
        return sorted(taken)

    def end_leases(self, now: int) -> None:
        for outbox_id, row in self.outbox.items():
            if row.due is None:
                self.outbox[outbox_id] = replace(row, due=now)

    def begin_timeline(self) -> None:
        """What a database is after a failover: every claim was made on an earlier timeline."""
        for progress_id, held in self.partitions.items():
            self.partitions[progress_id] = replace(held, current=False)

    def prune(self) -> tuple[int, int, int, int]:
        counts = self.oracle.prune()
        self.outbox = {
            outbox_id: row
            for outbox_id, row in self.outbox.items()
            if row.fold_of is None or row.fold_of[0] in self.oracle.barriers
        }
        letters = len(self.letters)
        self.letters = {}
        return *counts, letters
