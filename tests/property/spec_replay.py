"""Behaviours of the specification against the real procedures: each action is carried out, each answer and the state
of the database after it compared with the model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import psycopg

from fanfold_consumer.offsets import Tracker
from fanfold_consumer.relay import fold_record
from fanfold_schemas import (
    FOLD_INDEX,
    FanOut,
    Task,
    decode_task,
    derive_fold_task_id,
    derive_task_id,
    encode_task,
    pack_headers,
    task_headers,
)
from fanfold_sql import (
    CommitBatch,
    CommitReply,
    Fenced,
    Finished,
    FoldOf,
    PartitionCommit,
    Rewound,
    StoreRejected,
)
from tests.property.spec_database import SpecDatabase
from tests.property.spec_traces import Picture, Trace, owner_name
from tests.sql.support import CLUSTER, TOPIC, TOPIC_ID, Worker

_GROUP = "g"
_THREAD = "t1"
_PARTITIONS = ["p1", "p2"]
Lost = list[str]


class Diverged(AssertionError):
    """The database did something else than the model."""


@dataclass(slots=True)
class Hold:
    """A claim, as a member keeps it. `tracker` is the fleet's own."""

    progress_id: int
    epoch: int
    commit_seq: int
    tracker: Tracker
    pend: dict[int, Task] = field(default_factory=dict)
    dirty: bool = False


@dataclass(slots=True)
class Call:
    """A commit on its way; `entries` are the partitions and offsets of its results, in their order."""

    batch: CommitBatch
    holds: dict[str, Hold]
    entries: list[tuple[str, int]]
    reply: CommitReply | None = None
    lost: Lost = field(default_factory=list)


@dataclass(slots=True)
class Member:
    worker: Worker
    life: int = 1
    hold: dict[str, Hold] = field(default_factory=dict)
    call: Call | None = None


class Replay:
    """Replays behaviours one after another on one database.

    Args:
        worker: a connection of the worker role.
        owner: one of the schema's owner.
    """

    def __init__(self, worker: psycopg.Connection[Any], owner: psycopg.Connection[Any]) -> None:
        self._worker = worker
        self._owner = owner
        self._database = SpecDatabase(owner, _PARTITIONS)

    def run(self, trace: Trace) -> None:
        """Raises `Diverged` at the first step whose answer or state is not the model's."""
        self._database.clear()
        self._begin(trace[0].act)
        for number, step in enumerate(trace[1:], start=1):
            told = [f"{n}: {s.act}" for n, s in enumerate(trace[1 : number + 1], start=1)]
            try:
                _STEPS[step.act["name"]](self, step.act)
                self._compare(step.after)
            except Diverged as error:
                raise Diverged(f"step {number} of\n  " + "\n  ".join(told) + f"\n{error}") from None

    def _begin(self, world: dict[str, Any]) -> None:
        self._sizes: dict[str, int] = world["size"]
        self._bases: dict[str, dict[str, int]] = world["base"]
        self._folded: Sequence[str] = world["folded"]
        self._members = {m: Member(Worker(self._worker)) for m in ("m1", "m2")}
        self._owners = {str(member.worker.owner): f"{m}.1" for m, member in self._members.items()}
        self._strays: list[Call] = []
        self._outbox_ids: dict[int, int] = {}
        self._published = {p: [self._task(r) for r in records] for p, records in world["log"].items()}
        self._log = {p: list(tasks) for p, tasks in self._published.items()}
        self._database.copy()

    # What the model's names stand for.

    def _fan_out(self, f: str) -> FanOut:
        return FanOut(f, self._sizes[f], "sum" if f in self._folded else None, None, None)

    def _task(self, record: dict[str, Any]) -> Task:
        f, index, run = record["f"], record["i"] - 1, record["run"]
        fan_out = self._fan_out(f)
        if index != FOLD_INDEX:
            return Task(derive_task_id(f, index), _THREAD, fan_out, index, "work", None, self._bases[f], run)
        assert fan_out.fold is not None
        return Task(derive_fold_task_id(f), _THREAD, fan_out, index, fan_out.fold, None, self._bases[f], run)

    def _finished(self, task: Task) -> Finished:
        return Finished(task, bytes([task.run]), 7, TOPIC)

    # Members.

    def claim(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        claim = member.worker.claim_in_full(_PARTITIONS.index(act["p"]), group=_GROUP)
        member.hold[act["p"]] = Hold(
            claim.progress_id, claim.epoch, claim.commit_seq, Tracker(claim.next_offset, claim.islands)
        )

    def deliver(self, act: dict[str, Any]) -> None:
        member, p, offset = self._members[act["m"]], act["p"], act["o"]
        hold, task = member.hold[p], self._log[p][offset - 1]
        verdict = "finished"
        if hold.tracker.deliver(offset):
            verdict = member.worker.check(self._finished(task))[0] or "applied"
            if verdict != "applied":
                hold.tracker.finish(offset)
        hold.dirty = hold.dirty or verdict != "applied"
        _same("check_tasks", verdict, act["verdict"])

    def finish(self, act: dict[str, Any]) -> None:
        hold = self._members[act["m"]].hold[act["p"]]
        hold.tracker.finish(act["o"])
        hold.pend[act["o"]] = self._log[act["p"]][act["o"] - 1]
        hold.dirty = True

    def send(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        holds = {p: hold for p, hold in sorted(member.hold.items()) if hold.dirty}
        entries = [(p, offset) for p, hold in holds.items() for offset in hold.pend]
        # The model's order: fan-outs as they are named, of two runs the higher first, then as they were read.
        entries.sort(key=self._order)
        partitions = []
        for hold in holds.values():
            hold.dirty = False
            next_offset = hold.tracker.next_offset
            assert next_offset is not None  # something was delivered, or nothing had moved
            partitions.append(
                PartitionCommit(hold.progress_id, hold.epoch, hold.commit_seq, next_offset, hold.tracker.islands())
            )
        results = [self._finished(self._log[p][offset - 1]) for p, offset in entries]
        member.call = Call(CommitBatch(results, partitions, owner=member.worker.owner), holds, entries)

    def _order(self, entry: tuple[str, int]) -> tuple[str, int, int, tuple[str, int]]:
        task = self._log[entry[0]][entry[1] - 1]
        return task.fan_out.id, task.index, -task.run, entry

    def execute(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        assert member.call is not None
        self._execute(member.call, act)

    def execute_stray(self, act: dict[str, Any]) -> None:
        name = owner_name(act["owner"])
        call = next(call for call in self._strays if self._owners[str(call.batch.owner)] == name)
        self._strays.remove(call)
        self._execute(call, act)

    def _execute(self, call: Call, act: dict[str, Any]) -> None:
        batch = call.batch
        answer, lost, outcomes = "ok", frozenset[int](), []
        try:
            # Without a lease every row is due at once, so that it depends on the behaviour alone who publishes it.
            call.reply = Worker(self._worker).commit(
                batch.results, partitions=batch.partitions, owner=batch.owner, lease_ms=0
            )
            outcomes = [[*e, o.value] for e, o in zip(call.entries, call.reply.outcomes, strict=True)]
        except Fenced as error:
            answer, lost = "fenced", error.progress_ids
        except Rewound as error:
            answer, lost = "rewound", error.progress_ids
        except StoreRejected as error:
            answer = "back" if error.sqlstate == "ZF005" else f"refused: {error}"
        call.lost = sorted(p for p, hold in call.holds.items() if hold.progress_id in lost)
        _same("commit_results", [answer, call.lost, outcomes], [act["reply"], sorted(act["lost"]), act["outcomes"]])

    def answer(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        call, member.call = member.call, None
        assert call is not None
        for position, (p, hold) in enumerate(call.holds.items()):
            if member.hold.get(p) is not hold:
                continue
            if p in call.lost:
                del member.hold[p]
            elif call.reply is None:
                hold.dirty = True
            else:
                hold.commit_seq = call.reply.commit_seqs[position]
                for _, offset in [entry for entry in call.entries if entry[0] == p]:
                    hold.pend.pop(offset, None)

    def renew(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        hold = member.hold.pop(act["p"])
        found = member.worker.one(
            "select count(*) from fanfold.renew_partitions(%s, %s::int8[], %s::int8[], %s::int8[])",
            (member.worker.owner, [hold.progress_id], [hold.epoch], [hold.commit_seq]),
        )
        _same("renew_partitions: partitions lost", found[0], 1)

    def release(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        hold = member.hold.pop(act["p"])
        member.worker.one(
            "select fanfold.release_partitions(%s, %s::int8[], %s::int8[])",
            (member.worker.owner, [hold.progress_id], [hold.epoch]),
        )

    # Relay.

    def publish(self, act: dict[str, Any]) -> None:
        row = act["row"]
        leased = self._worker.execute("select * from fanfold.claim_outbox(100, 0)").fetchall()
        outbox_id = self._outbox_ids[row["id"]]
        (found,) = [entry for entry in leased if entry[0] == outbox_id] or [None]
        if found is None:
            raise Diverged(f"claim_outbox: row {row} is not due")
        topic, value, fan_out_id, run = found[1], found[3], found[5], found[6]
        if fan_out_id is not None:
            thread_id, size, base, fold, quorum = found[7:12]
            value = fold_record(topic, FoldOf(FanOut(fan_out_id, size, fold, quorum), run, thread_id, base)).value
        task = decode_task(value)
        _same("claim_outbox", task, self._task(row))
        self._log[self._home(row["f"])].append(task)

    def _home(self, f: str) -> str:
        return "p2" if f == "f2" and "p2" in self._log else "p1"

    def acknowledge(self, act: dict[str, Any]) -> None:
        self._worker.execute("select fanfold.ack_outbox(%s::int8[])", ([self._outbox_ids[act["row"]["id"]]],))

    # Faults.

    def lose(self, act: dict[str, Any]) -> None:
        call = self._members[act["m"]].call
        assert call is not None
        call.reply, call.lost = None, []

    def stray(self, act: dict[str, Any]) -> None:
        call = self._members[act["m"]].call
        assert call is not None
        self._strays.append(replace(call))

    def crash(self, act: dict[str, Any]) -> None:
        member = self._members[act["m"]]
        reborn = self._members[act["m"]] = Member(Worker(self._worker, uuid4()), member.life + 1)
        self._owners[str(reborn.worker.owner)] = f"{act['m']}.{reborn.life}"

    def backup(self, _: dict[str, Any]) -> None:
        self._database.copy()

    def failover(self, _: dict[str, Any]) -> None:
        self._database.set_back()
        self._strays.clear()

    def republish(self, act: dict[str, Any]) -> None:
        self._log[act["q"]].append(self._published[act["p"]][act["o"] - 1])

    # Orders.

    def reset(self, act: dict[str, Any]) -> None:
        number = _PARTITIONS.index(act["p"])
        (epoch,) = self._owner.execute(
            "select epoch from fanfold.partition_progress where partition = %s", (number,)
        ).fetchall()[0]
        done = Worker(self._worker).one(
            "select fanfold.reset_partition(%s, %s, %s, %s, %s::int4, %s::int8, 1::int8)",
            (_GROUP, CLUSTER, TOPIC, TOPIC_ID, number, epoch),
        )
        _same("reset_partition", done[0], True)

    def rerun(self, act: dict[str, Any]) -> None:
        task = self._task({"f": act["f"], "i": act["i"], "run": act["run"]})
        with self._worker.transaction():
            run = Worker(self._worker).reopen(act["f"], task.task_id)
            self._worker.execute(
                "select fanfold.enqueue(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[], '{0}'::int4[])",
                ([TOPIC], [task.task_id.encode()], [encode_task(task)], [pack_headers(task_headers(task))]),
            )
        _same("reopen_fan_out", run, act["run"])

    def cancel(self, act: dict[str, Any]) -> None:
        answer = Worker(self._worker).one("select fanfold.cancel_fan_out(%s, %s)", (act["f"], _THREAD))
        _same("cancel_fan_out", answer[0], act["answer"])

    def cancel_thread(self, _: dict[str, Any]) -> None:
        Worker(self._worker).one("select clock from fanfold.cancel_thread(%s)", (_THREAD,))

    def advance(self, act: dict[str, Any]) -> None:
        Worker(self._worker).one(
            "select fanfold.advance_thread(%s, jsonb_build_object(%s::text, %s::int8))", (_THREAD, act["b"], act["to"])
        )

    def _compare(self, model: Picture) -> None:
        real, ids = self._database.picture(self._sizes, list(self._log), self._owners)
        # Ids differ: sequences have gaps, and of two folds that one commit queues either may be the first.
        rows = sorted((tuple(row), outbox_id) for row, outbox_id in zip(real["out"], ids, strict=True))
        wanted = sorted((tuple(row[1:]), row[0]) for row in model["out"])
        real = {**real, "out": [list(row) for row, _ in rows]}
        _same("the database", real, {**model, "out": [list(row) for row, _ in wanted]})
        self._outbox_ids = {number: outbox_id for (_, number), (_, outbox_id) in zip(wanted, rows, strict=True)}


def _same(what: str, real: Any, model: Any) -> None:
    if real != model:
        raise Diverged(f"{what}: the database says\n    {real}\n  and the model\n    {model}")


_STEPS: dict[str, Callable[[Replay, dict[str, Any]], None]] = {
    "claim": Replay.claim,
    "deliver": Replay.deliver,
    "finish": Replay.finish,
    "send": Replay.send,
    "execute": Replay.execute,
    "execute stray": Replay.execute_stray,
    "answer": Replay.answer,
    "renew": Replay.renew,
    "release": Replay.release,
    "publish": Replay.publish,
    "acknowledge": Replay.acknowledge,
    "lose": Replay.lose,
    "stray": Replay.stray,
    "crash": Replay.crash,
    "backup": Replay.backup,
    "failover": Replay.failover,
    "republish": Replay.republish,
    "reset": Replay.reset,
    "rerun": Replay.rerun,
    "cancel": Replay.cancel,
    "cancel thread": Replay.cancel_thread,
    "advance": Replay.advance,
}
