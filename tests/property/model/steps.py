"""What can happen in an episode, one class each. Numbers choose among what there is; if nothing is, nothing happens.

A step is a record that prints as the call which makes it, so that a failing episode can be read and played again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from msgspec.structs import replace

from fanfold_producer.fan_out import build_fan_out
from fanfold_schemas import Task, VectorClock, arg_hash, encode_payload, encode_task
from fanfold_sql import Finished
from tests.property.model.fleet import BATCH_MAX, Fate, Fleet
from tests.property.model.members import Holding, Member
from tests.sql.support import TOPIC

T = TypeVar("T")


class Step(Protocol):
    def play(self, fleet: Fleet) -> None: ...


# Publishing


@dataclass(frozen=True, slots=True)
class Publish:
    """A fan-out whose first task asks for `children` more; with `torn` only its first task, as its publisher died."""

    thread: str
    size: int
    children: int
    fold: bool
    quorum: int | None
    max_failures: int | None
    deadline: Literal["fail", "fold"] | None
    base: tuple[tuple[str, int], ...]
    torn: bool

    def play(self, fleet: Fleet) -> None:
        built = build_fan_out(
            self.thread,
            [("work", 0 if index else self.children) for index in range(self.size)],
            topic=TOPIC,
            fan_out_id=_next_name(fleet),
            fold="sum" if self.fold else None,
            base=dict(self.base),
            quorum=None if self.quorum is None else min(self.quorum, self.size),
            max_failures=self.max_failures,
            deadline_ms=None if self.deadline is None else 1,
            on_deadline=self.deadline or "fail",
        )
        fleet.published.append(built)
        for record in built.records[: 1 if self.torn else None]:
            fleet.log.publish(record)


@dataclass(frozen=True, slots=True)
class PublishAgain:
    """A whole fan-out, to other partitions than before perhaps, after a gap in the offsets."""

    which: int
    partition: int
    gap: int

    def play(self, fleet: Fleet) -> None:
        for built in _one(fleet.published, self.which):
            for record in built.records:
                assert record.value is not None
                fleet.log.append(record.value, self.partition, gap=self.gap)


@dataclass(frozen=True, slots=True)
class PublishWrong:
    """A record that contradicts one that is there, or is none."""

    which: int
    wrong: str
    partition: int

    def play(self, fleet: Fleet) -> None:
        for task in _one(list(fleet.log.tasks()), self.which):
            fleet.log.append(_spoiled(task, self.wrong), self.partition)


# Members


@dataclass(frozen=True, slots=True)
class Work:
    """An unanswered commit again, then all that is to be read in one partition, in one go.

    `fails`: the handler, by its place, that does. `leaves`: the first one goes on running, so that others overtake it.
    `relays`: what the commit wrote to the outbox is published and acknowledged as well.
    """

    which: int
    fate: Fate
    fails: int | None
    leaves: bool
    relays: bool

    def play(self, fleet: Fleet) -> None:
        for member, holding in _one(_holdings(fleet), self.which):
            if member.sent is not None:
                fleet.commit(member, 0)
            fleet.poll(member, holding, BATCH_MAX)
            for place, work in enumerate(list(member.running)):
                if place > 0 or not self.leaves:
                    fleet.finish(member, work, fails=place == self.fails)
            fleet.commit(member, BATCH_MAX, self.fate)
            if self.relays:
                fleet.publish(member)
                fleet.acknowledge(member)


@dataclass(frozen=True, slots=True)
class Poll:
    which: int
    count: int

    def play(self, fleet: Fleet) -> None:
        for member, holding in _one(_holdings(fleet), self.which):
            fleet.poll(member, holding, self.count)


@dataclass(frozen=True, slots=True)
class Finish:
    """Handlers end in any order; of these only the first may fail."""

    which: int
    count: int
    fails: bool

    def play(self, fleet: Fleet) -> None:
        for number in range(self.count):
            for member, work in _one(fleet.running(), self.which + number):
                fleet.finish(member, work, fails=self.fails and number == 0)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, or an unanswered one again. It may not arrive; its reply may be lost."""

    member: int
    count: int
    fate: Fate

    def play(self, fleet: Fleet) -> None:
        fleet.commit(fleet.members[self.member], self.count, self.fate)


@dataclass(frozen=True, slots=True)
class LateCopy:
    """A commit that was sent earlier arrives once more."""

    which: int

    def play(self, fleet: Fleet) -> None:
        for number in _one(range(len(fleet.copies)), self.which):
            fleet.deliver_late_copy(number)


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody takes a partition, whoever has it; that one goes on until it hears of it."""

    member: int
    partition: int

    def play(self, fleet: Fleet) -> None:
        fleet.claim(fleet.members[self.member], self.partition)


@dataclass(frozen=True, slots=True)
class Release:
    which: int

    def play(self, fleet: Fleet) -> None:
        for member, holding in _one(_holdings(fleet), self.which):
            fleet.release(member, holding)


@dataclass(frozen=True, slots=True)
class Renew:
    """Somebody says that it lives, and hears what it lost."""

    member: int

    def play(self, fleet: Fleet) -> None:
        fleet.renew(fleet.members[self.member])


@dataclass(frozen=True, slots=True)
class Crash:
    member: int

    def play(self, fleet: Fleet) -> None:
        fleet.crash(self.member)


@dataclass(frozen=True, slots=True)
class Relay:
    """Take over up to `limit` outbox rows; publish ours; acknowledge them, or somebody publishes them once more."""

    member: int
    limit: int
    publishes: bool
    acknowledges: bool

    def play(self, fleet: Fleet) -> None:
        member = fleet.members[self.member]
        if self.limit:
            fleet.store.end_leases()
            fleet.lease(member, self.limit)
        if self.publishes:
            fleet.publish(member)
        if self.acknowledges:
            fleet.acknowledge(member)


# Operators, agents, scripts


@dataclass(frozen=True, slots=True)
class Replay:
    """A partition is read again from up to `back` offsets before; on an old picture of it, nothing happens."""

    partition: int
    back: int
    epochs_ago: int

    def play(self, fleet: Fleet) -> None:
        fleet.reset(self.partition, self.epochs_ago, self.back)


@dataclass(frozen=True, slots=True)
class Rerun:
    """Some tasks of a fan-out, with a higher run."""

    which: int
    mask: int

    def play(self, fleet: Fleet) -> None:
        for name in _one(fleet.log.names(), self.which):
            fleet.rerun([t for t in fleet.log.tasks() if t.fan_out.id == name and self.mask >> t.index % 3 & 1])


@dataclass(frozen=True, slots=True)
class CommitWithoutKafka:
    """A task of the log through `commit_result`."""

    which: int

    def play(self, fleet: Fleet) -> None:
        for task in _one(list(fleet.log.tasks()), self.which):
            result = Finished(task, encode_payload("alone"), arg_hash(task), TOPIC)
            fleet.store.commit_alone(result)


@dataclass(frozen=True, slots=True)
class Cancel:
    """A fan-out, the next one to be published among them; `thread` may be the wrong one."""

    which: int
    thread: str | None

    def play(self, fleet: Fleet) -> None:
        for name in _one([*fleet.log.names(), _next_name(fleet)], self.which):
            fleet.store.cancel(name, self.thread)


@dataclass(frozen=True, slots=True)
class Expire:
    """All deadlines pass, and a member looks."""

    def play(self, fleet: Fleet) -> None:
        fleet.store.expire()


@dataclass(frozen=True, slots=True)
class CancelThread:
    thread: str

    def play(self, fleet: Fleet) -> None:
        fleet.store.cancel_thread(self.thread)


@dataclass(frozen=True, slots=True)
class Supersede:
    """New work moves a thread's clock on."""

    thread: str
    clock: tuple[tuple[str, int], ...]

    def play(self, fleet: Fleet) -> None:
        fleet.store.advance(self.thread, VectorClock(dict(self.clock)))


@dataclass(frozen=True, slots=True)
class FailOver:
    """The first time: from here on commits are not replicated. The second: the database becomes its replica, which is
    promoted, or is a snapshot that is restored."""

    promoted: bool

    def play(self, fleet: Fleet) -> None:
        if fleet.store.has_copy:
            fleet.fail_over(promoted=self.promoted)
        else:
            fleet.store.put_aside()


def _holdings(fleet: Fleet) -> list[tuple[Member, Holding]]:
    return [(member, held) for member in fleet.members for held in member.holdings.values()]


def _next_name(fleet: Fleet) -> str:
    return f"f{len(fleet.published)}"


def _one(found: Sequence[T], which: int) -> Sequence[T]:
    """One of what there is, or none."""
    return [found[which % len(found)]] if found else []


def _spoiled(task: Task, wrong: str) -> bytes:
    fan_out = task.fan_out
    match wrong:
        case "arg":
            task = replace(task, arg="another")
        case "index":
            task = replace(task, index=(task.index + 1) % fan_out.size)
        case "task_id":
            task = replace(task, task_id=f"{task.task_id}-again")
        case "size":
            task = replace(task, fan_out=replace(fan_out, size=fan_out.size + 1))
        case "thread":
            task = replace(task, thread_id="t2")
        case _:
            return b"no task"
    return encode_task(task)
